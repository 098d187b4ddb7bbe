# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of a connection, frame by frame: what is taken, what ends a stream, what ends everything, and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2 import connection, frames
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.connection import (
    Connection,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    PingAcknowledged,
    Role,
    SettingsReceived,
    StreamReset,
    WindowOpened,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.errors import (
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.frames import frame
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.hpack import Field, encode
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b"te", b"trailers")]
ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS = [(b"grpc-status", b"0")]
SETTINGS = frame(frames.SETTINGS, 0, 0)
END_HEADERS, END_STREAM, PADDED = frames.END_HEADERS, frames.END_STREAM, frames.PADDED


def headers(fields: list[Field], stream_id: int = 1, flags: int = END_HEADERS) -> bytes:
    return frame(frames.HEADERS, flags, stream_id, encode(fields))


def request(stream_id: int = 1, flags: int = 0, *extra: Field) -> bytes:
    return headers([*REQUEST, *extra], stream_id, END_HEADERS | flags)


def data(content: bytes = b"x", stream_id: int = 1, flags: int = 0) -> bytes:
    return frame(frames.DATA, flags, stream_id, content)


def update(more: int, stream_id: int = 0) -> bytes:
    return frame(frames.WINDOW_UPDATE, 0, stream_id, frames.WORD.pack(more))


def settings(**values: int) -> bytes:
    return frame(frames.SETTINGS, 0, 0, frames.settings_payload({getattr(frames, k): v for k, v in values.items()}))


def reset(stream_id: int = 1, code: int = ErrorCode.CANCEL) -> bytes:
    return frame(frames.RST_STREAM, 0, stream_id, frames.WORD.pack(code))


def ping(payload: bytes = b"12345678", flags: int = 0, stream_id: int = 0) -> bytes:
    return frame(frames.PING, flags, stream_id, payload)


def goaway(last: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(frames.GOAWAY, 0, 0, frames.TWO_WORDS.pack(last, code) + debug)


def sent(conn: Connection) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, stream, payload) of all that waits to be sent."""
    raw, out = conn.data_to_send(), []
    while raw:
        high, low, kind, flags, stream_id = frames.FRAME_HEADER.unpack_from(raw)
        end = frames.HEADER_SIZE + (high << 16 | low)
        out.append((kind, flags, stream_id, raw[frames.HEADER_SIZE : end]))
        raw = raw[end:]
    return out


def server(**options: Any) -> Connection:
    conn = Connection(Role.SERVER, **options)
    conn.start()
    conn.receive(frames.PREFACE + SETTINGS)
    conn.data_to_send()
    return conn


def client(**options: Any) -> Connection:
    """With a request on stream 1."""
    conn = Connection(Role.CLIENT, **options)
    conn.start()
    conn.receive(SETTINGS)
    conn.open_stream(REQUEST)
    conn.data_to_send()
    return conn


def broken(conn: Connection, raw: bytes) -> ProtocolError:
    """The bytes break the connection: said to the peer and to the caller, who gets nothing more from it."""
    with pytest.raises(ProtocolError) as caught:
        conn.receive(raw)
    fault = caught.value
    kind, _unused, stream_id, payload = sent(conn)[-1]
    assert (kind, stream_id) == (frames.GOAWAY, 0)
    assert frames.TWO_WORDS.unpack_from(payload)[1] == fault.code
    assert conn.receive(request(101)) == []
    assert conn.open_streams == 0
    assert conn.receive_end() == []
    return fault


def kinds(conn: Connection) -> list[int]:
    return [kind for kind, *_unused in sent(conn)]


# How it begins


def test_server_opens_with_settings_and_a_larger_window() -> None:
    conn = Connection(Role.SERVER, header_limit=1 << 20, window=100_000)
    conn.start()
    (kind, flags, stream_id, payload), window = sent(conn)
    assert (kind, flags, stream_id) == (frames.SETTINGS, 0, 0)
    assert frames.parse_settings(payload) == {
        frames.INITIAL_WINDOW_SIZE: 100_000,
        frames.MAX_HEADER_LIST_SIZE: 1 << 20,
        frames.MAX_CONCURRENT_STREAMS: 1000,
    }
    assert window == (frames.WINDOW_UPDATE, 0, 0, frames.WORD.pack(16 * 100_000 - 65_535))


def test_client_opens_with_the_preface_and_wants_no_push() -> None:
    conn = Connection(Role.CLIENT)
    conn.start()
    raw = conn.data_to_send()
    assert raw.startswith(frames.PREFACE)
    assert frames.SETTING.pack(frames.ENABLE_PUSH, 0) in raw


def test_settings_are_acknowledged() -> None:
    conn = Connection(Role.SERVER)
    conn.start()
    sent(conn)
    events = conn.receive(frames.PREFACE + settings(MAX_FRAME_SIZE=20_000, INITIAL_WINDOW_SIZE=70_000) + request())
    assert events[0] == SettingsReceived({frames.MAX_FRAME_SIZE: 20_000, frames.INITIAL_WINDOW_SIZE: 70_000})
    assert events[-1] == HeadersReceived(1, REQUEST, False, False)
    assert sent(conn) == [(frames.SETTINGS, frames.ACK, 0, b"")]


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n", b"X", frames.PREFACE[:-1] + b"!"])
def test_another_protocol(opening: bytes) -> None:
    assert broken(Connection(Role.SERVER), opening).code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [request(), ping(), frame(frames.SETTINGS, frames.ACK, 0), frame(99, 0, 0)])
@pytest.mark.parametrize("role", Role)
def test_settings_come_first(role: Role, first: bytes) -> None:
    conn = Connection(role)
    raw = frames.PREFACE if role is Role.SERVER else b""
    assert broken(conn, raw + first).code == ErrorCode.PROTOCOL_ERROR


def test_cut_anywhere_the_bytes_mean_the_same() -> None:
    raw = SETTINGS + request() + data(b"abc") + headers(TRAILERS, 1, END_HEADERS | END_STREAM) + ping()
    raw = frames.PREFACE + raw
    whole = Connection(Role.SERVER)
    events = whole.receive(raw)
    answers = whole.data_to_send()
    for size in (1, 2, 3, 9, 10, 23, 24, 25, 50):
        conn = Connection(Role.SERVER)
        got: list[Event] = []
        for start in range(0, len(raw), size):
            got += conn.receive(raw[start : start + size])
        assert got == events
        assert conn.data_to_send() == answers


# One call


def test_a_call() -> None:
    conn = server()
    assert conn.receive(request() + data(b"abc", flags=END_STREAM)) == [
        HeadersReceived(1, REQUEST, False, False),
        DataReceived(1, b"abc", 3, True),
    ]
    assert conn.writable(1) == 0  # the header list first
    conn.send_headers(1, ANSWER)
    assert conn.writable(1) == 65_535
    conn.send_data(1, b"answer")
    conn.send_headers(1, TRAILERS, end_stream=True)
    assert sent(conn) == [
        (frames.HEADERS, END_HEADERS, 1, encode(ANSWER)),
        (frames.DATA, 0, 1, b"answer"),
        (frames.HEADERS, END_HEADERS | END_STREAM, 1, encode(TRAILERS)),
    ]
    assert conn.open_streams == 0
    assert conn.writable(1) == 0


def test_an_answer_of_trailers_only() -> None:
    conn = server()
    conn.receive(request(1, END_STREAM))
    conn.send_headers(1, ANSWER + TRAILERS, end_stream=True)
    assert sent(conn) == [(frames.HEADERS, END_HEADERS | END_STREAM, 1, encode(ANSWER + TRAILERS))]


def test_client_gets_answer_data_and_trailers() -> None:
    conn = client()
    raw = (
        headers([(b":status", b"103")]) + headers(ANSWER) + data(b"x") + headers(TRAILERS, 1, END_HEADERS | END_STREAM)
    )
    assert conn.receive(raw) == [
        HeadersReceived(1, ANSWER, False, False),
        DataReceived(1, b"x", 1, False),
        HeadersReceived(1, TRAILERS, True, True),
    ]
    assert conn.open_streams == 1  # our side is open
    conn.send_data(1, b"", end_stream=True)
    assert conn.open_streams == 0


def test_empty_header_list_is_a_frame() -> None:
    conn = client()
    conn.send_headers(1, [], end_stream=True)
    assert sent(conn) == [(frames.HEADERS, END_HEADERS | END_STREAM, 1, b"")]


def test_padding_counts_for_flow_control_only() -> None:
    conn = server()
    events = conn.receive(request() + data(b"\x05abc" + bytes(5), flags=PADDED))
    assert events[1] == DataReceived(1, b"abc", 9, False)
    conn.consumed(1, 9)


def test_header_list_padded_with_priority_and_continued() -> None:
    conn = server()
    block = encode(REQUEST)
    first = b"\x03" + b"\x00\x00\x00\x07\xff" + block[:5] + bytes(3)
    raw = frame(frames.HEADERS, PADDED | frames.WITH_PRIORITY | END_STREAM, 1, first)
    raw += frame(frames.CONTINUATION, 0, 1, block[5:9]) + frame(frames.CONTINUATION, END_HEADERS, 1, block[9:])
    assert conn.receive(raw) == [HeadersReceived(1, REQUEST, True, False)]


def test_content_is_cut_to_the_frames_of_the_peer() -> None:
    conn = server()
    conn.receive(settings(MAX_FRAME_SIZE=20_000) + request())
    conn.send_headers(1, ANSWER)
    conn.data_to_send()
    content = bytes(range(256)) * 200
    conn.send_data(1, memoryview(content), end_stream=True)
    out = sent(conn)
    assert [len(payload) for *_unused, payload in out] == [20_000, 20_000, 11_200]
    assert [flags for _unused, flags, *_unused in out] == [0, 0, END_STREAM]
    assert b"".join(payload for *_unused, payload in out) == content


def test_header_lists_of_megabytes() -> None:
    """Error details come as one trailer of half a megabyte and more; exclude-patterns as thousands of fields."""
    conn, fields = client(), [(b"grpc-status", b"2"), (b"grpc-status-details-bin", b"QUJD" * 500_000)]
    conn.receive(headers(ANSWER))
    far = server()
    far.receive(request(1, END_STREAM))
    far.send_headers(1, ANSWER)
    far.data_to_send()
    far.send_headers(1, fields, end_stream=True)
    assert conn.receive(far.data_to_send()) == [HeadersReceived(1, fields, True, True)]
    many = [*REQUEST, *((b"exclude-patterns", b"**/pattern-%d" % number) for number in range(50_000))]
    near = client()
    stream_id = near.open_stream(many)
    far = server()
    assert far.receive(near.data_to_send()) == [HeadersReceived(stream_id, many, False, False)]


def test_spaces_around_a_value_are_kept() -> None:
    """BuildKit sends patterns of files as they are."""
    conn = server()
    event = conn.receive(request(1, 0, (b"followpaths", b" a b ")))[0]
    assert isinstance(event, HeadersReceived)
    assert event.headers[-1] == (b"followpaths", b" a b ")


def test_what_is_drained_by_parts() -> None:
    conn = server()
    conn.receive(request())
    conn.send_headers(1, ANSWER)
    conn.send_data(1, bytes(1000))
    whole = conn.pending
    parts = [conn.data_to_send(300) for _unused in range(5)]
    assert [len(part) for part in parts] == [300, 300, 300, whole - 900, 0]
    assert conn.pending == 0


def test_ping_both_ways() -> None:
    conn = server()
    assert conn.receive(ping(b"abcdefgh")) == []
    conn.ping(b"hgfedcba")
    assert sent(conn) == [(frames.PING, frames.ACK, 0, b"abcdefgh"), (frames.PING, 0, 0, b"hgfedcba")]
    assert conn.receive(ping(b"hgfedcba", frames.ACK)) == [PingAcknowledged(b"hgfedcba")]


def test_what_may_be_ignored_is_ignored() -> None:
    conn = server()
    raw = frame(0x55, 0xFF, 7, b"?") + frame(frames.PRIORITY, 0, 9, bytes(5)) + frame(frames.SETTINGS, frames.ACK, 0)
    raw += frame(frames.SETTINGS, 0, 0, frames.SETTING.pack(0x99, 1))
    assert conn.receive(raw) == [SettingsReceived({0x99: 1})]
    assert kinds(conn) == [frames.SETTINGS]


def test_first_bit_of_the_stream_id_is_reserved() -> None:
    conn = server()
    raw = bytearray(request())
    raw[5] |= 0x80
    assert conn.receive(bytes(raw)) == [HeadersReceived(1, REQUEST, False, False)]


# What breaks the connection

OPEN, HALF, DONE = request(), request(1, END_STREAM), request() + data(flags=END_STREAM)
BREAKS_A_SERVER: dict[str, tuple[bytes, ErrorCode]] = {
    "frame too large": (frame(frames.DATA, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
    "DATA on stream 0": (data(b"x", 0), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (data(b"x", 1), ErrorCode.PROTOCOL_ERROR),
    "DATA on a stream of ours": (OPEN + data(b"x", 2), ErrorCode.PROTOCOL_ERROR),
    "padding that fills the frame": (OPEN + data(b"\x01", flags=PADDED), ErrorCode.PROTOCOL_ERROR),
    "padded and empty": (OPEN + data(b"", flags=PADDED), ErrorCode.FRAME_SIZE_ERROR),
    "HEADERS on stream 0": (request(0), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an even stream": (request(2), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on a stream that was skipped": (request(5) + request(3), ErrorCode.STREAM_CLOSED),
    "HEADERS shorter than their priority": (
        frame(frames.HEADERS, END_HEADERS | frames.WITH_PRIORITY, 1, b"1234"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "stream that depends on itself": (
        frame(frames.HEADERS, END_HEADERS | frames.WITH_PRIORITY, 1, b"\0\0\0\1\0" + encode(REQUEST)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "header block that is no HPACK": (frame(frames.HEADERS, END_HEADERS, 1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "frame within a header block": (headers(REQUEST, 1, 0) + ping(), ErrorCode.PROTOCOL_ERROR),
    "unknown frame within a header block": (headers(REQUEST, 1, 0) + frame(99, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of another stream": (
        headers(REQUEST, 1, 0) + frame(frames.CONTINUATION, END_HEADERS, 3),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "CONTINUATION of nothing": (frame(frames.CONTINUATION, END_HEADERS, 1), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION after the end": (OPEN + frame(frames.CONTINUATION, END_HEADERS, 1), ErrorCode.PROTOCOL_ERROR),
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "PRIORITY too short": (frame(frames.PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY on itself": (frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\0"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (reset(0), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (reset(1), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM too long": (OPEN + frame(frames.RST_STREAM, 0, 1, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS not of sixes": (frame(frames.SETTINGS, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS acknowledged with content": (frame(frames.SETTINGS, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "push neither on nor off": (settings(ENABLE_PUSH=2), ErrorCode.PROTOCOL_ERROR),
    "initial window too large": (settings(INITIAL_WINDOW_SIZE=1 << 31), ErrorCode.FLOW_CONTROL_ERROR),
    "frame size too small": (settings(MAX_FRAME_SIZE=16_383), ErrorCode.PROTOCOL_ERROR),
    "frame size too large": (settings(MAX_FRAME_SIZE=1 << 24), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS that make a window too large": (
        OPEN + update((1 << 31) - 1 - 65_535, 1) + settings(INITIAL_WINDOW_SIZE=65_536),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "PUSH_PROMISE": (OPEN + frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (ping(stream_id=1), ErrorCode.PROTOCOL_ERROR),
    "PING too short": (ping(b"1234567"), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY too short": (frame(frames.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE too short": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of nothing": (update(0), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE too large": (update((1 << 31) - 1), ErrorCode.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE on an idle stream": (update(1, 1), ErrorCode.PROTOCOL_ERROR),
    "DATA after a reset": (OPEN + reset() + data(), ErrorCode.STREAM_CLOSED),
    "HEADERS after a reset": (OPEN + reset() + request(), ErrorCode.STREAM_CLOSED),
}
BREAKS_A_CLIENT: dict[str, tuple[bytes, ErrorCode]] = {
    "server that wants to be pushed to": (settings(ENABLE_PUSH=1), ErrorCode.PROTOCOL_ERROR),
    "answer on an idle stream": (headers(ANSWER, 3), ErrorCode.PROTOCOL_ERROR),
    "stream of the server": (headers(REQUEST, 2), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("what", BREAKS_A_SERVER)
def test_breaks_a_server(what: str) -> None:
    raw, code = BREAKS_A_SERVER[what]
    assert broken(server(), raw).code == code


@pytest.mark.parametrize("what", BREAKS_A_CLIENT)
def test_breaks_a_client(what: str) -> None:
    raw, code = BREAKS_A_CLIENT[what]
    assert broken(client(), raw).code == code


@pytest.mark.parametrize("late", [data(), headers(TRAILERS, 1, END_HEADERS | END_STREAM)])
def test_frames_after_both_ends(late: bytes) -> None:
    conn = server()
    conn.receive(HALF)
    conn.send_headers(1, ANSWER, end_stream=True)
    assert conn.receive(update(1, 1) + reset()) == []  # these two may cross with the end
    assert broken(conn, late).code == ErrorCode.STREAM_CLOSED


def test_error_says_who_and_what_and_keeps_what_came_before() -> None:
    conn = server()
    fault = broken(conn, OPEN + data(b"abc") + ping(stream_id=1))
    assert isinstance(fault, PeerProtocolError)
    assert "PING" in str(fault) or "type 6" in str(fault)
    assert fault.code == ErrorCode.PROTOCOL_ERROR
    assert fault.events == [
        HeadersReceived(1, REQUEST, False, False),
        DataReceived(1, b"abc", 3, False),
        StreamReset(1, ErrorCode.PROTOCOL_ERROR, fault.text),
    ]
    conn.send_headers(1, ANSWER, end_stream=True)  # the caller, who works through these events
    assert conn.pending == 0


# What breaks one stream

BREAKS_A_STREAM: dict[str, tuple[bytes, ErrorCode]] = {
    "DATA after the end": (HALF + data(), ErrorCode.STREAM_CLOSED),
    "HEADERS after the end": (HALF + request(), ErrorCode.STREAM_CLOSED),
    "trailers that do not end": (OPEN + headers(TRAILERS), ErrorCode.PROTOCOL_ERROR),
    "pseudo-header in trailers": (OPEN + request(1, END_STREAM), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of nothing": (OPEN + update(0, 1), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE too large": (OPEN + update((1 << 31) - 1, 1), ErrorCode.FLOW_CONTROL_ERROR),
    "more than content-length": (request(1, 0, (b"content-length", b"2")) + data(b"abc"), ErrorCode.PROTOCOL_ERROR),
    "less than content-length": (
        request(1, 0, (b"content-length", b"2")) + data(b"a", flags=END_STREAM),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "trailers before content-length": (
        request(1, 0, (b"content-length", b"2")) + headers(TRAILERS, 1, END_HEADERS | END_STREAM),
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("what", BREAKS_A_STREAM)
def test_breaks_a_stream(what: str) -> None:
    raw, code = BREAKS_A_STREAM[what]
    conn = server()
    events = conn.receive(raw)
    end = events[-1]
    assert isinstance(end, StreamReset)
    assert (end.stream_id, end.code) == (1, code)
    assert end.reason
    assert (frames.RST_STREAM, 0, 1, frames.WORD.pack(code)) in sent(conn)
    assert conn.open_streams == 0
    # What the peer sent before it knew is ignored, and the caller may still write.
    assert conn.receive(data() + headers(TRAILERS, 1, END_HEADERS | END_STREAM) + update(5, 1) + reset()) == []
    conn.send_headers(1, ANSWER)
    conn.send_data(1, b"x", end_stream=True)
    assert conn.pending == 0
    assert conn.receive(request(3)) == [HeadersReceived(3, REQUEST, False, False)]  # the others go on


MALFORMED: dict[str, list[Field]] = {
    "no method": REQUEST[1:],
    "no path": [REQUEST[0], REQUEST[1]],
    "empty path": [*REQUEST[:2], (b":path", b"")],
    "two methods": [REQUEST[0], *REQUEST],
    "unknown pseudo-header": [*REQUEST[:3], (b":protocol", b"x")],
    "pseudo-header of an answer": [*REQUEST[:3], (b":status", b"200")],
    "pseudo-header behind the others": [*REQUEST, (b":authority", b"x")],
    "upper case": [*REQUEST, (b"Name", b"x")],
    "space in a name": [*REQUEST, (b"a b", b"x")],
    "colon in a name": [*REQUEST, (b"a:b", b"x")],
    "empty name": [*REQUEST, (b"", b"x")],
    "name beyond ASCII": [*REQUEST, (b"\xe4", b"x")],
    "line in a value": [*REQUEST, (b"a", b"x\ny")],
    "return in a value": [*REQUEST, (b"a", b"x\r")],
    "zero in a value": [*REQUEST, (b"a", b"\0")],
    "connection": [*REQUEST, (b"connection", b"close")],
    "transfer-encoding": [*REQUEST, (b"transfer-encoding", b"chunked")],
    "upgrade": [*REQUEST, (b"upgrade", b"h2c")],
    "te": [*REQUEST[:3], (b"te", b"gzip")],
    "content-length of letters": [*REQUEST, (b"content-length", b"+1")],
    "two lengths": [*REQUEST, (b"content-length", b"1"), (b"content-length", b"2")],
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_request(what: str) -> None:
    """Never announced, so only the peer hears of it."""
    conn = server()
    assert conn.receive(headers(MALFORMED[what])) == []
    assert sent(conn) == [(frames.RST_STREAM, 0, 1, frames.WORD.pack(ErrorCode.PROTOCOL_ERROR))]
    with pytest.raises(LocalProtocolError):
        client().open_stream(MALFORMED[what])  # and we do not send it ourselves


@pytest.mark.parametrize(
    "raw",
    [
        headers([(b":status", b"20")]),
        headers([(b":status", b"200"), (b":path", b"/")]),
        headers([(b"server", b"x")]),
        headers([(b":status", b"100")], 1, END_HEADERS | END_STREAM),
        data(),
    ],
)
def test_malformed_answer(raw: bytes) -> None:
    conn = client()
    (event,) = conn.receive(raw)
    assert isinstance(event, StreamReset)
    assert event.code == ErrorCode.PROTOCOL_ERROR
    assert kinds(conn) == [frames.RST_STREAM]


def test_the_table_of_hpack_survives_a_refused_request() -> None:
    conn = server()
    block = b"\x40\x01A\x01b" + encode(REQUEST)  # upper case, and remembered
    assert conn.receive(frame(frames.HEADERS, END_HEADERS, 1, block)) == []
    block = encode(REQUEST) + b"\x7e\x01b"  # the name of the newest entry
    assert conn.receive(frame(frames.HEADERS, END_HEADERS, 3, block)) == []
    assert conn.receive(request(5)) == [HeadersReceived(5, REQUEST, False, False)]


# Ends


def test_peer_resets() -> None:
    conn = server()
    assert conn.receive(OPEN + reset(1, 99)) == [HeadersReceived(1, REQUEST, False, False), StreamReset(1, 99)]
    conn.send_headers(1, ANSWER)  # the caller answers what it reads first
    conn.reset(1)
    assert conn.pending == 0
    assert conn.writable(1) == 0


def test_we_reset() -> None:
    conn = server()
    conn.receive(OPEN)
    conn.reset(1, ErrorCode.CANCEL)
    conn.reset(1, ErrorCode.CANCEL)
    assert sent(conn) == [(frames.RST_STREAM, 0, 1, frames.WORD.pack(ErrorCode.CANCEL))]
    assert conn.receive(data() + data(flags=END_STREAM)) == []


def test_a_complete_answer_may_be_followed_by_a_reset() -> None:
    conn = server()
    conn.receive(OPEN)
    conn.send_headers(1, ANSWER, end_stream=True)
    assert conn.open_streams == 1  # the peer still sends
    conn.reset(1, ErrorCode.NO_ERROR)
    assert kinds(conn) == [frames.HEADERS, frames.RST_STREAM]
    conn.receive(request(3, END_STREAM))
    conn.send_headers(3, ANSWER, end_stream=True)
    conn.reset(3, ErrorCode.NO_ERROR)
    assert kinds(conn) == [frames.HEADERS]


def test_transport_ends() -> None:
    conn = server()
    conn.receive(request(1) + request(3, END_STREAM) + frame(99, 0, 0, b"half")[:-2])
    assert conn.receive_end() == [
        StreamReset(1, ErrorCode.CANCEL, "the connection ended"),
        StreamReset(3, ErrorCode.CANCEL, "the connection ended"),
    ]
    assert conn.receive_end() == []
    assert conn.receive(request(5)) == []


def test_we_go_away() -> None:
    conn = server()
    conn.receive(request(1))
    conn.close()
    assert sent(conn) == [(frames.GOAWAY, 0, 0, frames.TWO_WORDS.pack(1, 0))]
    assert conn.receive(request(3)) == []
    assert sent(conn) == [(frames.RST_STREAM, 0, 3, frames.WORD.pack(ErrorCode.REFUSED_STREAM))]
    assert conn.receive(data()) == [DataReceived(1, b"x", 1, False)]


def test_peer_goes_away() -> None:
    conn = client()
    conn.open_stream(REQUEST)
    events = conn.receive(goaway(1, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings"))
    assert events[0] == GoAwayReceived(1, ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
    assert [type(event) for event in events[1:]] == [StreamReset]
    assert conn.open_streams == 1
    assert conn.receive(headers(ANSWER)) == [HeadersReceived(1, ANSWER, False, False)]
    with pytest.raises(LocalProtocolError):
        conn.open_stream(REQUEST)


# Our own mistakes


def test_misuse() -> None:
    conn = server()
    conn.receive(request(1, END_STREAM) + request(3) + request(5, END_STREAM))
    conn.send_headers(3, ANSWER)
    conn.send_headers(5, ANSWER, end_stream=True)
    conn.data_to_send()
    for mistake in (
        lambda: conn.send_data(1, b"before the header list"),
        lambda: conn.send_headers(1, TRAILERS),
        lambda: conn.send_headers(3, TRAILERS),
        lambda: conn.send_headers(3, [(b"grpc-message", b"two\nlines")], end_stream=True),
        lambda: conn.send_headers(3, ANSWER, end_stream=True),
        lambda: conn.send_data(3, bytes(65_536)),
        lambda: conn.send_data(5, b"after the end"),
        lambda: conn.send_data(7, b"never opened"),
        lambda: conn.consumed(3, 1),
        lambda: conn.ping(b"short"),
        lambda: conn.open_stream(REQUEST),
        lambda: Connection(Role.SERVER, window=1000),
    ):
        with pytest.raises(LocalProtocolError) as caught:
            mistake()
        assert isinstance(caught.value, BuildkitError)
        assert not isinstance(caught.value, PeerProtocolError)
    assert conn.pending == 0
    near = client()
    near.receive(settings(MAX_CONCURRENT_STREAMS=1))
    with pytest.raises(LocalProtocolError, match="no more streams"):
        near.open_stream(REQUEST)
    near._last_stream = frames.LARGEST_STREAM_ID
    near.receive(settings(MAX_CONCURRENT_STREAMS=100))
    with pytest.raises(LocalProtocolError, match="no more streams"):
        near.open_stream(REQUEST)


# Flow control


def test_windows_of_the_peer() -> None:
    conn = server()
    conn.receive(request(1) + request(3))
    conn.send_headers(1, ANSWER)
    conn.send_headers(3, ANSWER)
    conn.send_data(1, bytes(65_535))
    assert (conn.writable(1), conn.writable(3)) == (0, 0)
    conn.send_data(1, b"")  # nothing is always possible
    assert conn.receive(update(10)) == [WindowOpened(0)]
    assert (conn.writable(1), conn.writable(3)) == (0, 10)
    assert conn.receive(update(4, 1)) == [WindowOpened(1)]
    assert (conn.writable(1), conn.writable(3)) == (4, 10)


def test_smaller_initial_window_makes_windows_negative() -> None:
    conn = server()
    conn.receive(request(1) + update(1 << 20))
    conn.send_headers(1, ANSWER)
    conn.send_data(1, bytes(60_000))
    assert conn.receive(settings(INITIAL_WINDOW_SIZE=100)) == [SettingsReceived({frames.INITIAL_WINDOW_SIZE: 100})]
    assert conn.writable(1) == 0  # 100 - 60,000
    conn.send_data(1, b"")
    conn.receive(update(59_900, 1))
    assert conn.writable(1) == 0
    conn.receive(update(1, 1))
    assert conn.writable(1) == 1
    assert conn.receive(settings(INITIAL_WINDOW_SIZE=300))[-1] == WindowOpened(0)
    assert conn.writable(1) == 201
    conn.receive(request(3))
    conn.send_headers(3, ANSWER)
    assert conn.writable(3) == 300


def test_last_of_several_initial_windows_counts() -> None:
    conn = server()
    conn.receive(OPEN)
    conn.send_headers(1, ANSWER)
    pair = frames.settings_payload({frames.INITIAL_WINDOW_SIZE: 5}) + frames.settings_payload(
        {frames.INITIAL_WINDOW_SIZE: 70}
    )
    conn.receive(frame(frames.SETTINGS, 0, 0, pair))
    assert conn.writable(1) == 70


def fill(conn: Connection, stream_id: int, size: int) -> None:
    while size:
        part = min(size, 16_384)
        conn.receive(data(bytes(part), stream_id))
        size -= part


def test_windows_open_by_halves() -> None:
    conn = server(window=100_000)
    conn.receive(OPEN)
    fill(conn, 1, 100_000)
    conn.consumed(1, 49_999)
    assert sent(conn) == []
    conn.consumed(1, 1)
    assert sent(conn) == [(frames.WINDOW_UPDATE, 0, 1, frames.WORD.pack(50_000))]
    fill(conn, 1, 50_000)
    conn.consumed(1, 100_000)
    assert sent(conn) == [(frames.WINDOW_UPDATE, 0, 1, frames.WORD.pack(100_000))]


def test_more_than_the_window_of_a_stream() -> None:
    conn = server(window=100_000)
    conn.receive(OPEN)
    fill(conn, 1, 100_000)
    (event,) = conn.receive(data())
    assert isinstance(event, StreamReset)
    assert event.code == ErrorCode.FLOW_CONTROL_ERROR


def test_more_than_the_window_of_the_connection() -> None:
    conn = server(window=65_535)
    for number in range(16):
        conn.receive(request(1 + 2 * number))
        fill(conn, 1 + 2 * number, 65_535)
    conn.receive(request(41))
    assert broken(conn, data(b"x", 41)).code == ErrorCode.FLOW_CONTROL_ERROR


def test_streams_that_end_give_back_what_they_hold() -> None:
    """Nothing is consumed here, and the window of the connection opens again and again."""
    conn, updates = server(window=65_535), 0
    for number in range(100):
        stream_id = 1 + 2 * number
        conn.receive(request(stream_id))
        fill(conn, stream_id, 65_535)
        if number % 3 == 0:
            conn.reset(stream_id)
            fill(conn, stream_id, 1000)  # was on its way
        elif number % 3 == 1:
            conn.receive(reset(stream_id))
        else:
            conn.receive(data(b"", stream_id, END_STREAM))
            conn.send_headers(stream_id, ANSWER, end_stream=True)
        conn.consumed(stream_id, 65_535)  # too late, and no error
        updates += sum(frames.WORD.unpack(raw)[0] for kind, _unused, to, raw in sent(conn) if kind == 8 and to == 0)
    assert conn._receive_window + conn._credit == conn._connection_window
    assert updates > 90 * 65_535


def test_a_stream_that_waits_does_not_hold_up_the_others() -> None:
    conn = server()
    conn.receive(OPEN)
    fill(conn, 1, connection.WINDOW)
    assert conn.receive(request(3) + data(b"health", 3))[-1] == DataReceived(3, b"health", 6, False)


# The table of our encoder


def test_a_smaller_table_is_confirmed_once() -> None:
    """RFC 7541 §4.2: else a strict peer refuses the next header list."""
    conn = server()
    conn.receive(request(1) + request(3) + settings(HEADER_TABLE_SIZE=0))
    conn.data_to_send()
    conn.send_headers(1, ANSWER)
    conn.send_headers(3, ANSWER)
    assert [payload for *_unused, payload in sent(conn)] == [b"\x20" + encode(ANSWER), encode(ANSWER)]


# Limits


def flood(conn: Connection, raw: bytes, times: int) -> ProtocolError:
    """`times` are taken, one more is not; the peer reads all answers."""
    for _unused in range(times):
        conn.receive(raw)
        conn.data_to_send()
    return broken(conn, raw)


@pytest.mark.parametrize(
    "raw",
    [
        ping(),
        ping(flags=frames.ACK),
        SETTINGS,
        frame(frames.SETTINGS, frames.ACK, 0),
        frame(frames.PRIORITY, 0, 7, bytes(5)),
        frame(99, 0, 0),
        data(b""),
        data(b"\x01\x00", flags=PADDED),
        data(b"", 3),
        reset(3),
        update(1, 3),
        goaway(1),
    ],
)
def test_frames_that_do_nothing(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_IDLE_FRAMES", 50)
    conn = server()
    conn.receive(request(1) + request(3))
    conn.reset(3)
    assert flood(conn, raw, 50).code == ErrorCode.ENHANCE_YOUR_CALM


def test_work_between_them_starts_the_count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_IDLE_FRAMES", 50)
    conn = server()
    conn.receive(request(1))
    conn.send_headers(1, ANSWER)
    for number in range(100):
        conn.receive(ping() * 40)
        conn.send_data(1, b"x")  # grpc-go measures the line while we send
        conn.receive(ping() * 40 + data())
        conn.receive(ping() * 40 + request(3 + 2 * number))


def test_empty_continuations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_IDLE_FRAMES", 50)
    conn = server()
    conn.receive(headers(REQUEST, 1, 0))
    assert flood(conn, frame(frames.CONTINUATION, 0, 1), 49).code == ErrorCode.ENHANCE_YOUR_CALM


def test_header_block_without_an_end() -> None:
    conn = server(header_limit=100_000)
    conn.receive(headers(REQUEST, 1, 0))
    fault = flood(conn, frame(frames.CONTINUATION, 0, 1, bytes(10_000)), 9)
    assert fault.code == ErrorCode.ENHANCE_YOUR_CALM
    assert len(conn._block) == 0


def test_header_list_beyond_the_limit() -> None:
    conn = server(header_limit=10_000)
    conn.receive(request(1, END_STREAM, (b"a", b"x" * 9000)))
    assert broken(conn, request(3, 0, (b"a", b"x" * 10_000))).code == ErrorCode.ENHANCE_YOUR_CALM


def test_answers_that_nobody_reads() -> None:
    conn = server()
    times = connection.MAX_UNREAD_REPLIES // 17
    for _unused in range(times):
        conn.receive(ping())
        conn._idle_frames = 0  # the other limit
    with pytest.raises(ProtocolError, match="does not read") as caught:
        conn.receive(ping())
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM
    assert conn.pending < connection.MAX_UNREAD_REPLIES + 100


def run_long(turn: Callable[[], None]) -> None:
    for _unused in range(100_000):
        turn()


def test_answers_that_are_read_slowly_keep_the_bound() -> None:
    conn = server()
    conn.receive(request(1) + update(1 << 30) + update(1 << 30, 1))
    conn.send_headers(1, ANSWER)

    def turn() -> None:
        conn.receive(ping() * 4)
        while conn.pending < 65_536:
            conn.send_data(1, bytes(1000))
        conn.data_to_send(20)
        conn._idle_frames = 0  # the other limit

    with pytest.raises(ProtocolError, match="does not read"):
        run_long(turn)
    assert conn.pending < connection.MAX_UNREAD_REPLIES + 66_000 + 200


def test_streams_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_STREAMS", 5)
    conn = server()
    raw = b"".join(request(1 + 2 * number) for number in range(6))
    assert len(conn.receive(raw)) == 5
    assert sent(conn) == [(frames.RST_STREAM, 0, 11, frames.WORD.pack(ErrorCode.REFUSED_STREAM))]
    conn.receive(reset(1))
    assert conn.receive(request(13)) == [HeadersReceived(13, REQUEST, False, False)]


WASTE = {
    "opened and reset": lambda number: request(number) + reset(number),
    "malformed": lambda number: headers(REQUEST[1:], number),
    "opened and broken": lambda number: request(number) + update(0, number),
}


@pytest.mark.parametrize("how", WASTE)
def test_streams_opened_for_nothing(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_WASTED_STREAMS", 20)
    conn = server()
    for number in range(20):
        conn.receive(WASTE[how](1 + 2 * number))
        conn.data_to_send()
    assert broken(conn, WASTE[how](41)).code == ErrorCode.ENHANCE_YOUR_CALM


def test_answered_calls_make_up_for_cancelled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_WASTED_STREAMS", 3)
    conn = server()
    for number in range(50):
        first, second, third = (1 + 6 * number + more for more in (0, 2, 4))
        conn.receive(request(first) + reset(first) + request(second, END_STREAM) + request(third))
        conn.send_headers(second, ANSWER, end_stream=True)
        conn.send_headers(third, ANSWER, end_stream=True)
        conn.receive(reset(third, ErrorCode.NO_ERROR))  # as grpc-go does when the answer is complete


def test_resets_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_REMEMBERED_RESETS", 10)
    conn = server()
    for number in range(100):
        conn.receive(request(1 + 2 * number))
        conn.reset(1 + 2 * number)
    assert len(conn._resets) == 10
    assert conn.receive(data(b"x", 199)) == []
    assert broken(conn, data(b"x", 1)).code == ErrorCode.STREAM_CLOSED
