# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Byte streams to a daemon, whatever they run through.

A Dialer gives connected sockets; a way that is no socket (an exec, TLS) stands behind a socket pair. Two
connections are made for a build: one for grpcio, one of our own for the session.
"""

from __future__ import annotations

import socket
from typing import Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError


class Dialer(Protocol):
    """A way to a daemon.

    authority: the `:authority` of the HTTP/2 connection.
    """

    authority: str

    def dial(self) -> socket.socket:
        """A new connection that carries HTTP/2. Raises BuildxError."""

    def target(self) -> Optional[str]:
        """An address that grpcio can dial by itself, None when it cannot."""

    def explain(self) -> str:
        """What the way itself said when it broke, "" for nothing."""

    def close(self) -> None:
        """Give back what the way holds. Connections that were made live on."""


class PlainDialer:
    """What most ways have in common: grpcio cannot dial them, they say nothing themselves, and hold nothing."""

    authority = "localhost"

    def target(self) -> Optional[str]:
        return None

    def explain(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


class UnixDialer(PlainDialer):
    """A daemon's unix socket on this host."""

    def __init__(self, path: str) -> None:
        self._path = path

    def dial(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.connect(self._path)
        except OSError as exc:
            stream.close()
            raise BuildkitError(f"no BuildKit daemon listens at {self._path}: {exc.strerror}") from exc
        return stream

    def target(self) -> Optional[str]:
        return f"unix:{self._path}"
