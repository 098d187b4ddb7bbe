# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two ends joined in memory: ours with the PyPI library `h2` in either role, ours with ours; and with noise."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2 import connection, frames
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.connection import (
    Connection,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    PingAcknowledged,
    Role,
    StreamReset,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.errors import ErrorCode, ProtocolError
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.frames import frame
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.hpack import Field, encode
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"localhost")]
ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS = [(b"grpc-status", b"0"), (b"grpc-message", b"")]


@dataclass
class Received:
    """What one side has got of one stream."""

    headers: list[list[Field]] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None


class Ours:
    """One end of ours that takes everything and gives it back at once."""

    def __init__(self, role: Role, window: int = connection.WINDOW) -> None:
        self.conn = Connection(role, window=window)
        self.conn.start()
        self.streams: dict[int, Received] = defaultdict(Received)

    def take(self, raw: bytes) -> None:
        for event in self.conn.receive(raw):
            self.see(event)

    def see(self, event: Event) -> None:
        if isinstance(event, HeadersReceived):
            stream = self.streams[event.stream_id]
            stream.headers.append(event.headers)
            stream.ended |= event.end_stream
        elif isinstance(event, DataReceived):
            stream = self.streams[event.stream_id]
            stream.content += event.data
            stream.ended |= event.end_stream
            self.conn.consumed(event.stream_id, event.size_for_flow_control)
        elif isinstance(event, StreamReset):
            self.streams[event.stream_id].reset = event.code

    def give(self) -> bytes:
        return self.conn.data_to_send()


class Theirs:
    """The same with h2."""

    def __init__(self, role: Role) -> None:
        config = h2.config.H2Configuration(client_side=role is Role.CLIENT, header_encoding=None)
        self.conn = h2.connection.H2Connection(config)
        self.conn.initiate_connection()
        self.streams: dict[int, Received] = defaultdict(Received)

    def take(self, raw: bytes) -> None:
        for event in self.conn.receive_data(raw):
            if isinstance(event, (h2.events.RequestReceived, h2.events.ResponseReceived, h2.events.TrailersReceived)):
                self.streams[event.stream_id].headers.append([(bytes(n), bytes(v)) for n, v in event.headers])
            elif isinstance(event, h2.events.DataReceived):
                self.streams[event.stream_id].content += event.data
                if event.flow_controlled_length:
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.streams[event.stream_id].ended = True
            elif isinstance(event, h2.events.StreamReset):
                self.streams[event.stream_id].reset = event.error_code

    def give(self) -> bytes:
        return self.conn.data_to_send()

    def send_all(self, stream_id: int, content: bytearray, end_stream: bool) -> None:
        while content:
            size = min(len(content), self.conn.local_flow_control_window(stream_id), self.conn.max_outbound_frame_size)
            if size <= 0:
                return
            self.conn.send_data(stream_id, bytes(content[:size]), end_stream=end_stream and size == len(content))
            del content[:size]


def settle(near: Ours | Theirs, far: Ours | Theirs) -> None:
    """Carry bytes until both are silent."""
    for _unused in range(10_000):
        there = near.give()
        if there:
            far.take(there)
        back = far.give()
        if back:
            near.take(back)
        if not there and not back:
            return
    raise AssertionError("they talk without an end")


def send_all(conn: Connection, stream_id: int, content: bytearray, end_stream: bool = False) -> None:
    """As much of it as the windows take."""
    size = min(conn.writable(stream_id), len(content))
    if size:
        conn.send_data(stream_id, bytes(content[:size]), end_stream=end_stream and size == len(content))
        del content[:size]


VALUES = st.binary(max_size=200).map(lambda raw: raw.translate(bytes.maketrans(b"\0\r\n", b"___")).strip())
METADATA = st.lists(st.tuples(st.sampled_from([b"a", b"dir-name", b"x-long-name", b"user-agent"]), VALUES), max_size=10)
CONTENT = st.binary(max_size=100).flatmap(lambda raw: st.integers(0, 2000).map(lambda times: raw * times))


@given(METADATA, CONTENT, CONTENT, METADATA)
@settings(deadline=None, max_examples=50)
def test_h2_calls_us(more: list[Field], question: bytes, answer: bytes, trailers: list[Field]) -> None:
    near, far = Theirs(Role.CLIENT), Ours(Role.SERVER)
    near.conn.send_headers(1, REQUEST + more)
    left = bytearray(question)
    while left:
        near.send_all(1, left, False)
        settle(near, far)
    near.conn.end_stream(1)
    settle(near, far)
    assert far.streams[1] == Received([REQUEST + more], bytearray(question), True)
    far.conn.send_headers(1, ANSWER)
    left = bytearray(answer)
    while left:
        send_all(far.conn, 1, left)
        settle(near, far)
    far.conn.send_headers(1, TRAILERS + trailers, end_stream=True)
    settle(near, far)
    assert near.streams[1] == Received([ANSWER, TRAILERS + trailers], bytearray(answer), True)
    assert far.conn.open_streams == 0


@given(METADATA, CONTENT, CONTENT, METADATA)
@settings(deadline=None, max_examples=50)
def test_we_call_h2(more: list[Field], question: bytes, answer: bytes, trailers: list[Field]) -> None:
    near, far = Ours(Role.CLIENT), Theirs(Role.SERVER)
    stream_id = near.conn.open_stream(REQUEST + more)
    left = bytearray(question)
    while left:
        send_all(near.conn, stream_id, left)
        settle(near, far)
    near.conn.send_data(stream_id, b"", end_stream=True)
    settle(near, far)
    assert far.streams[stream_id] == Received([REQUEST + more], bytearray(question), True)
    far.conn.send_headers(stream_id, ANSWER)
    left = bytearray(answer)
    while left:
        far.send_all(stream_id, left, False)
        settle(near, far)
    far.conn.send_headers(stream_id, TRAILERS + trailers, end_stream=True)
    settle(near, far)
    assert near.streams[stream_id] == Received([ANSWER, TRAILERS + trailers], bytearray(answer), True)
    assert near.conn.open_streams == 0


def test_h2_with_a_smaller_table_and_larger_frames() -> None:
    near, far = Theirs(Role.CLIENT), Ours(Role.SERVER)
    codes = h2.settings.SettingCodes
    near.conn.update_settings({codes.HEADER_TABLE_SIZE: 0, codes.MAX_FRAME_SIZE: 1 << 20})
    near.conn.send_headers(1, REQUEST, end_stream=True)
    settle(near, far)
    far.conn.send_headers(1, ANSWER)
    far.conn.send_data(1, bytes(60_000))
    far.conn.send_headers(1, TRAILERS, end_stream=True)
    settle(near, far)
    assert near.streams[1] == Received([ANSWER, TRAILERS], bytearray(60_000), True)


def test_h2_resets_and_pads_and_pings() -> None:
    near, far = Theirs(Role.CLIENT), Ours(Role.SERVER)
    for number in (1, 3, 5):
        near.conn.send_headers(number, REQUEST)
    near.conn.send_data(1, b"abc", pad_length=200)
    near.conn.ping(b"abcdefgh")
    near.conn.reset_stream(3, ErrorCode.CANCEL)
    settle(near, far)
    assert bytes(far.streams[1].content) == b"abc"
    assert far.streams[3].reset == ErrorCode.CANCEL
    far.conn.reset(5, ErrorCode.REFUSED_STREAM)
    settle(near, far)
    assert near.streams[5].reset == ErrorCode.REFUSED_STREAM
    assert far.conn.open_streams == 1


def test_header_lists_of_half_a_megabyte_to_h2() -> None:
    """Details of an error, in the trailers of an answer and in CONTINUATION."""
    near, far = Theirs(Role.CLIENT), Ours(Role.SERVER)
    near.conn.update_settings({h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 20})
    near.conn.send_headers(1, REQUEST, end_stream=True)
    settle(near, far)
    details = [(b"grpc-status", b"2"), (b"grpc-status-details-bin", b"QUJD" * 150_000)]
    far.conn.send_headers(1, ANSWER)
    far.conn.send_headers(1, details, end_stream=True)
    settle(near, far)
    assert near.streams[1] == Received([ANSWER, details], bytearray(), True)


@pytest.mark.parametrize("role", Role)
def test_ping_and_goaway_with_h2(role: Role) -> None:
    """What is open goes on to its end after either side has said that it takes no more."""
    ours, theirs = Ours(role), Theirs(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    settle(ours, theirs)
    client, server = (theirs, ours) if role is Role.SERVER else (ours, theirs)
    if isinstance(client, Ours):
        client.conn.open_stream(REQUEST)
    else:
        client.conn.send_headers(1, REQUEST)
    settle(client, server)
    ours.conn.ping(b"abcdefgh")
    theirs.take(ours.give())
    assert ours.conn.receive(theirs.give()) == [PingAcknowledged(b"abcdefgh")]
    ours.conn.close()
    events = theirs.conn.receive_data(ours.give())
    assert [(type(event), getattr(event, "error_code", None)) for event in events] == [
        (h2.events.ConnectionTerminated, 0)
    ]
    # h2 says no more on a connection that has been left, so only what is on its way is seen here.
    theirs.conn.close_connection(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings", last_stream_id=1)
    assert ours.conn.receive(theirs.give()) == [GoAwayReceived(1, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")]
    assert ours.conn.open_streams == 1


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=30), st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=30)
def test_h2_and_we_share_the_windows_of_many_streams(sizes: list[int], seed: int) -> None:
    """Both ways at once, in parts that chance chooses: each stream arrives whole, whoever waits for room."""
    rng = random.Random(seed)  # noqa: S311
    near, far = Theirs(Role.CLIENT), Ours(Role.SERVER, 70_000)
    up: dict[int, bytearray] = {}
    for number, size in enumerate(sizes):
        near.conn.send_headers(1 + 2 * number, REQUEST)
        up[1 + 2 * number] = bytearray(rng.randbytes(size) + b"x")
    settle(near, far)
    questions = {stream_id: bytes(content) for stream_id, content in up.items()}
    down = {stream_id: bytearray(content[::-1]) for stream_id, content in questions.items()}
    for stream_id in down:
        far.conn.send_headers(stream_id, ANSWER)
    for _turn in range(10_000):
        for stream_id in rng.sample(sorted(up), len(up)):
            near.send_all(stream_id, up[stream_id], True)
            send_all(far.conn, stream_id, down[stream_id], True)
            if rng.random() < 0.3:
                settle(near, far)
        settle(near, far)
        if not any(up.values()) and not any(down.values()):
            break
    for stream_id, content in questions.items():
        assert far.streams[stream_id] == Received([REQUEST], bytearray(content), True)
        assert near.streams[stream_id] == Received([ANSWER], bytearray(content[::-1]), True)
    assert far.conn.open_streams == 0
    assert near.conn.outbound_flow_control_window == far.conn._receive_window


@dataclass
class Side:
    """One end of ours whose content goes out and is consumed when chance has it."""

    conn: Connection
    unsent: dict[int, bytearray] = field(default_factory=dict)
    unconsumed: list[tuple[int, int]] = field(default_factory=list)
    received: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    reset: set[int] = field(default_factory=set)

    def send(self, rng: random.Random) -> None:
        for stream_id, content in list(self.unsent.items()):
            size = min(self.conn.writable(stream_id), len(content), rng.choice([1, 5000, 1 << 20]))
            last = size == len(content)
            if size or last:
                self.conn.send_data(stream_id, bytes(content[:size]), end_stream=last)
                del content[:size]
            if last:
                del self.unsent[stream_id]

    def take(self, raw: bytes, answers: dict[int, bytes]) -> None:
        for event in self.conn.receive(raw):
            if isinstance(event, HeadersReceived) and event.stream_id in answers:
                self.conn.send_headers(event.stream_id, ANSWER)
                self.unsent[event.stream_id] = bytearray(answers[event.stream_id])
            elif isinstance(event, DataReceived):
                self.received[event.stream_id] += event.data
                self.unconsumed.append((event.stream_id, event.size_for_flow_control))
            elif isinstance(event, StreamReset):
                self.give_up(event.stream_id)

    def consume(self, rng: random.Random, *, everything: bool = False) -> None:
        rng.shuffle(self.unconsumed)
        keep = 0 if everything else rng.randint(0, len(self.unconsumed))
        while len(self.unconsumed) > keep:
            self.conn.consumed(*self.unconsumed.pop())

    def give_up(self, stream_id: int) -> None:
        self.reset.add(stream_id)
        self.unsent.pop(stream_id, None)


SEEDS = st.integers(0, 1 << 32)
SIZES = st.lists(st.integers(0, 300_000), min_size=1, max_size=12)
WINDOWS = st.sampled_from([65_535, 70_001, 1 << 20])


@given(SIZES, SIZES, WINDOWS, WINDOWS, st.booleans(), SEEDS)
@settings(deadline=None, max_examples=40)
def test_many_streams_through_small_windows(
    up: list[int], down: list[int], near_window: int, far_window: int, reset: bool, seed: int
) -> None:
    """Cut anywhere, consumed late and out of order, one of them reset: the rest arrives, and both sides still agree
    about the window of the connection.
    """
    rng = random.Random(seed)  # noqa: S311
    near, far = Side(Connection(Role.CLIENT, window=near_window)), Side(Connection(Role.SERVER, window=far_window))
    near.conn.start()
    far.conn.start()
    questions, answers = {}, {}
    for number, size in enumerate(up):
        stream_id = near.conn.open_stream(REQUEST)
        questions[stream_id] = rng.randbytes(size)
        answers[stream_id] = rng.randbytes(down[number % len(down)])
        near.unsent[stream_id] = bytearray(questions[stream_id])
    for turn in range(100_000):
        near.send(rng)
        far.send(rng)
        cut = rng.choice([None, 50, 1000, 70_000])
        far.take(near.conn.data_to_send(cut), answers)
        near.take(far.conn.data_to_send(cut), {})
        near.consume(rng)
        far.consume(rng)
        if reset and turn == 3:
            side = rng.choice([near, far])
            side.conn.reset(1)
            side.give_up(1)
        if not near.conn.open_streams and not far.conn.open_streams:
            break
    else:
        raise AssertionError("stuck")
    for side, wanted in ((near, answers), (far, questions)):
        for stream_id, content in wanted.items():
            if stream_id not in side.reset:
                assert side.received[stream_id] == content
    near.consume(rng, everything=True)
    far.consume(rng, everything=True)
    far.take(near.conn.data_to_send(), {})
    near.take(far.conn.data_to_send(), {})
    assert near.conn._send_window == far.conn._receive_window
    assert far.conn._send_window == near.conn._receive_window


ACTIONS = st.one_of(
    st.tuples(st.just("open"), st.just(0)),
    st.tuples(st.just("connection"), st.integers(1, 100_000)),
    st.tuples(st.just("stream"), st.integers(1, 100_000)),
    st.tuples(st.just("initial"), st.integers(0, 200_000)),
    st.tuples(st.just("send"), st.integers(0, 200_000)),
)


@given(st.lists(ACTIONS, max_size=60), SEEDS)
@settings(deadline=None)
def test_windows_are_plain_arithmetic(actions: list[tuple[str, int]], seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    conn = server()
    whole, initial = 65_535, 65_535
    windows: dict[int, int] = {}
    for action, value in actions:
        stream_id = rng.choice(list(windows)) if windows else 0
        if action == "open":
            stream_id = 1 + 2 * len(windows)
            conn.receive(frame(frames.HEADERS, frames.END_HEADERS, stream_id, encode(REQUEST)))
            conn.send_headers(stream_id, ANSWER)
            windows[stream_id] = initial
        elif action == "connection":
            conn.receive(frame(frames.WINDOW_UPDATE, 0, 0, frames.WORD.pack(value)))
            whole += value
        elif action == "initial":
            conn.receive(frame(frames.SETTINGS, 0, 0, frames.settings_payload({frames.INITIAL_WINDOW_SIZE: value})))
            windows = {number: window + value - initial for number, window in windows.items()}
            initial = value
        elif not windows:
            continue
        elif action == "stream":
            conn.receive(frame(frames.WINDOW_UPDATE, 0, stream_id, frames.WORD.pack(value)))
            windows[stream_id] += value
        else:
            size = min(value, conn.writable(stream_id))
            conn.send_data(stream_id, bytes(size))
            windows[stream_id] -= size
            whole -= size
        for number, window in windows.items():
            assert conn.writable(number) == max(0, min(whole, window))


# Noise


def server() -> Connection:
    conn = Connection(Role.SERVER)
    conn.start()
    conn.receive(frames.PREFACE + frame(frames.SETTINGS, 0, 0))
    return conn


def client() -> Connection:
    conn = Connection(Role.CLIENT)
    conn.start()
    conn.receive(frame(frames.SETTINGS, 0, 0))
    for _unused in range(3):
        conn.open_stream(REQUEST)
    return conn


ENDS = {"server": server, "client": client}
BLOCKS = [encode(REQUEST), encode(ANSWER), encode(TRAILERS), encode([(b":status", b"100")]), b"\x40\x01a\x01b", b"\xbe"]
PAYLOADS = {
    frames.DATA: st.binary(max_size=50),
    frames.HEADERS: st.sampled_from(BLOCKS),
    frames.PRIORITY: st.just(bytes(5)),
    frames.RST_STREAM: st.just(bytes(4)),
    frames.SETTINGS: st.dictionaries(st.integers(1, 7), st.sampled_from([0, 1, 20_000, (1 << 31) - 1]), max_size=3).map(
        frames.settings_payload
    ),
    frames.PUSH_PROMISE: st.just(bytes(4)),
    frames.PING: st.just(bytes(8)),
    frames.GOAWAY: st.just(bytes(8)),
    frames.WINDOW_UPDATE: st.sampled_from([0, 1, 1 << 20, (1 << 31) - 1]).map(frames.WORD.pack),
    frames.CONTINUATION: st.sampled_from([b"", *BLOCKS]),
}


@st.composite
def noise(draw: st.DrawFn) -> bytes:
    """A frame that is nearly always one of the protocol, and wrong in place rather than in shape."""
    kind = draw(st.sampled_from([*PAYLOADS, frames.HEADERS, frames.DATA, frames.WINDOW_UPDATE]))
    payload = draw(PAYLOADS[kind])
    if draw(st.integers(0, 30)) == 0:
        payload = draw(st.binary(max_size=30))
    on_connection = kind in (frames.SETTINGS, frames.PING, frames.GOAWAY)
    stream_id = 0 if on_connection else draw(st.sampled_from([1, 1, 3, 3, 5, 7, 9, 0, 2, 11]))
    flags = draw(st.sampled_from([0, 4, 4, 4, 5, 5, 1, 8, 0x20, 0xFF]))
    return frame(kind, 0 if kind == frames.SETTINGS else flags, stream_id, payload)


def act(conn: Connection, stream_id: int, what: int) -> None:
    """What a caller does in answer, whatever has become of the stream."""
    if what == 0:
        conn.send_headers(stream_id, ANSWER)
    elif what == 1:
        conn.send_data(stream_id, b"x" * min(100, conn.writable(stream_id)))
    elif what == 2:
        conn.send_headers(stream_id, TRAILERS, end_stream=True)
    elif what == 3:
        conn.reset(stream_id)
    else:
        conn.consumed(stream_id, 1)


def check(conn: Connection) -> None:
    """Nothing has grown beyond its bound."""
    assert conn.open_streams <= connection.MAX_STREAMS
    assert len(conn._rest) <= frames.DEFAULT_FRAME_SIZE + frames.HEADER_SIZE
    assert len(conn._block) <= connection.HEADER_LIMIT
    assert len(conn._resets) <= connection.MAX_REMEMBERED_RESETS
    assert conn._decoder._size <= 4096


@pytest.mark.parametrize("end", ENDS)
@given(st.lists(st.one_of(noise(), st.tuples(st.integers(0, 9), st.integers(0, 4))), max_size=60))
@settings(deadline=None, max_examples=300)
def test_frames_out_of_place(end: str, steps: list[bytes | tuple[int, int]]) -> None:
    conn = ENDS[end]()
    told: set[int] = set()
    for step in steps:
        if isinstance(step, tuple):
            with contextlib.suppress(BuildkitError):
                act(conn, *step)
            continue
        try:
            events = conn.receive(step)
        except ProtocolError as fault:
            events = fault.events
            assert conn.receive(step) == []
        for event in events:
            if isinstance(event, HeadersReceived) and not event.trailers:
                told.add(event.stream_id)
            elif isinstance(event, DataReceived):
                assert event.stream_id in told  # never content of a stream that the caller does not know
        check(conn)
    conn.receive_end()
    assert conn.open_streams == 0


@pytest.mark.parametrize("end", ENDS)
@given(st.lists(st.binary(max_size=200), max_size=10))
@settings(deadline=None)
def test_bytes_of_no_protocol(end: str, pieces: list[bytes]) -> None:
    conn = ENDS[end]()
    for piece in pieces:
        with contextlib.suppress(ProtocolError):
            conn.receive(piece)
        check(conn)
        assert conn.pending < 10_000


def conversation() -> bytes:
    """What a client of h2 says in two calls."""
    near, far = Theirs(Role.CLIENT), Ours(Role.SERVER)
    said = b""
    near.conn.send_headers(1, [*REQUEST, (b"exclude-patterns", b"**/x" * 300)])
    near.conn.send_data(1, bytes(1000), pad_length=10)
    near.conn.send_headers(3, REQUEST, end_stream=True)
    for answered in (False, True):
        raw = near.give()
        said += raw
        far.take(raw)
        if not answered:
            far.conn.send_headers(1, ANSWER)
            far.conn.send_data(1, bytes(40_000))
            far.conn.send_headers(3, ANSWER, end_stream=True)
            near.take(far.give())
            near.conn.ping(b"abcdefgh")
            near.conn.send_headers(1, TRAILERS, end_stream=True)
    return said


SAID = conversation()


@given(
    st.lists(st.tuples(st.integers(0, len(SAID) - 1), st.integers(0, 255)), max_size=8),
    st.lists(st.integers(0, len(SAID)), max_size=5),
)
@settings(deadline=None, max_examples=300)
def test_a_conversation_with_wrong_bytes(changes: list[tuple[int, int]], cuts: list[int]) -> None:
    raw = bytearray(SAID)
    for position, value in changes:
        raw[position] = value
    conn, events = Connection(Role.SERVER), list[Event]()
    places = sorted({0, *cuts, len(raw)})
    try:
        for start, end in zip(places, places[1:]):
            events += conn.receive(bytes(raw[start:end]))
            for event in events:
                if isinstance(event, HeadersReceived):
                    conn.writable(event.stream_id)
    except ProtocolError as fault:
        events += fault.events
    check(conn)
    if not changes:
        assert sum(len(event.data) for event in events if isinstance(event, DataReceived)) == 1000
