# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A built image into an engine: the daemon's stream goes to the engine's load call as it comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallStatus, Code, Metadata
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, EngineError

QUIET_SECONDS = 3600
"""An engine says nothing while it unpacks a large layer; the limit of other calls would cut it off."""


class Step(Protocol):
    """How the load is shown among the steps of the build."""

    def done(self, *, cached: bool = False) -> None:
        """It is loaded, or was there already."""

    def error(self, text: str) -> None:
        """It is not, for this reason."""


class EngineImport:
    """A receive.Sink that feeds the engine's load call, in a thread of its own."""

    def __init__(self, engine: Engine, wake: Callable[[], None], step: Step) -> None:
        self._engine = Engine(engine.target._replace(timeout=QUIET_SECONDS))
        self._wake = wake
        self._step = step
        self._chunks: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self._held = 0
        self._lock = threading.Lock()
        self._aborted = False
        self._over = False
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
        return self._over

    def abort(self) -> None:
        self._aborted = True
        self._chunks.put(None)

    def _read(self) -> Iterator[bytes]:
        while True:
            data = self._chunks.get()
            if self._aborted:
                # The request must not end well: the engine would take the half for a whole.
                raise EngineError("the load was given up")
            if data is None:
                return
            yield data
            with self._lock:
                self._held -= len(data)
            self._wake()

    def _run(self) -> None:
        try:
            images.load(self._engine, self._read())
            self._step.done()
        except BuildxError as exc:
            self._failure = exc
            self._step.error(str(exc))
        except Exception as exc:
            self._failure = EngineError(f"the load broke off: {exc!r}")
            raise  # a bug, whose traceback belongs on stderr
        finally:
            self._over = True
            self._engine.close()
            self._wake()


CONFIG_DIGEST = "exporter-md-containerimage.config.digest"


def sink(
    engine: Engine, name: Optional[str], step: Callable[[], Step]
) -> Callable[[Metadata, Callable[[], None]], EngineImport]:
    """A receive.SinkFactory that loads an image into an engine under its name.

    step: shows the load as one more step of the build. An engine that has the very image under the name
    is left alone: the daemon takes ALREADY_EXISTS for success (load.md, Algorithm 2).
    """

    def make(metadata: Metadata, wake: Callable[[], None]) -> EngineImport:
        shown = step()
        # Only the classic store's image id is the digest of the configuration.
        wanted = metadata.get(CONFIG_DIGEST, ("",))[0]
        found = images.inspect(engine, name) if name and wanted else None
        if found is not None and found["Id"] == wanted:
            shown.done(cached=True)
            raise CallStatus(Code.ALREADY_EXISTS, f"the engine has {name}")
        return EngineImport(engine, wake, shown)

    return make
