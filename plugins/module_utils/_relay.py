# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A private unix socket in front of a way that is no address, for libraries that dial addresses only."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError


class Relay:
    """Every connection to it becomes one that `dial` makes; failure: why it last could not.

    Its socket has no name but a descriptor of this process: nobody else can reach it, and nothing of it is left
    behind, however the process ends.
    """

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._held = _bind_without_name(self._listener)
        self._listener.listen(4)
        self._streams: list[socket.socket] = []
        self.failure: Optional[BuildxError] = None
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)
        self._thread.start()

    @property
    def path(self) -> str:
        """Of the socket, valid in this process only."""
        return f"/proc/self/fd/{self._held}"

    def close(self) -> None:
        """End the relay and every connection through it."""
        with contextlib.suppress(OSError):  # wakes the accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        os.close(self._held)

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            try:
                far = self._dial()
            except BuildxError as exc:
                self.failure = exc
                near.close()
                continue
            self._streams += [near, far]
            threading.Thread(target=_pump, args=(near, far), name="relay-pump", daemon=True).start()


def _bind_without_name(listener: socket.socket) -> int:
    """Bind a unix socket to a file that is gone at once. A descriptor of that file, which leads to the socket."""
    directory = tempfile.mkdtemp(prefix="buildx-relay-")
    # A socket's name may have 107 bytes; that of a directory for temporary files may alone have more.
    inside = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{inside}/s")
        held = os.open("s", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
        os.unlink("s", dir_fd=inside)
    finally:
        os.close(inside)
        os.rmdir(directory)
    return held


def _pump(near: socket.socket, far: socket.socket) -> None:
    """Copy both ways until one side ends; then both are closed.

    A thread each way: a side that does not read until it is read must not stop the other way.
    """
    with near, far:
        back = threading.Thread(target=_copy, args=(far, near), name="relay-pump", daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(256 << 10)
            if not data:
                break
            sink.sendall(data)
    for side in (source, sink):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
