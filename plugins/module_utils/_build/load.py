# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A built image into an engine: nothing moves when the engine has it (load.md, Algorithm 2).

The daemon offers the image in a call, whose stream is the whole of it. What is done then takes its time
and happens in a thread; the stream is held back meanwhile, and read only by who needs it (transfer.py).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallStatus, Code, Metadata
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, EngineError

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client

METADATA = "exporter-md-"
"""Before what the exporter's response will say, in the metadata of its call (wire §3.10)."""
UNCHANGED, PIPE = "unchanged", "pipe"


class Loaded(NamedTuple):
    """How an image came into the engine.

    way:    unchanged, tagged, missing, all (layers), or pipe: the daemon's stream as it came.
    bytes:  sent to the engine, attempts that were of no use included.
    layers: of those that came of use; not known of a pipe.
    """

    way: str
    bytes: int = 0
    layers: Optional[int] = 0

    def to_result(self) -> dict[str, object]:
        """As a task returns it; what is not known is left out."""
        return {key: value for key, value in self._asdict().items() if value is not None}


class Step(Protocol):
    """How the load is shown among the steps of the build."""

    def log(self, text: str) -> None:
        """What is worth knowing of it."""

    def done(self, *, cached: bool = False) -> None:
        """It is loaded, or was there already."""

    def error(self, text: str) -> None:
        """It is not, for this reason."""


class Wish(NamedTuple):
    """What the engine shall have. names: in the familiar form. id: "" when the daemon does not say it.

    An image without a name is found by its id; the containerd store has a name for what has none.
    """

    engine: Engine
    containerd: bool
    names: tuple[str, ...]
    id: str

    def unmet(self) -> list[str]:
        """The names under which the engine does not have the whole of the image."""
        return [name for name in self.found_by() if self.held(name) != self.id]

    def found_by(self) -> tuple[str, ...]:
        return self.names or (f"{images.DANGLING}@{self.id}" if self.containerd else self.id,)

    def held(self, name: str) -> Optional[str]:
        """The id of the image that the engine has under a name, all of it."""
        if self.containerd:
            return images.complete(self.engine, name)
        found = images.inspect(self.engine, name)
        return str(found["Id"]) if found else None


class EngineLoad:
    """A receive.Sink whose bytes are an image that shall be in an engine; the work is done in a thread of its own."""

    def __init__(self, wish: Wish, metadata: Metadata, client: Client, wake: Callable[[], None], step: Step) -> None:
        self._wish, self._metadata, self._client = wish, metadata, client
        self._wake = wake
        self._step = step
        self._chunks: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self._held = 0
        self._lock = threading.Lock()
        self._aborted = False
        self.loaded: Optional[Loaded] = None
        self._failure: Optional[BuildxError] = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        with self._lock:
            self._held += len(data)
        self._chunks.put(data)

    def held(self) -> int:
        return self._held

    def end(self) -> None:
        self._chunks.put(None)

    def outcome(self) -> bool:
        if self._failure is not None:
            raise self._failure
        if self.loaded is not None and self.loaded.way != PIPE:
            # Success to the daemon, which ends its lease on the layers now (load.md, Algorithm 8).
            raise CallStatus(Code.ALREADY_EXISTS, "the engine has the image")
        return self.loaded is not None

    def abort(self) -> None:
        self._aborted = True
        self._chunks.put(None)

    def check(self) -> None:
        """Raises BuildxError when the load was given up: a request must not end well then."""
        if self._aborted:
            raise BuildxError("the load was given up")

    def stream(self) -> Iterator[bytes]:
        """The daemon's own bytes, from the first one on."""
        while True:
            data = self._chunks.get()
            # The engine would take the half for a whole.
            self.check()
            if data is None:
                return
            yield data
            with self._lock:
                self._held -= len(data)
            self._wake()

    def _run(self) -> None:
        try:
            self.loaded = self._load()
            self._step.done(cached=self.loaded.way == UNCHANGED)
        except BuildxError as exc:
            self._failure = exc
            self._step.error(str(exc))
        except Exception as exc:
            self._failure = EngineError(f"the load broke off: {exc!r}")
            raise  # a bug, whose traceback belongs on stderr
        finally:
            self._wake()

    def _load(self) -> Loaded:
        if self._wish.id and not self._wish.unmet():
            return Loaded(UNCHANGED)
        from .transfer import Transfer

        return Transfer(self._wish, self._metadata, self._client, self).run(self._step.log)


class LoadSink:
    """A receive.SinkFactory. step: shows the load as one more step of the build.

    loaded: how the image came into the engine, None as long as it has not.
    """

    def __init__(self, engine: Engine, client: Client, step: Callable[[], Step], *, containerd: bool) -> None:
        self._engine, self._client, self._step = engine, client, step
        self._containerd = containerd
        self._load: Optional[EngineLoad] = None

    def __call__(self, metadata: Metadata, wake: Callable[[], None]) -> EngineLoad:
        key = "containerimage.digest" if self._containerd else "containerimage.config.digest"
        names = filter(None, _first(metadata, "image.name").split(","))
        familiar = tuple(dict.fromkeys(str(reference.parse(name)) for name in names))
        wish = Wish(self._engine, self._containerd, familiar, _first(metadata, key))
        self._load = EngineLoad(wish, metadata, self._client, wake, self._step())
        return self._load

    @property
    def loaded(self) -> Optional[Loaded]:
        return self._load.loaded if self._load else None


def _first(metadata: Metadata, key: str) -> str:
    return metadata.get(METADATA + key, ("",))[0]
