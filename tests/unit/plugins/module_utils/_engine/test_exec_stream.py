# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An exec as a byte stream. The engine here is a socket with a script of answers; what a real one does is
proven by the integration tests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import exec_stream
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.exec_stream import (
    STDERR,
    STDOUT,
    Demultiplexer,
    open_stream,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
SWITCHED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def joined(parts: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbours of one stream put together."""
    out: list[tuple[int, bytes]] = []
    for stream, payload in parts:
        if out and out[-1][0] == stream:
            out[-1] = (stream, out[-1][1] + payload)
        elif payload:
            out.append((stream, payload))
    return out


@given(
    frames=st.lists(st.tuples(st.sampled_from([0, STDOUT, STDERR]), st.binary(max_size=30)), max_size=8),
    data=st.data(),
)
@settings(deadline=None, max_examples=120)
def test_frames_may_be_cut_anywhere(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    raw = b"".join(frame(stream, payload) for stream, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    demultiplexer = Demultiplexer()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)]):
        found += demultiplexer.feed(raw[start:end])
    assert joined(found) == joined(frames)


def test_a_large_frame_is_handed_on_as_it_comes() -> None:
    """Nothing waits for the end of a frame: the head may announce 4 GiB."""
    demultiplexer = Demultiplexer()
    head = bytes((STDOUT, 0, 0, 0)) + (2**32 - 1).to_bytes(4, "big")
    assert demultiplexer.feed(head + b"abc") == [(STDOUT, b"abc")]
    assert demultiplexer.feed(b"d") == [(STDOUT, b"d")]


@pytest.mark.parametrize("head", [b"\x03\0\0\0", b"\x01\0\0\1", b"\x01\1\0\0", b"HTTP", b"PRI "])
def test_what_is_no_frame_is_refused(head: bytes) -> None:
    with pytest.raises(EngineError, match="out of step"):
        Demultiplexer().feed(frame(STDOUT, b"x") + head + b"\0\0\0\1x")


class Daemon:
    """One connection of an engine: reads the request, answers, and goes on as the test says."""

    def __init__(self, path: Path, answer: bytes, then: Callable[[socket.socket], None]) -> None:
        self.request = b""
        self.body: Any = None
        self._answer, self._then = answer, then
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._listener:
            connection, _address = self._listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.request:
                self.request += connection.recv(4096)
            head, _blank, body = self.request.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            while len(body) < length:
                body += connection.recv(4096)
            self.body = json.loads(body)
            connection.sendall(self._answer)
            self._then(connection)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.made: list[tuple[Any, ...]] = []
        self._path = directory / "engine.sock"
        self._opened: list[socket.socket] = []

    def open(
        self, then: Callable[[socket.socket], None], answer: bytes = SWITCHED
    ) -> tuple[Daemon, exec_stream.ExecStream]:
        daemon = Daemon(self._path, answer, then)
        stream = open_stream(self._engine(), "box", ["buildctl", "dial-stdio"])
        stream.socket.settimeout(10)
        self._opened.append(stream.socket)
        return daemon, stream

    def _engine(self) -> Engine:
        def ask(what: str, method: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
            self.made.append((method, path, body))
            return 201, b'{"Id": "abc"}'

        engine = Engine(Target(f"unix://{self._path}", api_version="1.43", timeout=10))
        engine._questions = SimpleNamespace(ask=ask)  # type: ignore[assignment]
        return engine

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def drained(stream: socket.socket) -> bytes:
    content = b""
    while True:
        data = stream.recv(65536)
        if not data:
            return content
        content += data


def test_both_directions(bench: Bench) -> None:
    heard = []

    def echo(connection: socket.socket) -> None:
        heard.append(drained(connection))
        for part in (SETTINGS, b"answer"):
            connection.sendall(frame(STDOUT, part))

    daemon, stream = bench.open(echo)
    stream.socket.sendall(b"question" * 50_000)
    stream.socket.shutdown(socket.SHUT_WR)
    assert drained(stream.socket) == SETTINGS + b"answer"
    assert heard == [b"question" * 50_000]
    attached = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    assert bench.made == [("POST", "/v1.43/containers/box/exec", {"Cmd": ["buildctl", "dial-stdio"], **attached})]
    assert daemon.request.startswith(b"POST /v1.43/exec/abc/start HTTP/1.1\r\n")
    assert daemon.body == {"Detach": False, "Tty": False}


def test_bytes_that_come_with_the_answer_are_part_of_the_stream(bench: Bench) -> None:
    _daemon, stream = bench.open(lambda connection: None, SWITCHED + frame(STDOUT, SETTINGS + b"x"))
    assert drained(stream.socket) == SETTINGS + b"x"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_first_frame_may_come_in_pieces(bench: Bench, size: int) -> None:
    """The engine's frames have no relation to what the program wrote."""
    cut = b"".join(frame(STDOUT, SETTINGS[at : at + size]) for at in range(0, len(SETTINGS), size))
    _daemon, stream = bench.open(lambda connection: connection.sendall(cut))
    assert drained(stream.socket) == SETTINGS
    assert stream.said == ""


def test_what_the_program_says_on_the_side_is_kept_apart(bench: Bench) -> None:
    """Before its first byte as well: a warning must not be taken for the protocol, nor the protocol for words."""

    def speak(connection: socket.socket) -> None:
        connection.sendall(frame(STDERR, b"WARNING: old\n") + frame(STDOUT, SETTINGS))
        connection.sendall(frame(STDERR, b"and gone\n"))

    _daemon, stream = bench.open(speak)
    assert drained(stream.socket) == SETTINGS
    assert stream.said == "WARNING: old\nand gone\n"


@pytest.mark.parametrize(
    "words", [b"OCI runtime exec failed: exec: \"buildctl\": executable file not found", b"no", b"\xff\xfe"]
)  # fmt: skip
def test_a_missing_program_is_heard_not_spoken(bench: Bench, words: bytes) -> None:
    """The engine reports it on stdout, where HTTP/2 is expected."""
    _daemon, stream = bench.open(lambda connection: connection.sendall(frame(STDOUT, words)))
    assert drained(stream.socket) == b""
    assert stream.said == words.decode("utf-8", "replace")


def test_what_is_heard_is_bounded(bench: Bench) -> None:
    _daemon, stream = bench.open(lambda connection: connection.sendall(frame(STDERR, b"x" * 100_000 + b"end")))
    assert drained(stream.socket) == b""
    assert len(stream.said) == exec_stream.KEPT
    assert stream.said.endswith("end")


def test_a_broken_tunnel_is_an_end_of_file(bench: Bench) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.sendall(frame(STDOUT, SETTINGS))
        connection.recv(1)
        connection.sendall(b"\x09garbage" + frame(STDOUT, b"more"))

    _daemon, stream = bench.open(break_off)
    assert stream.socket.recv(100) == SETTINGS
    stream.socket.sendall(b"x")
    assert drained(stream.socket) == b""


def test_closing_ends_the_process_and_every_thread(bench: Bench) -> None:
    ended = threading.Event()

    def wait_for_the_end(connection: socket.socket) -> None:
        connection.sendall(frame(STDOUT, SETTINGS))
        drained(connection)  # the end of its input is how the program learns of it
        ended.set()

    daemon, stream = bench.open(wait_for_the_end)
    assert stream.socket.recv(100) == SETTINGS
    stream.socket.close()
    assert ended.wait(5)
    daemon.thread.join(5)
    for thread in threading.enumerate():
        if thread.name.startswith("exec-"):
            thread.join(5)
            assert not thread.is_alive(), thread.name


def test_a_refusal_has_the_engines_words(bench: Bench) -> None:
    body = b'{"message":"container box is paused, unpause the container before exec"}'
    answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with pytest.raises(EngineError, match="is paused, unpause the container before exec") as caught:
        bench.open(lambda connection: None, answer)
    assert caught.value.details["status"] == 409


def test_a_command_to_its_end() -> None:
    calls: list[Any] = []

    def exec_create(*arguments: Any, **options: bool) -> dict[str, str]:
        calls.append(arguments)
        return {"Id": "e"}

    api = SimpleNamespace(
        exec_create=exec_create,
        exec_start=lambda identity: b"line\n\xff",
        exec_inspect=lambda identity: {"ExitCode": 3},
    )
    engine = Engine(Target("unix:///nowhere"))
    engine._library()._api = api
    assert exec_stream.run(engine, "box", ["buildkitd", "--version"]) == (3, "line\n�")
    assert calls == [("box", ["buildkitd", "--version"])]
    api.exec_inspect = lambda identity: {"ExitCode": None}
    assert exec_stream.run(engine, "box", ["x"])[0] == -1
