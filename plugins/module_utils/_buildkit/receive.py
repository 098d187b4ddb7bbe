# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Results that the daemon sends back as one stream of bytes: tar, oci and docker exporters (wire §3.10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from .service import Call, CallFactory, CallStatus, Code, Metadata
from .wirebytes import decode_bytes_message

METHOD = "/moby.filesync.v1.FileSend/DiffCopy"
EXPORTER_ID = "buildkit-attachable-exporter-id"


class Sink(Protocol):
    """Where the bytes go. Nothing here may wait; what takes long happens in a thread of the sink's own."""

    def write(self, data: bytes) -> None:
        """Take bytes; they may be held for a while."""

    def held(self) -> int:
        """Bytes taken and not worked on yet."""

    def end(self) -> None:
        """All bytes have been written; the sink finishes its work and then calls `wake`."""

    def outcome(self) -> bool:
        """Whether the work is done, which is asked after `wake`. Raises BuildxError when it failed."""

    def abort(self) -> None:
        """The daemon gave up, or the session is lost: release everything. May come after the end."""


SinkFactory = Callable[[Metadata, Callable[[], None]], Sink]
"""(metadata of the call, wake) → Sink; wake may be called from any thread."""


class FileSend:
    """The service; `receivers`: index of an exporter in the request → what makes the call that takes its result.

    What the messages carry depends on the exporter: bytes of a stream (`streamed`), or packets of a tree (wire §3.9).
    """

    def __init__(self, receivers: Mapping[int, CallFactory]) -> None:
        self._receivers = {str(index): factory for index, factory in receivers.items()}

    def methods(self) -> Mapping[str, CallFactory]:
        return {METHOD: self._receive}

    def _receive(self, metadata: Metadata) -> Call:
        # Before 0.13 there is one exporter only, and no id (wire §2.9).
        exporter = (metadata.get(EXPORTER_ID) or ("0",))[0]
        factory = self._receivers.get(exporter)
        if factory is None:
            raise CallStatus(Code.INVALID_ARGUMENT, f"nothing here takes the result of exporter {exporter}")
        return factory(metadata)


def streamed(factory: SinkFactory) -> CallFactory:
    """A receiver for exporters whose result is one stream of bytes."""
    return lambda metadata: ReceivedStream(metadata, factory)


class ReceivedStream(Call):
    """One result. OK goes back only when the sink has done its work: then the daemon counts it as exported."""

    def __init__(self, metadata: Metadata, factory: SinkFactory) -> None:
        self._sink = factory(metadata, self._wake)

    def _wake(self) -> None:
        """Through the attribute, which the session sets after this object was made."""
        self.wake()

    def receive(self, message: bytes) -> None:
        self._sink.write(decode_bytes_message(message))

    def half_close(self) -> None:
        self._sink.end()

    def produce(self, budget: int) -> list[bytes]:
        del budget
        self.finished = self.finished or self._sink.outcome()
        return []

    def held(self) -> int:
        return self._sink.held()

    def cancel(self) -> None:
        self._sink.abort()
