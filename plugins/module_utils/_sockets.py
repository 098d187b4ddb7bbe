# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Streams that are no socket, as one: a TLS connection, and a program's input and output.

Who polls a socket must be able to believe it; so behind these stands a socket pair.
"""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence

READ_SIZE = 256 << 10
END_SECONDS = 5.0
"""How long what is on its way may take to arrive when one side has ended."""
KEPT = 4096
"""Bytes of a program's stderr that are kept for the message when it breaks."""


def decrypted(encrypted: ssl.SSLSocket, begun: bytes = b"") -> socket.socket:
    """A plain socket in front of a TLS connection; when either side ends, both do.

    begun: what was read of the connection already.
    """
    ours, theirs = socket.socketpair()
    carrier = _Carrier(encrypted, theirs, begun)
    threading.Thread(target=carrier.run, daemon=True, name="tls").start()
    return ours


class _Carrier:
    """Copies both ways in one thread: a connection of OpenSSL is not for two at once."""

    def __init__(self, encrypted: ssl.SSLSocket, plain: socket.socket, inward: bytes) -> None:
        self._encrypted, self._plain = encrypted, plain
        self._inward, self._outward = inward, b""
        self._ending = False
        self._wants_write = False
        """A key is changed: OpenSSL has to write before it can read."""

    def run(self) -> None:
        with self._encrypted, self._plain:
            for one in (self._encrypted, self._plain):
                one.setblocking(False)
            try:
                while not self._ending or self._inward or self._outward:
                    if not self._move() and not self._wait():
                        return
            except OSError:
                return  # the other side sees that this one has ended

    def _move(self) -> bool:
        """Whatever can move now; False when nothing can."""
        self._wants_write, before = False, (len(self._inward), len(self._outward))
        if not self._inward and not self._ending:
            self._inward = self._read(self._encrypted)
        if not self._outward and not self._ending:
            self._outward = self._read(self._plain)
        filled = (len(self._inward), len(self._outward))
        self._inward = self._inward[self._write(self._plain, self._inward) :]
        self._outward = self._outward[self._write(self._encrypted, self._outward) :]
        return filled != before or filled != (len(self._inward), len(self._outward))

    def _read(self, source: socket.socket) -> bytes:
        try:
            data = source.recv(READ_SIZE)
        except ssl.SSLWantWriteError:
            self._wants_write = True
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        else:
            self._ending = self._ending or not data
            return data
        return b""

    def _write(self, sink: socket.socket, data: bytes) -> int:
        try:
            return sink.send(data) if data else 0
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return 0

    def _wait(self) -> bool:
        """A full buffer waits for its sink, an empty one for its source; False when the end takes too long."""
        poll = select.poll()
        for one, full, empty in (
            (self._encrypted, self._outward or self._wants_write, not self._inward),
            (self._plain, self._inward, not self._outward),
        ):
            reads = select.POLLIN if empty and not self._ending else 0
            poll.register(one, reads | (select.POLLOUT if full else 0))
        return bool(poll.poll(END_SECONDS * 1000 if self._ending else None))


class Program:
    """A running program whose input and output are `socket`; closing that ends it.

    said: the end of what it wrote to stderr.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Raises OSError when there is no such program."""
        self.said = ""
        self.socket, theirs = socket.socketpair()
        try:
            # A module would call run_command, which waits for the end; this stream lives as long as the connection.
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE
            )
        except OSError:
            self.socket.close()
            raise
        finally:
            theirs.close()
        threading.Thread(target=self._listen, daemon=True, name=command[0]).start()

    def _listen(self) -> None:
        """The program ends by itself when its input does; somebody has to take its last words and its exit code."""
        with self._process:
            while self._process.stderr and (data := self._process.stderr.read1(KEPT)):  # type: ignore[attr-defined]
                self.said = (self.said + data.decode("utf-8", "replace"))[-KEPT:]
