# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server of a session against a client of gRPC in memory, which stands on another implementation of HTTP/2."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import inner
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2 import connection
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.inner import InnerServer
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import (
    Call,
    CallFactory,
    CallStatus,
    Code,
    Metadata,
    UnaryCall,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, PeerProtocolError

BUDGET = 64 << 10
CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


class Answer:
    """What the client has of one call."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.trailers: dict[bytes, bytes] = {}
        self.data = b""
        self.unacknowledged = 0
        self.reset: int | None = None

    @property
    def messages(self) -> list[bytes]:
        """Every byte must belong to one."""
        found, rest = [], self.data
        while rest:
            assert rest[0] == 0
            length = int.from_bytes(rest[1:5], "big")
            assert len(rest) >= 5 + length, "cut within a message"
            found.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return found

    @property
    def status(self) -> tuple[int, str]:
        return int(self.trailers[b"grpc-status"]), self.trailers.get(b"grpc-message", b"").decode()


class Client:
    """The daemon's side, with an InnerServer at the other end. greedy: it gives room for all that it gets, at once."""

    def __init__(self, *services: Any, window: int = 65_535, greedy: bool = True) -> None:
        self.woken = 0
        self.server = InnerServer([Health(), *services], self._wake)
        self.greedy = greedy
        self.answers: dict[int, Answer] = {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()
        if window != 65_535:
            self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.server.start()
        self.pump()

    def _wake(self) -> None:
        self.woken += 1

    def call(self, path: str, *messages: bytes, end: bool = True, **metadata: Any) -> int:
        """As clients of gRPC do: a short request goes out as a whole."""
        stream = self.open(path, **metadata)
        for message in messages:
            self._h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
        if end:
            self._h2.end_stream(stream)
        self.pump()
        return stream

    def open(self, path: str, end: bool = False, **metadata: Any) -> int:
        stream: int = self._h2.get_next_available_stream_id()
        values = [
            (key.replace("_", "-").encode(), value if isinstance(value, bytes) else value.encode())
            for key, found in metadata.items()
            for value in (found if isinstance(found, list) else [found])
        ]
        headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x"),
                   (b"te", b"trailers"), (b"content-type", b"application/grpc"), *values]  # fmt: skip
        self._h2.send_headers(stream, headers, end_stream=end)
        self.answers[stream] = Answer()
        return stream

    def send(self, stream: int, data: bytes) -> int:
        """As much as there is room for; how much that was."""
        sent = 0
        while sent < len(data):
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size, len(data) - sent)
            if room <= 0:
                break
            self._h2.send_data(stream, data[sent : sent + room])
            sent += room
            self.pump()
        return sent

    def end(self, stream: int) -> None:
        self._h2.end_stream(stream)
        self.pump()

    def trailers(self, stream: int) -> None:
        self._h2.send_headers(stream, [(b"x-checksum", b"1")], end_stream=True)
        self.pump()

    def cancel(self, stream: int) -> None:
        self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.pump()

    def give_room(self, stream: int) -> None:
        answer = self.answers[stream]
        self._h2.acknowledge_received_data(answer.unacknowledged, stream)
        answer.unacknowledged = 0
        self.pump()

    def pump(self) -> None:
        """Until neither side has anything to say."""
        for _turn in range(10_000):
            if not self.turn():
                return
        pytest.fail("the two never come to rest")

    def turn(self) -> bool:
        """Each side once; whether there was anything."""
        ours = self._h2.data_to_send()
        if ours:
            self.server.receive(ours)
        more = self.server.work(BUDGET)
        theirs = self.server.data_to_send(BUDGET)
        for event in self._h2.receive_data(theirs) if theirs else ():
            self._take(event)
        return bool(ours or theirs or more)

    def _take(self, event: Any) -> None:
        answer = self.answers.get(getattr(event, "stream_id", 0)) or Answer()
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.data += event.data
            if self.greedy:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                answer.unacknowledged += event.flow_controlled_length
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code

    def finished(self, stream: int) -> Answer:
        answer = self.answers[stream]
        assert answer.headers == {b":status": b"200", b"content-type": b"application/grpc"}
        assert answer.trailers, "the call has not ended"
        assert stream not in self.server._streams
        return answer


class Service:
    """Methods as they are given: path → what makes a Call."""

    def __init__(self, **methods: CallFactory) -> None:
        self._methods = {f"/test.Test/{name}": factory for name, factory in methods.items()}

    def methods(self) -> Mapping[str, CallFactory]:
        return self._methods


class Recorder(Call):
    """Keeps what it is told; says what it is given to say; ends with the half-close."""

    def __init__(self, metadata: Metadata | None = None) -> None:
        self.metadata = metadata or {}
        self.received: list[bytes] = []
        self.to_say: list[bytes] = []
        self.holding = 0
        self.cancelled = 0
        self.ended = False

    def receive(self, message: bytes) -> None:
        self.received.append(message)

    def half_close(self) -> None:
        self.ended = True

    def produce(self, budget: int) -> list[bytes]:
        out, size = [], 0
        while self.to_say and size < budget:
            size += len(self.to_say[0])
            out.append(self.to_say.pop(0))
        self.finished = self.ended and not self.to_say
        return out

    def held(self) -> int:
        return self.holding

    def cancel(self) -> None:
        self.cancelled += 1


def recording(**options: Any) -> tuple[Client, list[Recorder]]:
    calls: list[Recorder] = []

    def make(metadata: Metadata) -> Call:
        calls.append(Recorder(metadata))
        return calls[-1]

    return Client(Service(Call=make), **options), calls


def test_health() -> None:
    client = Client()
    answer = client.finished(client.call(CHECK, b""))
    assert answer.messages == [SERVING]
    assert answer.trailers == {b"grpc-status": b"0"}
    assert answer.reset is None


def test_what_is_announced_is_what_is_served() -> None:
    assert list(Client(Service(A=Recorder, B=Recorder)).server.methods) == [
        CHECK,
        "/grpc.health.v1.Health/Watch",
        "/test.Test/A",
        "/test.Test/B",
    ]


@pytest.mark.parametrize("path", ["/test.Test/Other", "/", "/grpc.health.v1.Health", "/grpc.health.v1.Health/check"])
@pytest.mark.parametrize("end", [True, False])
def test_an_unknown_method(path: str, end: bool) -> None:
    client = Client()
    answer = client.finished(client.call(path, end=end))
    assert answer.status == (12, f"unknown method {path}")
    assert answer.messages == []
    # A daemon that is still sending is told not to (RFC 9113 §8.1).
    assert answer.reset == (None if end else 0)
    assert client.finished(client.call(CHECK, b"")).messages == [SERVING]


ERRORS = [
    (CallStatus(Code.NOT_FOUND, "no secret x"), (5, "no secret x")),
    (CallStatus(Code.ALREADY_EXISTS, ""), (6, "")),
    (CallStatus(Code.INVALID_ARGUMENT, "100% wrong:\nü"), (3, "100%25 wrong:%0A%C3%BC")),
    (PeerProtocolError("out of turn"), (13, "out of turn")),
    (EngineError("no space left"), (2, "no space left")),
    (OSError(5, "Input/output error"), (2, "[Errno 5] Input/output error")),
]


@pytest.mark.parametrize("where", ["made", "receive", "half_close", "produce"])
@pytest.mark.parametrize(("error", "status"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_ends_its_call_and_no_other(where: str, error: Exception, status: tuple[int, str]) -> None:
    def fail(*arguments: object) -> Any:
        raise error

    def make(metadata: Metadata) -> Call:
        if where == "made":
            fail()
        call = Recorder()
        setattr(call, where, fail)
        return call

    client = Client(Service(Call=make))
    other = client.call(CHECK, end=False)
    assert client.finished(client.call("/test.Test/Call", b"x")).status == status
    client.send(other, bytes(5))
    assert client.finished(other).messages == [SERVING]


def test_what_was_said_before_an_error_arrives_whole() -> None:
    """Cut within a message, a client of gRPC reports an unexpected end instead of the status."""

    to_say = [[b"x" * 3000, b"y" * 3000]]

    class Failing(Call):
        def produce(self, budget: int) -> list[bytes]:
            if to_say:
                return to_say.pop()
            raise CallStatus(Code.FAILED_PRECONDITION, "the file vanished")

    client = Client(Service(Call=lambda metadata: Failing()), greedy=False, window=1000)
    stream = client.call("/test.Test/Call", b"")
    for _time in range(10):
        client.give_room(stream)
    answer = client.finished(stream)
    assert answer.messages == [b"x" * 3000, b"y" * 3000]
    assert answer.status == (9, "the file vanished")


def test_metadata() -> None:
    client, calls = recording()
    client.call("/test.Test/Call", dir_name="context", exclude_patterns=["a", "!b", "a"], odd=b"\xff\xfe name ")
    [call] = calls
    assert call.metadata["dir-name"] == ("context",)
    assert call.metadata["exclude-patterns"] == ("a", "!b", "a")
    assert os.fsencode(call.metadata["odd"][0]).strip() == b"\xff\xfe name"
    assert not [key for key in call.metadata if key.startswith(":")]


def test_a_header_list_of_more_than_a_megabyte() -> None:
    """Patterns travel as metadata; a .dockerignore may be long (wire §0.1). They come in CONTINUATION frames."""
    patterns = [f"{number:06d}/" + "x" * 90 for number in range(15_000)]
    client, calls = recording()
    client.call("/test.Test/Call", exclude_patterns=patterns)
    [call] = calls
    assert list(call.metadata["exclude-patterns"]) == patterns


@given(messages=st.lists(st.binary(max_size=30), min_size=1, max_size=6), data=st.data())
@settings(deadline=None, max_examples=50)
def test_messages_may_be_cut_anywhere(messages: list[bytes], data: st.DataObject) -> None:
    client, calls = recording()
    raw = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    stream = client.open("/test.Test/Call")
    for start, end in zip([0, *cuts], [*cuts, len(raw)]):
        if end > start:
            client.send(stream, raw[start:end])
    client.end(stream)
    assert calls[0].received == messages
    assert client.finished(stream).status[0] == 0


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"\1\0\0\0\1x", "compressed"), (b"\0\xff\xff\xff\xff", "too long"), (b"\0\0\0\0\5abc", "within a message")],
)
def test_a_stream_that_is_no_grpc(raw: bytes, words: str) -> None:
    client, calls = recording()
    stream = client.open("/test.Test/Call")
    client.send(stream, raw)
    if stream in client.server._streams:
        client.end(stream)
    code, message = client.finished(stream).status
    assert code == 13
    assert words in message
    assert calls[0].received == []
    assert not calls[0].ended
    assert calls[0].cancelled == 1


def test_the_end_may_come_with_trailers() -> None:
    client, calls = recording()
    stream = client.call("/test.Test/Call", b"x", end=False)
    client.trailers(stream)
    assert (calls[0].received, calls[0].ended) == ([b"x"], True)
    assert client.finished(stream).status == (0, "")


def test_the_end_may_come_with_the_request() -> None:
    client, calls = recording()
    stream = client.open("/test.Test/Call", end=True)
    client.pump()
    assert calls[0].ended
    assert client.finished(stream).status == (0, "")


# Room in both directions.


def test_a_call_that_holds_much_gets_no_more() -> None:
    client, calls = recording()
    stream = client.open("/test.Test/Call")
    client.pump()
    calls[0].holding = inner.HELD + 1
    message = b"\0" + (32 << 20).to_bytes(4, "big") + bytes(32 << 20)
    first = client.send(stream, message)
    assert first == 1 << 20, "the window of the stream, and no more"
    assert client.send(stream, message[first:]) == 0
    assert client.finished(client.call(CHECK, b"")).messages == [SERVING], "others have room"
    calls[0].holding = 0
    client.pump()
    assert client.send(stream, message[first:]) == len(message) - first
    assert [len(received) for received in calls[0].received] == [32 << 20]


def test_a_call_that_works_on_what_it_gets_is_not_slowed_down() -> None:
    client, calls = recording()
    stream = client.open("/test.Test/Call")
    chunk = b"\0" + (1 << 16).to_bytes(4, "big") + bytes(1 << 16)
    for _time in range(100):
        assert client.send(stream, chunk) == len(chunk)
    assert len(calls[0].received) == 100


@pytest.mark.parametrize("window", [1, 1000, 65_535, 1 << 20])
def test_a_large_answer_respects_the_clients_window(window: int) -> None:
    """h2 refuses a byte too many."""
    client, calls = recording(window=window, greedy=False)
    stream = client.call("/test.Test/Call", end=False)
    size = min(1 << 20, 20 * window)
    calls[0].to_say = [b"a" * size, b"b" * 10]
    client.pump()
    answer = client.answers[stream]
    assert len(answer.data) == min(window, 65_535, size + 20)
    while len(answer.data) < size + 20:
        before = len(answer.data)
        client.give_room(stream)
        assert len(answer.data) > before
    client.end(stream)
    assert client.finished(stream).messages == [b"a" * size, b"b" * 10]


def test_a_client_that_does_not_read_holds_up_only_its_own_call() -> None:
    client, calls = recording(window=1000, greedy=False)
    blocked = client.call("/test.Test/Call", end=False)
    calls[0].to_say = [b"x" * 100] * 100_000
    client.pump()
    assert len(client.answers[blocked].data) == 1000
    assert len(calls[0].to_say) > 98_000, "what waits here is bounded"
    assert client.finished(client.call(CHECK, b"")).messages == [SERVING]


def test_an_endless_answer_leaves_room_for_others() -> None:
    class Endless(Recorder):
        def produce(self, budget: int) -> list[bytes]:
            return [b"x" * 1000] * (budget // 1000)

    client = Client(Service(Call=lambda metadata: Endless()))
    endless = client.open("/test.Test/Call")
    check = client.open(CHECK)
    client._h2.send_data(check, bytes(5), end_stream=True)
    for _turn in range(10):
        client.turn()
    assert client.finished(check).messages == [SERVING]
    assert len(client.answers[endless].data) > 100_000


@pytest.mark.parametrize("path", ["/test.Test/No", "/test.Test/Refused", CHECK])
def test_a_client_that_only_asks(path: str) -> None:
    """The answers are not read, and so none are made; it is left before they are more than a few hundred KB."""

    def refuse(metadata: Metadata) -> Call:
        raise CallStatus(Code.PERMISSION_DENIED, "no " * 100)

    def ask() -> None:
        for _time in range(100_000):
            stream = client.open(path)
            client._h2.send_data(stream, bytes(5), end_stream=True)
            client.server.receive(client._h2.data_to_send())
            client._h2.streams.clear()  # it counts them, and would stop

    client = Client(Service(Refused=refuse))
    with pytest.raises(PeerProtocolError, match="opened for nothing"):
        ask()
    assert client.server._connection.pending < 1 << 20
    assert len(client.server._streams) <= connection.MAX_STREAMS


def test_many_long_messages_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is whole. One too many ends its own call; the others, and calls of small messages, go on."""
    monkeypatch.setattr(inner, "UNFINISHED", 1 << 20)
    client, calls = recording()
    size = 300_000
    raw = b"\0" + size.to_bytes(4, "big") + bytes(size)
    streams = [client.open("/test.Test/Call") for _time in range(4)]
    for stream in streams:
        with contextlib.suppress(h2.exceptions.StreamClosedError):  # the last is closed while it sends
            client.send(stream, raw[:-1])
    code, words = client.finished(streams[3]).status
    assert code == 8
    assert words.endswith(" bytes of messages that are not whole")
    assert client.finished(client.call(CHECK, b"")).messages == [SERVING]
    for stream in streams[:3]:
        client.send(stream, raw[-1:])
        client.end(stream)
        assert client.finished(stream).status == (0, "")
    assert [len(call.received) for call in calls] == [1, 1, 1, 0]


def test_many_calls_at_once() -> None:
    client, calls = recording()
    streams = [client.call("/test.Test/Call", b"%d" % number, end=False) for number in range(300)]
    for number, call in enumerate(calls):
        call.to_say = [b"%d" % number] * 3
    client.pump()
    for stream in reversed(streams):
        client.end(stream)
    for number, stream in enumerate(streams):
        assert client.finished(stream).messages == [b"%d" % number] * 3
        assert calls[number].received == [b"%d" % number]
    assert client.server._streams == {}


def test_thousands_of_calls_one_after_the_other() -> None:
    """Once per file: nothing of a call may stay behind."""
    client = Client(Service(Echo=lambda metadata: UnaryCall(lambda request: request)))
    for number in range(1500):
        stream = client.call("/test.Test/Echo", b"%d" % number)
        assert client.finished(stream).messages == [b"%d" % number]
    assert client.server._streams == {}


# Ends.


def test_a_cancelled_call_is_told() -> None:
    client, calls = recording()
    stream = client.call("/test.Test/Call", b"x", end=False)
    client.cancel(stream)
    assert calls[0].cancelled == 1
    assert client.server._streams == {}
    calls[0].wake()
    client.pump()
    assert client.finished(client.call(CHECK, b"")).messages == [SERVING]


def test_a_call_that_is_reset_with_its_request_is_told_as_well() -> None:
    """All in one delivery: the call is over before its answer has begun."""
    client, calls = recording()
    stream = client.open("/test.Test/Call")
    client._h2.reset_stream(stream)
    client.pump()
    assert [call.cancelled for call in calls] == [1]
    assert client.server._streams == {}


def test_a_finished_call_releases_what_it_holds() -> None:
    client, calls = recording()
    client.finished(client.call("/test.Test/Call", b"x"))
    assert calls[0].cancelled == 1


def test_a_lost_connection_is_told_to_every_call() -> None:
    client, calls = recording()
    for _time in range(3):
        client.call("/test.Test/Call", b"x", end=False)
    client.server.cancel()
    client.server.cancel()
    assert [call.cancelled for call in calls] == [1, 1, 1]


def test_a_call_that_cannot_be_released_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    client, calls = recording()
    for _time in range(3):
        client.call("/test.Test/Call", b"x", end=False)

    def fail() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(calls[1], "cancel", fail)
    client.server.cancel()
    assert [call.cancelled for call in calls] == [1, 0, 1]


def test_a_call_wakes_the_session() -> None:
    client, calls = recording()
    stream = client.call("/test.Test/Call", b"x", end=False)
    calls[0].to_say = [b"at last"]
    calls[0].wake()
    assert client.woken == 1
    client.pump()
    assert client.answers[stream].messages == [b"at last"]


def test_what_comes_after_the_end_of_a_call_is_ignored() -> None:
    """The daemon cannot know yet; it loses neither the connection nor its room on it."""
    client, _calls = recording()
    stream = client.call("/test.Test/No", end=False)
    assert client.finished(stream).status[0] == 12
    room = client._h2.outbound_flow_control_window
    for _time in range(3):
        data = b"\0\0\0\x10\0" + bytes(4096)
        # Past h2's own books, which would refuse: the stream is closed there as well.
        frame = len(data).to_bytes(3, "big") + b"\0\0" + stream.to_bytes(4, "big") + data
        client.server.receive(frame)
    client.pump()
    assert client._h2.outbound_flow_control_window >= room
    assert client.finished(client.call(CHECK, b"")).messages == [SERVING]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(99)]
)
def test_what_is_no_http2(data: bytes) -> None:
    server = InnerServer([Health()], lambda: None)
    server.start()
    with pytest.raises(PeerProtocolError):
        server.receive(data)


@given(st.binary(max_size=60), st.integers(0, 60))
@settings(deadline=None, max_examples=80)
def test_no_bytes_make_the_server_fail_otherwise(noise: bytes, at: int) -> None:
    """Noise within a good conversation."""
    conversation: list[bytes] = []
    client = Client()
    receive: Callable[[bytes], None] = client.server.receive

    def keep(data: bytes) -> None:
        conversation.append(data)
        receive(data)

    client.server.receive = keep  # type: ignore[method-assign]
    client.call(CHECK, b"")
    server = InnerServer([Health()], lambda: None)
    server.start()
    raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + b"".join(conversation)
    with contextlib.suppress(PeerProtocolError):
        server.receive(raw[: 33 + at] + noise + raw[33 + at :])
        server.work(BUDGET)
