# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Short questions against a socket that answers byte by byte what a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.questions import Questions, decoded
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, EngineUnreachable

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a socket left open

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5\r\n": 1}\r\n0\r\n\r\n'


class Server:
    """A socket at `path`; each item of `connections` is one connection: its answers, then it is closed.

    An answer that is None is kept back until the other side gives up.
    """

    def __init__(self, path: Path, *connections: list[bytes | None]) -> None:
        self.requests: list[bytes] = []
        self._connections = connections
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener:
            for answers in self._connections:
                connection, _address = self._listener.accept()
                with connection:
                    connection.settimeout(10)
                    for answer in answers:
                        self.requests.append(_request(connection))
                        if answer is None:
                            connection.recv(1)
                        else:
                            connection.sendall(answer)

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    missing = int(request.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
    while len(request.partition(b"\r\n\r\n")[2]) < missing:
        request += connection.recv(65536)
    return request


@pytest.fixture
def questions(tmp_path: Path) -> Iterator[Questions]:
    made = Questions(Target(f"unix://{tmp_path / 'engine.sock'}", timeout=1))
    yield made
    made.close()


def ask(questions: Questions) -> tuple[int, bytes]:
    return questions.ask("look", "GET", "/x", None)


def test_one_connection_for_many_questions(questions: Questions, tmp_path: Path) -> None:
    server = Server(tmp_path / "engine.sock", [OK, CHUNKED, OK])

    answers = [ask(questions), ask(questions), questions.ask("make", "POST", "/y", {"b": 2})]

    server.join()
    assert answers == [(200, b'{"a": 1}')] * 3
    assert server.requests[0].startswith(b"GET /x HTTP/1.1\r\nHost: docker\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in server.requests[2]
    assert server.requests[2].endswith(b'\r\n\r\n{"b": 2}')


def test_a_connection_that_was_given_up_meanwhile(questions: Questions, tmp_path: Path) -> None:
    """An engine that was restarted during a long build is asked anew."""
    server = Server(tmp_path / "engine.sock", [OK], [OK])

    assert [ask(questions), ask(questions)] == [(200, b'{"a": 1}')] * 2
    server.join()
    assert len(server.requests) == 2


def test_an_engine_that_only_hangs_up(questions: Questions, tmp_path: Path) -> None:
    """A new connection is not tried again."""
    server = Server(tmp_path / "engine.sock", [b""])

    with pytest.raises(EngineUnreachable, match=r"^could not look: no Docker engine answers at unix://") as caught:
        ask(questions)

    server.join()
    assert caught.value.hint == EngineUnreachable.ADVICE


def test_an_engine_that_is_silent(questions: Questions, tmp_path: Path) -> None:
    """An answer that comes late is not taken for the next one's."""
    server = Server(tmp_path / "engine.sock", [None], [OK])

    with pytest.raises(EngineUnreachable, match="gave no answer within 1 s") as caught:
        ask(questions)
    assert ask(questions) == (200, b'{"a": 1}')

    server.join()
    assert "timeout" in str(caught.value.hint)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_what_is_no_engine(questions: Questions, tmp_path: Path, answer: bytes) -> None:
    server = Server(tmp_path / "engine.sock", [answer])

    with pytest.raises(EngineUnreachable, match="could not look: no Docker engine answers at"):
        ask(questions)

    server.join()


def test_nobody_there(questions: Questions) -> None:
    with pytest.raises(
        EngineUnreachable, match=r"^could not look: .*engine\.sock: No such file or directory$"
    ) as caught:
        ask(questions)
    assert caught.value.hint == EngineUnreachable.ADVICE


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (409, b'{"message":"box is paused"}', "box is paused"),
        (500, b"plain words\n", "plain words"),
        (500, b'["list"]', r'\["list"\]'),
        (502, b"", "status 502"),
        (200, b"<html>", "no JSON: '<html>'"),
    ],
)
def test_a_refusal_has_the_engines_words(status: int, content: bytes, words: str) -> None:
    with pytest.raises(EngineError, match=f"^could not look: .*{words}$") as caught:
        decoded("look", status, content)
    assert caught.value.details.get("status") == (status if status >= 400 else None)
    assert not isinstance(caught.value, EngineUnreachable)
