# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A process in a container as a byte stream: `docker exec -i` without the CLI (wire §14)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .client import Engine
from .raw import api_prefix, open_socket, upgrade

STDOUT, STDERR = 1, 2
KEPT = 4096
"""Bytes of a tunnel's stderr that are kept for the message when it breaks."""


class Demultiplexer:
    """Takes the frames of an exec without a terminal apart: stream, three zero bytes, length, payload (wire §14.3).

    Frames have no relation to reads: bytes are kept until a frame's head is whole.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """What arrived → (stream, bytes) in order. Raises EngineError on what is no frame."""
        view, out = memoryview(data), []
        while view:
            if not self._left:
                missing = 8 - len(self._head)
                self._head += view[:missing]
                view = view[missing:]
                if len(self._head) < 8:
                    break
                self._open(bytes(self._head))
                continue
            part = view[: self._left]
            out.append((self._stream, bytes(part)))
            self._left -= len(part)
            view = view[len(part) :]
        return out

    def _open(self, head: bytes) -> None:
        self._head.clear()
        self._stream, self._left = head[0], int.from_bytes(head[4:8], "big")
        if self._stream not in (0, STDOUT, STDERR) or head[1:4] != b"\0\0\0":
            raise EngineError(f"the engine's exec stream is out of step: {head!r}")


class ExecStream:
    """A running command: `socket` is its stdin and stdout; closing it ends the process."""

    def __init__(self, stream: socket.socket) -> None:
        self.socket = stream
        self.said = ""

    def hear(self, text: bytes) -> None:
        self.said = (self.said + text.decode("utf-8", "replace"))[-KEPT:]


def open_stream(engine: Engine, container: str, command: Sequence[str]) -> ExecStream:
    """Run a command that speaks HTTP/2 in a container.

    When it is missing or fails, the socket ends, and `said` holds what it or the engine printed.
    """
    wanted = {"Cmd": list(command), "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    what = f"run {command[0]} in the container {container}"
    made = engine.ask(what, "POST", f"/containers/{container}/exec", wanted)
    tunnel = open_socket(engine.target)
    try:
        path = f"{api_prefix(engine.target.api_version)}/exec/{made['Id']}/start"
        upgrade(tunnel, path, "tcp", body={"Detach": False, "Tty": False})
    except EngineError:
        tunnel.close()
        raise
    ours, theirs = socket.socketpair()
    stream = ExecStream(ours)
    reader = threading.Thread(target=_receive, args=(tunnel, theirs, stream), daemon=True, name="exec-read")
    writer = threading.Thread(target=_send, args=(theirs, tunnel), daemon=True, name="exec-write")

    def close_after() -> None:
        reader.join()
        with contextlib.suppress(OSError):  # wakes the writer, which may wait for bytes that never come
            theirs.shutdown(socket.SHUT_RDWR)
        writer.join()
        tunnel.close()
        theirs.close()

    reader.start()
    writer.start()
    threading.Thread(target=close_after, daemon=True, name="exec-end").start()
    return stream


def _receive(tunnel: socket.socket, sink: socket.socket, stream: ExecStream) -> None:
    frames, begun, speaks = Demultiplexer(), bytearray(), False
    with contextlib.suppress(OSError, EngineError):  # a broken tunnel is an end of file to who reads the socket
        while True:
            data = tunnel.recv(256 << 10)
            if not data:
                break
            for kind, payload in frames.feed(data):
                if kind != STDOUT:
                    stream.hear(payload)
                elif speaks:
                    sink.sendall(payload)
                elif len(begun) < KEPT:
                    # A program that is missing is reported on stdout; HTTP/2 begins with a SETTINGS frame.
                    begun += payload
                    speaks = begun[3:4] == b"\x04"
                    if speaks:
                        sink.sendall(begun)
    if not speaks:
        stream.hear(bytes(begun))
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _send(source: socket.socket, tunnel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(256 << 10)
            if not data:
                break
            tunnel.sendall(data)
    with contextlib.suppress(OSError):
        tunnel.shutdown(socket.SHUT_WR)


def run(engine: Engine, container: str, command: Sequence[str]) -> tuple[int, str]:
    """Run a command to its end: (exit code, what it printed, decoded leniently)."""
    with engine.errors(f"run {command[0]} in the container {container}"):
        made = engine.api.exec_create(container, list(command), stdout=True, stderr=True)
        output: bytes = engine.api.exec_start(made["Id"])
        code = engine.api.exec_inspect(made["Id"]).get("ExitCode")
    return (int(code) if code is not None else -1), output.decode("utf-8", "replace")
