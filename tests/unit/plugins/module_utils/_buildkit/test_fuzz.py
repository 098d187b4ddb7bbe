# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames of every kind, good and bad, against both roles, the inner server and a whole session.

Whatever comes: no hang, nothing that grows without a bound, and no error that the rooms above do not know.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import framing, inner
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2 import connection, frames
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.connection import (
    Connection,
    DataReceived,
    HeadersReceived,
    Role,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.errors import ProtocolError
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.frames import frame
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.hpack import encode
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.inner import InnerServer
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import (
    Call,
    CallFactory,
    Metadata,
    UnaryCall,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import CHUNK, Session
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.wirebytes import bytes_message
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

SECONDS = 30.0
CHECK = b"/grpc.health.v1.Health/Check"
SETTINGS = frame(frames.SETTINGS, 0, 0)
ANSWER = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = encode([(b"grpc-status", b"0")])
MOST = 16 << 20
"""What a peer that reads nothing can make wait for it: the windows that it gives, and answers."""


def request(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    return encode([(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"), *more])


# Frames

BLOCKS = st.one_of(
    st.sampled_from([request(CHECK), request(b"/t/Echo"), request(b"/t/Talk"), request(b"/t/No"), ANSWER, TRAILERS]),
    st.integers(1, 40).map(lambda times: request(b"/t/Echo", *[(b"exclude-patterns", b"x" * 400)] * times)),
    # A table that is filled, named again and again, resized; Huffman, numbers and lengths of noise.
    st.lists(
        st.sampled_from([b"\x40\x01a\x7f\x81\x1e" + b"x" * 4000, b"\xbe" * 500, b"\x20", b"\x3f\xe1\x1f", b"\x82"]),
        max_size=6,
    ).map(b"".join),
    st.binary(max_size=40),
    st.binary(max_size=20).map(lambda noise: request(CHECK) + noise),
)
MESSAGES = st.one_of(
    st.sampled_from([framing.frame(b""), framing.frame(b"x" * 3000), b"\1\0\0\0\1x", b"\0\xff\xff\xff\xff", b"\0\0"]),
    st.binary(max_size=40),
    st.just(b"\0\3\0\0\0" + bytes(16_000)),
)
PAYLOADS = {
    frames.DATA: MESSAGES,
    frames.HEADERS: BLOCKS,
    frames.PRIORITY: st.sampled_from([bytes(5), b"\0\0\0\1\xff"]),
    frames.RST_STREAM: st.integers(0, 20).map(frames.WORD.pack),
    frames.SETTINGS: st.dictionaries(
        st.integers(1, 8), st.sampled_from([0, 1, 5000, 16_384, 20_000, (1 << 24) - 1, 1 << 31]), max_size=3
    ).map(frames.settings_payload),
    frames.PUSH_PROMISE: st.just(bytes(4)),
    frames.PING: st.just(bytes(8)),
    frames.GOAWAY: st.tuples(st.integers(0, 9), st.integers(0, 15)).map(lambda pair: frames.TWO_WORDS.pack(*pair)),
    frames.WINDOW_UPDATE: st.sampled_from([0, 1, 1 << 16, 1 << 20, (1 << 31) - 1]).map(frames.WORD.pack),
    frames.CONTINUATION: BLOCKS,
    0x77: st.binary(max_size=20),
}
ON_CONNECTION = (frames.SETTINGS, frames.PING, frames.GOAWAY)
FLAGS = {frames.HEADERS: (0x4, 0x5), frames.DATA: (0x0, 0x0, 0x1)}
FATAL = (frames.PUSH_PROMISE, frames.CONTINUATION)
FLOOD = 300


@st.composite
def piece(draw: st.DrawFn) -> bytes:
    """A frame or many of it: mostly as the protocol wants it, else of another kind, stream, flag, length or end."""
    how = draw(st.integers(0, 50))
    kind = draw(st.sampled_from(FATAL if how == 0 else [kind for kind in PAYLOADS if kind not in FATAL]))
    payload = draw(PAYLOADS[kind])
    stream_id = 0 if kind in ON_CONNECTION else draw(st.sampled_from([1, 3, 5, 7, 9]))
    flags = draw(st.sampled_from(FLAGS.get(kind, (0x0,))))
    if how == 1:
        flags = draw(st.integers(0, 255))
    elif how == 2:
        stream_id = draw(st.integers(0, (1 << 32) - 1))
    raw = frame(kind, flags, stream_id, payload[: frames.DEFAULT_FRAME_SIZE])
    if how == 3:
        raw = draw(st.binary(min_size=3, max_size=3)) + raw[3:]
    elif how == 4:
        raw = raw[: draw(st.integers(0, len(raw)))]
    elif how < 9:
        raw *= FLOOD
    return raw


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Calls that follow each other, with ids as they have to be, whatever their content."""
    first = draw(st.sampled_from([11, 101, 1001, 5001]))
    flags = draw(st.sampled_from([frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM]))
    block, count = draw(BLOCKS), draw(st.sampled_from([1, 2, 5, 5, 1200]))
    return b"".join(frame(frames.HEADERS, flags, first + 2 * number, block[:16_384]) for number in range(count))


PATHS = (CHECK, b"/t/Echo", b"/t/Talk", b"/t/Echo", b"/t/No")
CALLS = b"".join(frame(frames.HEADERS, 4, 1 + 2 * number, request(path)) for number, path in enumerate(PATHS))
WHAT_COMES = st.lists(st.one_of(piece(), piece(), piece(), streams()), max_size=25)
BLOCK = request(b"/t/Echo", (b"a", b"x" * 100))
CONTINUED = [
    frame(frames.HEADERS, 0, 11, BLOCK),
    *[frame(frames.CONTINUATION, 0, 11, (b"\0\1a\x7f\x81\x7f" + b"x" * 16_384)[:16_384])] * 1100,
]
"""A header list of 17 MiB."""


def check(conn: Connection) -> None:
    assert conn.open_streams <= connection.MAX_STREAMS
    assert len(conn._rest) <= frames.DEFAULT_FRAME_SIZE + frames.HEADER_SIZE
    assert len(conn._block) <= connection.HEADER_LIMIT
    assert len(conn._resets) <= connection.MAX_REMEMBERED_RESETS
    assert conn._decoder._size <= 4096
    assert conn.pending < MOST


@pytest.mark.parametrize("role", Role)
@given(WHAT_COMES, st.booleans())
@example(CONTINUED, True)
@settings(deadline=None, max_examples=200)
def test_a_connection(role: Role, pieces: list[bytes], reads: bool) -> None:
    conn = Connection(role)
    conn.start()
    conn.receive(frames.PREFACE + SETTINGS + CALLS if role is Role.SERVER else SETTINGS)
    for _time in range(5) if role is Role.CLIENT else ():
        conn.open_stream([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a")])
    for raw in pieces:
        try:
            events = conn.receive(raw)
        except ProtocolError as fault:
            events = fault.events
            assert conn.receive(raw) == []
        for event in events:
            if isinstance(event, DataReceived):
                conn.consumed(event.stream_id, event.size_for_flow_control)
            elif isinstance(event, HeadersReceived) and role is Role.SERVER and not event.trailers:
                conn.send_headers(event.stream_id, [(b":status", b"200")])
        check(conn)
        if reads:
            conn.data_to_send()
    conn.receive_end()
    assert conn.open_streams == 0


# The inner server


class Talk(Call):
    """Says as much as it may, until it is told that nobody listens."""

    alive = 0

    def __init__(self, metadata: Metadata) -> None:
        Talk.alive += 1

    def produce(self, budget: int) -> list[bytes]:
        return [b"x" * min(budget, 1000)] * (budget // 1000 + 1)

    def cancel(self) -> None:
        Talk.alive -= 1


class Service:
    def methods(self) -> Mapping[str, CallFactory]:
        return {"/t/Echo": lambda metadata: UnaryCall(lambda message: message), "/t/Talk": Talk}


@given(WHAT_COMES, st.booleans())
@example(CONTINUED, True)
@settings(deadline=None, max_examples=200)
def test_the_inner_server(pieces: list[bytes], reads: bool) -> None:
    server = InnerServer([Health(), Service()], lambda: None)
    server.start()
    Talk.alive = 0
    with contextlib.suppress(PeerProtocolError):
        server.receive(frames.PREFACE + SETTINGS + CALLS)
        for raw in pieces:
            server.receive(raw)
            for _turn in range(3) if reads else ():
                server.work(CHUNK)
                server.data_to_send(CHUNK)
            check(server._connection)
            assert len(server._streams) <= connection.MAX_STREAMS
            assert (
                sum(stream.messages.partial for stream in server._streams.values()) <= inner.UNFINISHED + 1000 * CHUNK
            )
            assert all(len(stream.waiting) < 3 * CHUNK for stream in server._streams.values())
    server.cancel()
    assert Talk.alive == 0


# A session


class Far:
    """The other end of a session's socket: it says what it is given, and reads or does not."""

    authority = "localhost"

    def __init__(self) -> None:
        self.ours, self.socket = socket.socketpair()
        self.socket.settimeout(SECONDS)

    def dial(self) -> socket.socket:
        return self.ours

    def target(self) -> str | None:
        return None

    def explain(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""

    def talk(self, pieces: list[bytes], reads: bool) -> None:
        reader = threading.Thread(target=self._read)
        if reads:
            reader.start()
        with contextlib.suppress(OSError):  # the session has had enough
            for raw in pieces:
                self.socket.sendall(raw)
            self.socket.shutdown(socket.SHUT_WR)
        if reads:
            reader.join(SECONDS)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 16):
                pass


def carried(raw: bytes) -> bytes:
    """Bytes of the inner connection, in messages of the outer stream."""
    messages = framing.frame(bytes_message(raw))
    size = frames.DEFAULT_FRAME_SIZE
    return b"".join(frame(frames.DATA, 0, 1, messages[start : start + size]) for start in range(0, len(messages), size))


GREETING = SETTINGS + frame(frames.WINDOW_UPDATE, 0, 0, frames.WORD.pack(1 << 30))
GREETING += frame(frames.WINDOW_UPDATE, 0, 1, frames.WORD.pack(1 << 30)) + frame(frames.HEADERS, 4, 1, ANSWER)
GREETING += carried(frames.PREFACE + SETTINGS + CALLS)


@given(st.lists(st.one_of(piece(), streams().map(carried), *[piece().map(carried)] * 12), max_size=20), st.booleans())
@settings(deadline=None, max_examples=50)
def test_a_session(pieces: list[bytes], reads: bool) -> None:
    """The session ends, of its own or when the far end says no more; its thread and what it held are gone."""
    before = set(os.listdir("/proc/self/fd"))
    Talk.alive = 0
    far = Far()
    session = Session(far, "id", "key", [Health(), Service()])
    session.start()
    far.talk([GREETING, *pieces], reads)
    session._thread.join(SECONDS)
    assert not session._thread.is_alive()
    assert isinstance(session.failure, BuildkitError)
    assert "session broke" not in str(session.failure), "a bug"
    session.close()
    far.socket.close()
    assert Talk.alive == 0
    assert set(os.listdir("/proc/self/fd")) <= before
