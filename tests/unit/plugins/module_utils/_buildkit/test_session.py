# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session against a daemon of our own at the other end of a socket pair, on another implementation of HTTP/2.

What a real daemon does with a session is proven by the integration tests; here is what it could do.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import session as sessions
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Call, CallFactory
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a socket left open

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\0\0\0\0\2\x08\x01"
SECONDS = 10.0


class Daemon:
    """Both connections of a daemon: outside it serves Control.Session, inside it calls what was announced."""

    def __init__(self, window: int | None = None, refusal: bytes = b"") -> None:
        self._refusal = refusal
        self.ours, self.socket = socket.socketpair()
        self.headers: list[tuple[bytes, bytes]] = []
        self.client_ended = self.connection_ended = False
        self.answers: dict[int, bytes] = {}
        self.trailers: dict[int, dict[bytes, bytes]] = {}
        self.messages = 0
        self.largest = 0
        self._stream = 0
        self._buffer = b""
        self._to_send = b""
        self.outer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.inner = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.outer.initiate_connection()
        if window is not None:
            self.outer.update_settings({4: window})
        self.inner.initiate_connection()

    # A Dialer, for the session.

    authority = "localhost"

    def dial(self) -> socket.socket:
        return self.ours

    def target(self) -> str | None:
        return None

    def explain(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""

    # The daemon.

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            assert not self.connection_ended or condition(), "the connection has ended"
            self._send()
            self._receive()
        self._send()

    def call(self, path: str, message: bytes = b"", end: bool = True) -> int:
        self.until(lambda: self._stream)
        stream: int = self.inner.get_next_available_stream_id()
        headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x")]
        self.inner.send_headers(stream, headers)
        self.inner.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=end)
        self.answers[stream], self.trailers[stream] = b"", {}
        return stream

    def finish(self, stream: int, seconds: float = SECONDS) -> tuple[bytes, bytes]:
        self.until(lambda: self.trailers[stream], seconds)
        return self.answers[stream], self.trailers[stream][b"grpc-status"]

    def end(self, status: bytes = b"0", message: bytes = b"") -> None:
        """The daemon's own end of the call."""
        self.until(lambda: self._stream)
        self.outer.send_headers(self._stream, [(b"grpc-status", status), (b"grpc-message", message)], end_stream=True)
        self._send()

    def _send(self) -> None:
        self._to_send += self.inner.data_to_send()
        while self._to_send and self._stream and not self._refusal:
            room = min(self.outer.local_flow_control_window(self._stream), self.outer.max_outbound_frame_size) - 16
            if room <= 0:
                break
            part, self._to_send = self._to_send[:room], self._to_send[room:]
            field = b"\x0a" + _varint(len(part)) + part
            self.outer.send_data(self._stream, b"\0" + len(field).to_bytes(4, "big") + field)
        data = self.outer.data_to_send()
        if data and not self.connection_ended:
            try:
                self.socket.sendall(data)
            except OSError:
                self.connection_ended = True

    def _receive(self) -> None:
        if not select.select([self.socket], [], [], 0.05)[0]:
            return
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        self.connection_ended = self.connection_ended or not data
        for event in self.outer.receive_data(data) if data else ():
            if isinstance(event, h2.events.RequestReceived):
                self._stream, self.headers = event.stream_id or 0, list(event.headers or [])
                answer = [(b":status", b"200"), (b"content-type", b"application/grpc")]
                if self._refusal:
                    answer += [(b"grpc-status", b"12"), (b"grpc-message", self._refusal)]
                self.outer.send_headers(self._stream, answer, end_stream=bool(self._refusal))
            elif isinstance(event, h2.events.DataReceived):
                self.outer.acknowledge_received_data(event.flow_controlled_length or 0, self._stream)
                self._take(event.data or b"")
            elif isinstance(event, h2.events.StreamEnded):
                self.client_ended = True

    def _take(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 5:
            length = int.from_bytes(self._buffer[1:5], "big")
            if len(self._buffer) < 5 + length:
                return
            message, self._buffer = self._buffer[5 : 5 + length], self._buffer[5 + length :]
            # A daemon takes the bytes of the message before for those of an empty one (wire §2.3).
            assert length, "an empty message"
            size, at = _read_varint(message, 1)
            assert message[0] == 0x0A
            assert size == len(message) - at
            assert size, "an empty BytesMessage"
            self.messages += 1
            self.largest = max(self.largest, length)
            self._take_inner(message[at:])

    def _take_inner(self, data: bytes) -> None:
        for event in self.inner.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.answers[event.stream_id or 0] += event.data or b""
                self.inner.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id or 0] = dict(event.headers or [])


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


class Service:
    def __init__(self, **methods: CallFactory) -> None:
        self._methods = {f"/test.Test/{name}": factory for name, factory in methods.items()}

    def methods(self) -> Mapping[str, CallFactory]:
        return self._methods


class Pair:
    """A session and its daemon."""

    def __init__(self) -> None:
        self.daemons: list[Daemon] = []
        self.sessions: list[Session] = []

    def open(self, *services: Any, **options: Any) -> tuple[Session, Daemon]:
        daemon = Daemon(**options)
        session = Session(daemon, "r" * 25, "0123abcd", [Health(), *services])
        self.daemons.append(daemon)
        self.sessions.append(session)
        session.start()
        return session, daemon

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.socket.close()
        for session in self.sessions:
            session.close()
            assert not session._thread.is_alive()


@pytest.fixture
def pair() -> Iterator[Pair]:
    before, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    made = Pair()
    yield made
    made.close()
    assert set(os.listdir("/proc/self/fd")) <= before, "something stays open"
    assert set(threading.enumerate()) <= threads


def ended(session: Session) -> BuildkitError:
    """The failure of a session that ended by itself."""
    session._thread.join(SECONDS)
    assert not session._thread.is_alive()
    assert session.failure is not None
    return session.failure


def test_what_is_announced(pair: Pair) -> None:
    _session, daemon = pair.open(Service(One=lambda metadata: Call(), Two=lambda metadata: Call()))
    daemon.until(lambda: daemon.headers)
    fields = [(name.decode(), value.decode()) for name, value in daemon.headers]
    assert dict(fields[:4]) == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/moby.buildkit.v1.Control/Session",
        ":authority": "localhost",
    }
    assert ("te", "trailers") in fields
    assert ("content-type", "application/grpc") in fields
    assert ("x-docker-expose-session-uuid", "r" * 25) in fields
    assert ("x-docker-expose-session-sharedkey", "0123abcd") in fields
    assert [value for name, value in fields if name == "x-docker-expose-session-grpc-method"] == [
        CHECK, "/grpc.health.v1.Health/Watch", "/test.Test/One", "/test.Test/Two",
    ]  # fmt: skip


def test_calls_are_answered(pair: Pair) -> None:
    session, daemon = pair.open()
    for _time in range(20):
        assert daemon.finish(daemon.call(CHECK)) == (SERVING, b"0")
    streams = [daemon.call(CHECK) for _time in range(50)]
    assert {daemon.finish(stream) for stream in streams} == {(SERVING, b"0")}
    assert daemon.finish(daemon.call("/test.Test/No"))[1] == b"12"
    assert session.failure is None


class Bulk(Call):
    """Says so many bytes, and then ends."""

    def __init__(self, size: int) -> None:
        self._next, self._size = 0, size

    def produce(self, budget: int) -> list[bytes]:
        begin, self._next = self._next, min(self._size, self._next + budget)
        self.finished = self._next == self._size
        return [content(begin, self._next)] if self._next > begin else []


def content(begin: int, end: int) -> bytes:
    """A part of a long text in which no two places are alike."""
    return b"".join(b"%08d" % number for number in range(begin // 8, end // 8 + 1))[begin % 8 :][: end - begin]


def joined(data: bytes) -> bytes:
    """The content of gRPC messages."""
    parts, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        parts.append(data[at + 5 : at + 5 + length])
        at += 5 + length
    return b"".join(parts)


@pytest.mark.parametrize("window", [None, 200, 5000, 1 << 20])
def test_much_data_through_the_windows_of_both_connections(pair: Pair, window: int | None) -> None:
    size = 200_000 if window and window < 10_000 else 3_000_000
    _session, daemon = pair.open(Service(Bulk=lambda metadata: Bulk(size)), window=window)
    stream = daemon.call("/test.Test/Bulk")
    data, status = daemon.finish(stream, 60)
    assert status == b"0"
    assert joined(data) == content(0, size)
    assert daemon.largest <= sessions.CHUNK + 16


def test_small_messages_leave_together(pair: Pair) -> None:
    """They are the reason for this transport: one write and one message of the stream for many of a call."""

    class Many(Call):
        left = 5000

        def produce(self, budget: int) -> list[bytes]:
            number = min(self.left, budget // 20)
            self.left -= number
            self.finished = not self.left
            return [b"x" * 20] * number

    _session, daemon = pair.open(Service(Many=lambda metadata: Many()))
    data, _status = daemon.finish(daemon.call("/test.Test/Many"))
    assert len(data) == 5000 * 25
    assert daemon.messages < 50


def test_what_the_daemon_sends_arrives(pair: Pair) -> None:
    received: list[bytes] = []

    class Sink(Call):
        def receive(self, message: bytes) -> None:
            received.append(message)

        def half_close(self) -> None:
            self.finished = True

    _session, daemon = pair.open(Service(Sink=lambda metadata: Sink()))
    stream = daemon.call("/test.Test/Sink", b"a" * 10_000)
    assert daemon.finish(stream) == (b"", b"0")
    assert received == [b"a" * 10_000]


def test_a_wake_from_another_thread_is_heard(pair: Pair) -> None:
    """Nothing arrives meanwhile that would turn the loop."""
    calls: list[Any] = []

    class Later(Call):
        def __init__(self) -> None:
            self.ready: list[bytes] = []
            calls.append(self)

        def produce(self, budget: int) -> list[bytes]:
            self.finished = bool(self.ready)
            return self.ready

    _session, daemon = pair.open(Service(Later=lambda metadata: Later()))
    stream = daemon.call("/test.Test/Later")
    daemon.until(lambda: calls)
    time.sleep(0.2)

    def speak() -> None:
        calls[0].ready = [b"done"]
        calls[0].wake()

    threading.Thread(target=speak).start()
    assert daemon.finish(stream, 5) == (b"\0\0\0\0\4done", b"0")


def test_wakes_without_end_do_not_fill_the_pipe(pair: Pair) -> None:
    session, daemon = pair.open()
    for _time in range(70_000):
        session._wake()
    assert daemon.finish(daemon.call(CHECK)) == (SERVING, b"0")


# How a session ends.


def test_closing_tells_the_daemon_and_ends_everything(pair: Pair) -> None:
    cancelled = threading.Event()

    class Waiting(Call):
        def cancel(self) -> None:
            cancelled.set()

    session, daemon = pair.open(Service(Waiting=lambda metadata: Waiting()))
    daemon.call("/test.Test/Waiting", end=False)
    assert daemon.finish(daemon.call(CHECK)) == (SERVING, b"0")
    began = time.monotonic()
    closer = threading.Thread(target=session.close)
    closer.start()
    daemon.until(lambda: daemon.client_ended)
    daemon.end()
    closer.join(SECONDS)
    assert time.monotonic() - began < sessions.CLOSE_SECONDS, "the daemon's answer ends the wait"
    assert cancelled.is_set()
    assert session.failure is None
    daemon.until(lambda: daemon.connection_ended)


def test_a_daemon_that_does_not_answer_is_not_waited_for_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.3)
    session, daemon = pair.open()
    daemon.finish(daemon.call(CHECK))
    began = time.monotonic()
    session.close()
    assert 0.2 < time.monotonic() - began < 5
    assert not session._thread.is_alive()
    assert session.failure is None


def test_closing_twice_or_before_the_start_is_nothing(pair: Pair) -> None:
    session, _daemon = pair.open()
    pair.daemons[0].socket.close()
    session.close()
    session.close()
    never = Session(Daemon(), "id", "key", [Health()])
    never._dialer.ours.close()  # type: ignore[attr-defined]
    never._dialer.socket.close()  # type: ignore[attr-defined]
    never.close()


def test_what_never_starts_holds_nothing(pair: Pair) -> None:
    """What comes between making a session and starting it may fail."""
    before = set(os.listdir("/proc/self/fd"))
    daemon = Daemon()
    daemon.ours.close()
    daemon.socket.close()
    session = Session(daemon, "id", "key", [Health()])
    assert set(os.listdir("/proc/self/fd")) <= before
    session.close()


def test_a_call_that_does_not_come_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may not answer for hours: neither the caller nor the daemon waits for it."""
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.1)
    entered, answers, cancelled = threading.Event(), threading.Event(), threading.Event()

    class Stuck(Call):
        def produce(self, budget: int) -> list[bytes]:
            entered.set()
            answers.wait(SECONDS)
            return []

        def cancel(self) -> None:
            cancelled.set()

    session, daemon = pair.open(Service(Stuck=lambda metadata: Stuck()))
    daemon.call("/test.Test/Stuck", end=False)
    daemon.until(entered.is_set)
    session.close()
    assert session._thread.is_alive()
    daemon.until(lambda: daemon.connection_ended)
    answers.set()
    session._thread.join(SECONDS)
    assert cancelled.is_set()
    session._wake()  # of a sink that is late


def test_a_daemon_is_told_what_it_did_wrong(pair: Pair) -> None:
    session, daemon = pair.open()
    daemon.finish(daemon.call(CHECK))
    daemon.socket.sendall(b"\0\0\1\6\0" + bytes(4) + b"x")  # a PING of one byte
    assert "frame of type 6 with 1 bytes" in str(ended(session))
    said = b""
    while data := daemon.socket.recv(1 << 16):
        said += data
    assert said.endswith(b"frame of type 6 with 1 bytes"), "GOAWAY, and then the end"


def test_a_daemon_that_cannot_be_reached(pair: Pair) -> None:
    class Nowhere(Daemon):
        def dial(self) -> socket.socket:
            raise BuildkitError("no BuildKit daemon listens there")

    nowhere = Nowhere()
    session = Session(nowhere, "id", "key", [Health()])
    with pytest.raises(BuildkitError, match="no BuildKit daemon"):
        session.start()
    session.close()
    nowhere.ours.close()
    nowhere.socket.close()


def test_a_wake_after_the_end_touches_nobody_elses_file(pair: Pair) -> None:
    """The sink of a load may end after the session; by then the pipe's number can be another file's."""
    session, _daemon = pair.open()
    number = session._woken
    pair.daemons[0].socket.close()
    session.close()
    reader, writer = os.pipe()
    os.dup2(writer, number)
    session._wake()
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    for descriptor in sorted({reader, writer, number}):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "the session ended before the build: the daemon closed it"),
        (b"no such session%3A 100%25", "the session ended before the build: no such session: 100%"),
    ],
)
def test_a_daemon_that_ends_the_session(pair: Pair, message: bytes, words: str) -> None:
    session, daemon = pair.open()
    daemon.end(b"14", message)
    assert str(ended(session)) == words


def test_a_daemon_that_does_not_know_sessions(pair: Pair) -> None:
    """Its answer is all trailers."""
    session, daemon = pair.open(refusal=b"unknown service moby.buildkit.v1.Control")
    daemon.until(lambda: daemon.headers)
    assert "unknown service moby.buildkit.v1.Control" in str(ended(session))


def test_a_connection_that_ends(pair: Pair) -> None:
    cancelled = threading.Event()

    class Waiting(Call):
        def cancel(self) -> None:
            cancelled.set()

    session, daemon = pair.open(Service(Waiting=lambda metadata: Waiting()))
    daemon.call("/test.Test/Waiting", end=False)
    daemon.finish(daemon.call(CHECK))
    daemon.socket.close()
    assert "ended before the build" in str(ended(session))
    assert cancelled.is_set(), "what the call holds is released"


def test_a_session_that_is_reset(pair: Pair) -> None:
    session, daemon = pair.open()
    daemon.finish(daemon.call(CHECK))
    daemon.outer.reset_stream(daemon._stream, h2.errors.ErrorCodes.CANCEL)
    daemon._send()
    assert "ended before the build" in str(ended(session))


def test_a_daemon_that_goes_away_in_good_order_is_served_to_the_end(pair: Pair) -> None:
    """It stops, and lets what it has begun come to its end: this build as well."""
    session, daemon = pair.open()
    daemon.finish(daemon.call(CHECK))
    frame = b"\0\0\x08\x07\0" + bytes(4) + (2**31 - 1).to_bytes(4, "big") + bytes(4)
    daemon.socket.sendall(frame)
    assert daemon.finish(daemon.call(CHECK)) == (SERVING, b"0")
    assert session.failure is None


@pytest.mark.parametrize(("last", "code"), [(0, 0), (2**31 - 1, 11)])
def test_a_daemon_that_throws_us_out(pair: Pair, last: int, code: int) -> None:
    session, daemon = pair.open()
    daemon.finish(daemon.call(CHECK))
    debug = b"too_many_pings"
    payload = last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug
    daemon.socket.sendall(len(payload).to_bytes(3, "big") + b"\x07\0" + bytes(4) + payload)
    words = str(ended(session))
    assert "ended before the build" in words
    assert not code or "too_many_pings" in words


@pytest.mark.parametrize("where", ["outside", "inside", "no message", "compressed"])
def test_a_daemon_that_breaks_the_protocol(pair: Pair, where: str) -> None:
    session, daemon = pair.open()
    daemon.finish(daemon.call(CHECK))
    if where == "outside":
        daemon.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    else:
        content = {
            "inside": b"\0\0\0\0\x0a\x0a\x08no HTTP/2",
            "no message": b"\0\0\0\0\x03\x12\x01x",
            "compressed": b"\1\0\0\0\1x",
        }[where]
        if where == "inside":
            field = b"\x0a\x20" + b"x" * 32
            content = b"\0" + len(field).to_bytes(4, "big") + field
        daemon.outer.send_data(daemon._stream, content)
        daemon._send()
    assert isinstance(ended(session), PeerProtocolError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_of_a_service_is_told(pair: Pair) -> None:
    class Broken(Call):
        def receive(self, message: bytes) -> None:
            raise ZeroDivisionError("oops")

    session, daemon = pair.open(Service(Broken=lambda metadata: Broken()))
    daemon.call("/test.Test/Broken")
    daemon.until(lambda: not session._thread.is_alive() or daemon.connection_ended)
    assert "ZeroDivisionError('oops')" in str(ended(session))


def test_ends_under_load_leave_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed in the middle of a transfer that the daemon does not read."""
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.2)
    session, daemon = pair.open(Service(Bulk=lambda metadata: Bulk(1 << 30)), window=1 << 20)
    daemon.call("/test.Test/Bulk")
    daemon.until(lambda: daemon.messages)
    time.sleep(0.1)
    session.close()
    assert not session._thread.is_alive()


def test_a_daemon_that_falls_silent_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SILENCE_SECONDS", 0.5)
    told: list[BuildkitError | None] = []
    session, daemon = pair.open()
    session.on_failure = lambda: told.append(session.failure)
    for _time in range(4):  # each word begins the time anew
        time.sleep(0.25)
        assert daemon.finish(daemon.call(CHECK)) == (SERVING, b"0")
    assert told == []

    failure = ended(session)

    assert "nothing was heard of the daemon for 0.5 s" in str(failure)
    assert told == [failure]


def test_a_daemon_that_stops_reading_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a transfer, with more to send than the socket takes."""
    monkeypatch.setattr(sessions, "SILENCE_SECONDS", 0.5)
    cancelled = threading.Event()

    class Endless(Bulk):
        def cancel(self) -> None:
            cancelled.set()

    session, daemon = pair.open(Service(Bulk=lambda metadata: Endless(1 << 40)), window=1 << 30)
    daemon.call("/test.Test/Bulk")
    daemon.until(lambda: daemon.messages)
    assert "nothing was heard" in str(ended(session))
    assert cancelled.is_set()


def test_silence_is_not_ours(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon whose words wait to be read, because we were slow, is not silent."""
    monkeypatch.setattr(sessions, "SILENCE_SECONDS", 0.3)

    class Slow(Call):
        def produce(self, budget: int) -> list[bytes]:
            time.sleep(1)
            self.finished = True
            return [b"x"]

    _session, daemon = pair.open(Service(Slow=lambda metadata: Slow()))
    slow, check = daemon.call("/test.Test/Slow"), daemon.call(CHECK)
    assert daemon.finish(slow) == (b"\0\0\0\0\1x", b"0")
    assert daemon.finish(check) == (SERVING, b"0")
