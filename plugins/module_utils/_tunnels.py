# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Ways to a daemon through its engine's API, taken where there is no nearer one."""

from __future__ import annotations

import socket
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import PlainDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import exec_stream, raw
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine


class ExecDialer(PlainDialer):
    """`buildctl dial-stdio` in the container, through the engine."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container
        self._last: Optional[exec_stream.ExecStream] = None

    def dial(self) -> socket.socket:
        self._last = exec_stream.open_stream(self._engine, self._container, ["buildctl", "dial-stdio"])
        return self._last.socket

    def explain(self) -> str:
        return self._last.said if self._last else ""


class EngineDialer(PlainDialer):
    """The BuildKit inside an engine, behind its `/grpc` (wire §13.4)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def dial(self) -> socket.socket:
        stream = raw.open_socket(self._engine.target)
        try:
            raw.upgrade(stream, "/grpc", "h2c")
        except BaseException:
            stream.close()
            raise
        return stream
