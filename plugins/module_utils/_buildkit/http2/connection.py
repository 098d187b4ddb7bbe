# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""HTTP/2 without I/O (RFC 9113): bytes go in and events come out; calls go in and bytes come out.

Two roles use it: the server of the connection that a BuildKit session carries inside its stream, where the daemon
calls us once or more per file, and the client of that one outer stream. It knows nothing of gRPC.

Theory of operation
    receive() cuts the bytes into frames and hands each to the handler of its type (_FRAMES). A handler changes
    the state, queues what the protocol itself has to answer, and adds events for the caller. It judges by raising:

        StreamFault    the frame breaks one stream: RST_STREAM is queued, the caller gets a StreamReset
        ProtocolError  the frame breaks the connection: GOAWAY is queued, receive() raises

    While only one frame may come next (SETTINGS at first, CONTINUATION within a header block), `_only` names it.

    A stream is in `_streams` from its first header list until both sides have ended it or one has reset it. What is
    not there is idle (even, or newer than `_last_stream`) or closed. Streams that were reset are remembered for a
    while, because one side cannot know yet: what the peer still sends on a stream that we reset is ignored (§5.1),
    and so is what the caller still sends on one whose StreamReset it has not come to. Everything else on a closed
    stream is an error.

    Flow control, sending: writable() says how much may be sent, WindowOpened that it became more. Receiving: the
    caller says by consumed() what it has taken, and the window opens again when half of it is due, so that an
    update is rare and the peer never runs dry. The window of the connection is larger than that of a stream by far:
    one consumer that waits must not hold up the others, health checks among them. What a stream still holds when
    it ends is given back by itself.

Not supported: server push (refused), priorities (read, checked and ignored, §5.3), CONNECT, informational answers
from us (those of a peer are skipped).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional, Union

from . import fields, frames
from .errors import ErrorCode, LocalProtocolError, ProtocolError, StreamFault
from .hpack import DEFAULT_TABLE_SIZE, Decoder, Field, encode, forget_table

# The daemon sends exclude-patterns and error details as header fields: lists of megabytes are normal (wire §0.1).
HEADER_LIMIT = 16 << 20
# What the peer may send of one stream before we have taken it. At 45 MB/s (exec) this is 20 ms of round trip.
WINDOW = 1 << 20
# Windows of streams that fit the one of the connection, and the bound of what the peer can make us hold.
CONNECTION_WINDOWS = 16
# A build has some dozens of calls open at once; gRPC peers make further ones wait. More would be memory for nothing.
MAX_STREAMS = 1000
# Frames that neither open a stream, nor carry content, nor follow something that we sent: PING, SETTINGS, PRIORITY,
# empty DATA, leftovers of closed streams. Each costs us time and the peer almost nothing (CVE-2019-9512, -9515,
# -9518). A keep-alive every ten seconds needs a day for so many, and each health check starts anew.
MAX_IDLE_FRAMES = 10_000
# Answers that the protocol demands (ACKs, RST_STREAM) and the peer does not read; 15,000 of its PINGs.
MAX_UNREAD_REPLIES = 256 << 10
# Calls that came to nothing (reset by the peer before our answer was complete, refused, malformed), less those that
# ended well: opening and resetting is cheap for the peer and dear for us (CVE-2023-44487). A cancelled build resets
# some dozens.
MAX_WASTED_STREAMS = 1000
# Streams that were reset and whose late frames are ignored. A round trip's worth is enough.
MAX_REMEMBERED_RESETS = 4096


class Role(enum.Enum):
    """Which side of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class HeadersReceived(NamedTuple):
    """A request, an answer, or the trailers of either."""

    stream_id: int
    headers: list[Field]
    end_stream: bool
    trailers: bool


class DataReceived(NamedTuple):
    """Content. size_for_flow_control goes into consumed(); padding counts, so it may be more than len(data)."""

    stream_id: int
    data: bytes
    size_for_flow_control: int
    end_stream: bool


class StreamReset(NamedTuple):
    """The stream is over before its time. reason: why we gave it up, empty when the peer reset it.

    It may follow an answer of ours that was complete: a gRPC client that still had to send gives up so.
    """

    stream_id: int
    code: int
    reason: str = ""


class WindowOpened(NamedTuple):
    """writable() may have grown, of that stream or (0) of any."""

    stream_id: int


class GoAwayReceived(NamedTuple):
    """The peer takes no more streams. Those of ours that it did not see follow as StreamReset."""

    last_stream_id: int
    code: int
    debug: bytes


class SettingsReceived(NamedTuple):
    """What the peer has announced; already in force."""

    settings: dict[int, int]


class PingAcknowledged(NamedTuple):
    """The answer to ping()."""

    payload: bytes


Event = Union[
    HeadersReceived, DataReceived, StreamReset, WindowOpened, GoAwayReceived, SettingsReceived, PingAcknowledged
]


class _Stream:
    """Windows and ends of one stream.

    held:         bytes received and not consumed yet; credit: consumed, and not announced to the peer yet.
    headed:       the peer's header list has arrived (what comes next is trailers); answered: ours is sent.
    content_left: what is still due by content-length, None without one.
    """

    __slots__ = (
        "answered", "content_left", "credit", "headed", "held", "local_ended", "receive_window", "remote_ended",
        "send_window",
    )  # fmt: skip

    def __init__(self, send_window: int, receive_window: int) -> None:
        self.send_window = send_window
        self.receive_window = receive_window
        self.held = self.credit = 0
        self.headed = self.answered = self.local_ended = self.remote_ended = False
        self.content_left: Optional[int] = None


class Connection:
    """One end of an HTTP/2 connection.

    header_limit: bytes of a header list, as SETTINGS_MAX_HEADER_LIST_SIZE counts; more ends the connection.
    window:       bytes that the peer may send of one stream ahead of consumed(), 65,535 or more (with less, what
                  holds would depend on when our SETTINGS arrive).
    """

    def __init__(self, role: Role, *, header_limit: int = HEADER_LIMIT, window: int = WINDOW) -> None:
        if not frames.DEFAULT_WINDOW <= window <= frames.LARGEST_WINDOW:
            raise LocalProtocolError(f"a window of {window} bytes")
        self._role = role
        self._header_limit = header_limit
        self._window = window
        self._connection_window = min(window * CONNECTION_WINDOWS, frames.LARGEST_WINDOW)
        self._out = bytearray()
        self._unread_replies = 0
        self._rest = bytearray()  # of a frame that is not complete
        self._needed = 0  # bytes that complete it
        self._preface_due = role is Role.SERVER
        self._only: Optional[tuple[int, int]] = (frames.SETTINGS, 0)
        self._block = bytearray()
        self._block_flags = 0
        self._decoder = Decoder(header_limit)
        self._events: list[Event] = []
        self._streams: dict[int, _Stream] = {}
        self._resets: dict[int, bool] = {}  # in order; whether it was us
        self._last_stream = -1 if role is Role.CLIENT else 0
        self._idle_frames = self._wasted_streams = 0
        self._credit = 0
        self._receive_window = self._connection_window
        self._send_window = self._initial_send_window = frames.DEFAULT_WINDOW
        self._peer_frame_size = frames.DEFAULT_FRAME_SIZE
        self._peer_max_streams = frames.LARGEST_STREAM_ID
        self._forget_table = False
        self._draining = False  # one side has sent GOAWAY
        self._dead = False

    def start(self) -> None:
        """Queue what opens the connection; once, before anything else."""
        settings = {
            frames.INITIAL_WINDOW_SIZE: self._window,
            frames.MAX_HEADER_LIST_SIZE: self._header_limit,
        }
        if self._role is Role.CLIENT:
            self._out += frames.PREFACE
            settings[frames.ENABLE_PUSH] = 0
        else:
            settings[frames.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
        self._out += frames.frame(frames.SETTINGS, 0, 0, frames.settings_payload(settings))
        more = self._connection_window - frames.DEFAULT_WINDOW
        if more:
            self._out += frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.WORD.pack(more))

    # What the caller sends

    @property
    def pending(self) -> int:
        """Bytes that wait in data_to_send()."""
        return len(self._out)

    @property
    def open_streams(self) -> int:
        """Streams that neither ended on both sides nor were reset."""
        return len(self._streams)

    def data_to_send(self, limit: Optional[int] = None) -> bytes:
        """Take what is to be sent, at most `limit` bytes of it."""
        out = self._out
        if limit is None or limit >= len(out):
            data = bytes(out)
            out.clear()
            self._unread_replies = 0
            return data
        with memoryview(out) as view, view[:limit] as part:
            data = bytes(part)
        del out[:limit]
        # Replies stand somewhere among the rest. Counting them off first keeps the bound: what waits is never more
        # than what the caller had queued at most, plus the limit.
        self._unread_replies = max(0, self._unread_replies - limit)
        return data

    def open_stream(self, headers: Sequence[Field], end_stream: bool = False) -> int:
        """Send a request; the id of its stream."""
        if self._role is not Role.CLIENT or self._draining or self._dead:
            raise LocalProtocolError("no stream can be opened on this connection")
        if len(self._streams) >= self._peer_max_streams or self._last_stream + 2 > frames.LARGEST_STREAM_ID:
            raise LocalProtocolError("the peer takes no more streams", limit=self._peer_max_streams)
        block = self._encode(headers, fields.REQUEST)
        self._last_stream += 2
        stream = self._streams[self._last_stream] = _Stream(self._initial_send_window, self._window)
        stream.answered = True
        self._queue_block(self._last_stream, stream, block, end_stream)
        return self._last_stream

    def send_headers(self, stream_id: int, headers: Sequence[Field], end_stream: bool = False) -> None:
        """Send the answer's header list, or the trailers of either side, which end the stream."""
        stream = self._sending(stream_id)
        if stream is None:
            return
        if stream.answered and not end_stream:
            raise LocalProtocolError("trailers that do not end their stream", stream_id=stream_id)
        block = self._encode(headers, fields.TRAILERS if stream.answered else fields.RESPONSE)
        stream.answered = True
        self._queue_block(stream_id, stream, block, end_stream)

    def send_data(self, stream_id: int, data: Union[bytes, bytearray, memoryview], end_stream: bool = False) -> None:
        """Send content, at most writable(stream_id) bytes; nothing is always possible."""
        stream = self._sending(stream_id)
        if stream is None:
            return
        size = len(data)
        if not stream.answered or (size and (size > stream.send_window or size > self._send_window)):
            raise LocalProtocolError(f"{size} bytes of content that may not be sent now", stream_id=stream_id)
        stream.send_window -= size
        self._send_window -= size
        self._idle_frames = 0
        out, limit, flags = self._out, self._peer_frame_size, frames.END_STREAM if end_stream else 0
        if size <= limit:
            out += frames.FRAME_HEADER.pack(size >> 16, size & 0xFFFF, frames.DATA, flags, stream_id)
            out += data
        else:
            with memoryview(data) as view:
                for start in range(0, size, limit):
                    part = min(limit, size - start)
                    last = flags if start + part == size else 0
                    out += frames.FRAME_HEADER.pack(part >> 16, part & 0xFFFF, frames.DATA, last, stream_id)
                    out += view[start : start + part]
        if end_stream:
            self._end_local(stream_id, stream)

    def writable(self, stream_id: int) -> int:
        """Bytes of content that may be sent now; 0 when the stream is closed or its header list is not sent."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_ended or not stream.answered:
            return 0
        return max(0, min(stream.send_window, self._send_window))

    def reset(self, stream_id: int, code: int = ErrorCode.CANCEL) -> None:
        """End a stream at once; without effect when it has ended.

        A server whose answer is complete calls it with NO_ERROR, in case the peer still sends (§8.1).
        """
        if stream_id in self._streams:
            self._drop(stream_id)
            self._queue_reset(stream_id, code)

    def consumed(self, stream_id: int, size: int) -> None:
        """Let the peer send `size` more bytes (DataReceived.size_for_flow_control) of a stream, and altogether.

        To be called when content was taken over, not when a message is complete: that may be larger than a window.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return  # given back when it ended
        if not 0 <= size <= stream.held:
            raise LocalProtocolError(f"{size} bytes consumed of {stream.held}", stream_id=stream_id)
        stream.held -= size
        stream.credit += size
        if stream.credit * 2 >= self._window and not stream.remote_ended:
            self._out += frames.frame(frames.WINDOW_UPDATE, 0, stream_id, frames.WORD.pack(stream.credit))
            stream.receive_window += stream.credit
            stream.credit = 0
        self._give_back(size)

    def ping(self, payload: bytes = bytes(8)) -> None:
        """Ask for a PingAcknowledged with the same eight bytes."""
        if len(payload) != 8:
            raise LocalProtocolError("a PING carries eight bytes")
        self._out += frames.frame(frames.PING, 0, 0, payload)

    def close(self, code: int = ErrorCode.NO_ERROR) -> None:
        """Announce that no further streams are taken; those that are open go on."""
        self._draining = True
        self._queue_goaway(code, b"")

    # What the peer sends

    def receive(self, data: bytes) -> list[Event]:
        """Take what the transport delivered, cut anywhere. After a ProtocolError everything is ignored."""
        if self._dead:
            return []
        self._events = []
        try:
            self._read(data)
        except ProtocolError as fault:
            self._queue_goaway(fault.code, fault.text.encode("ascii", "replace"))
            self._bury(fault.code, fault.text)
            fault.events = self._events
            raise
        return self._events

    def receive_end(self) -> list[Event]:
        """The transport has ended."""
        self._events = []
        self._bury(ErrorCode.CANCEL, "the connection ended")
        return self._events

    def _read(self, data: bytes) -> None:
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data = bytes(rest)
            rest.clear()
        position, end = 0, len(data)
        if self._preface_due:
            position = len(frames.PREFACE)
            if not frames.PREFACE.startswith(data[:position]):  # said at the first wrong byte
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "the peer does not speak HTTP/2")
            self._preface_due = end < position
        while end - position >= frames.HEADER_SIZE:
            high, low, kind, flags, stream_id = frames.FRAME_HEADER.unpack_from(data, position)
            size = high << 16 | low
            if size > frames.DEFAULT_FRAME_SIZE:  # we announce no other
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"frame of {size} bytes")
            after = position + frames.HEADER_SIZE + size
            if after > end:
                self._needed = after - position
                break
            stream_id &= frames.LARGEST_STREAM_ID  # the first bit is reserved
            self._on_frame(kind, flags, stream_id, data[position + frames.HEADER_SIZE : after])
            position = after
        else:
            self._needed = frames.HEADER_SIZE
        rest += data if self._preface_due else data[position:]

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._only is not None and self._only != (kind, stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"frame of type {kind} where it may not be")
        handler, place, exact = _FRAMES.get(kind, _UNKNOWN)
        if place is not None and place is not bool(stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"frame of type {kind} on stream {stream_id}")
        if exact is not None and len(payload) != exact:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"frame of type {kind} with {len(payload)} bytes")
        try:
            handler(self, flags, stream_id, payload)
        except StreamFault as fault:
            self._on_fault(stream_id, fault)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        if size > self._receive_window:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more content than the window of the connection")
        self._receive_window -= size
        stream = self._streams.get(stream_id)
        if stream is None:
            self._on_closed(stream_id)
            self._give_back(size)
            return
        stream.held += size  # before it is judged: a stream that ends gives back what it holds
        stream.receive_window -= size
        if stream.remote_ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "content after the end")
        if stream.receive_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more content than the window of the stream")
        if not stream.headed:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content before the header list")
        if flags & frames.PADDED:
            payload = frames.without_padding(flags, payload)
        if stream.content_left is not None:
            stream.content_left -= len(payload)
            if stream.content_left < 0:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "more content than content-length says")
        end = flags & frames.END_STREAM != 0
        if end:
            self._end_remote(stream_id, stream)
        elif payload:
            self._idle_frames = 0
        else:
            self._count_idle()
        self._events.append(DataReceived(stream_id, payload, size, end))

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:  # what a server opens: pushes only, which we refuse
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"header list on stream {stream_id}")
        payload = frames.without_padding(flags, payload)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "header list that ends within its priority")
            self._on_priority(0, stream_id, payload)
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, payload)
        else:
            self._only = (frames.CONTINUATION, stream_id)
            self._block_flags = flags
            self._block += payload

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._only is None:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block += payload
        # What is sent is never much more than what it means, so one limit does for both.
        if len(self._block) > self._header_limit:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"header list of more than {self._header_limit} bytes")
        if flags & frames.END_HEADERS:
            block = bytes(self._block)
            self._block = bytearray()
            self._only = None
            self._on_block(self._block_flags, stream_id, block)
        elif not payload:
            self._count_idle()

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        headers = self._decoder.decode(block)  # before anything is judged: it changes the table
        end = flags & frames.END_STREAM != 0
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._role is Role.SERVER and stream_id > self._last_stream:
                self._on_request(stream_id, headers, end)
            else:
                self._on_closed(stream_id)
            return
        if stream.remote_ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "header list after the end")
        trailers = stream.headed
        if trailers:
            if not end:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "second header list before the end")
            fields.check(headers, fields.TRAILERS)
        else:
            length = fields.check(headers, fields.RESPONSE)
            if headers[0][1].startswith(b"1"):  # informational: the answer is still to come (§8.1)
                if end:
                    raise StreamFault(ErrorCode.PROTOCOL_ERROR, "informational answer at the end")
                self._count_idle()
                return
            stream.headed = True
            stream.content_left = length
        if end:
            self._end_remote(stream_id, stream)
        self._idle_frames = 0
        self._events.append(HeadersReceived(stream_id, headers, end, trailers))

    def _on_request(self, stream_id: int, headers: list[Field], end: bool) -> None:
        self._last_stream = stream_id
        if self._draining or len(self._streams) >= MAX_STREAMS:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams")
        stream = _Stream(self._initial_send_window, self._window)
        stream.content_left = fields.check(headers, fields.REQUEST)
        stream.headed = True
        if end:
            self._end_remote(stream_id, stream)
        self._streams[stream_id] = stream
        self._idle_frames = 0
        self._events.append(HeadersReceived(stream_id, headers, end, False))

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if frames.WORD.unpack_from(payload)[0] & frames.LARGEST_STREAM_ID == stream_id:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "stream that depends on itself")
        self._count_idle()

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id not in self._streams:
            self._on_closed(stream_id, late=True)
            return
        if self._drop(stream_id).local_ended:
            self._wasted_streams = max(0, self._wasted_streams - 1)  # our answer was complete
        else:
            self._count_wasted()
        self._remember(stream_id, False)
        self._events.append(StreamReset(stream_id, frames.WORD.unpack(payload)[0]))

    def _on_settings(self, flags: int, _stream_id: int, payload: bytes) -> None:
        if len(payload) % frames.SETTING.size or (flags & frames.ACK and payload):
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self._count_idle()
        if flags & frames.ACK:
            if self._only is not None:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS acknowledged before the peer sent its own")
            return  # nothing of ours takes effect by it
        settings = frames.parse_settings(payload)
        if self._role is Role.CLIENT and settings.get(frames.ENABLE_PUSH):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "server that wants to be pushed to")
        self._only = None
        self._peer_frame_size = settings.get(frames.MAX_FRAME_SIZE, self._peer_frame_size)
        self._peer_max_streams = settings.get(frames.MAX_CONCURRENT_STREAMS, self._peer_max_streams)
        if settings.get(frames.HEADER_TABLE_SIZE, DEFAULT_TABLE_SIZE) < DEFAULT_TABLE_SIZE:
            self._forget_table = True
        # By the last value only: a frame has room for 2,730 of them, and each would touch every stream.
        more = settings.get(frames.INITIAL_WINDOW_SIZE, self._initial_send_window) - self._initial_send_window
        self._initial_send_window += more
        for stream in self._streams.values() if more else ():
            stream.send_window += more  # may become negative (§6.9.2)
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS that make a window too large")
        self._reply(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._events.append(SettingsReceived(settings))
        if more > 0:
            self._events.append(WindowOpened(0))

    def _on_push(self, _flags: int, stream_id: int, _payload: bytes) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"PUSH_PROMISE on stream {stream_id}")

    def _on_ping(self, flags: int, _stream_id: int, payload: bytes) -> None:
        self._count_idle()
        if flags & frames.ACK:
            self._events.append(PingAcknowledged(payload))
        else:
            self._reply(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, _flags: int, _stream_id: int, payload: bytes) -> None:
        if len(payload) < frames.TWO_WORDS.size:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self._count_idle()
        last, code = frames.TWO_WORDS.unpack_from(payload)
        last &= frames.LARGEST_STREAM_ID
        self._events.append(GoAwayReceived(last, code, payload[frames.TWO_WORDS.size :]))
        if self._role is Role.CLIENT:
            self._draining = True
            for unseen in [number for number in self._streams if number > last]:
                self._drop(unseen)
                self._remember(unseen, False)
                self._events.append(StreamReset(unseen, ErrorCode.REFUSED_STREAM, "the peer went away before it"))

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        more = frames.WORD.unpack(payload)[0] & frames.LARGEST_WINDOW
        fault: type[Union[ProtocolError, StreamFault]] = ProtocolError
        if not stream_id:
            window = self._send_window = self._send_window + more
        elif stream_id in self._streams:
            fault, stream = StreamFault, self._streams[stream_id]
            window = stream.send_window = stream.send_window + more
        else:
            self._on_closed(stream_id, late=True)
            return
        if not more:
            raise fault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        if window > frames.LARGEST_WINDOW:
            raise fault(ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE that makes a window too large")
        # Not counted as idle: the bound of the window is also one of updates that nothing of ours has caused.
        self._events.append(WindowOpened(stream_id))

    def _on_unknown(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        self._count_idle()  # extensions are ignored (§5.5)

    # Ends

    def _on_closed(self, stream_id: int, *, late: bool = False) -> None:
        """Judge a frame on a stream that is not open. late: the frame may cross with the end of the stream."""
        if self._is_idle(stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"frame on stream {stream_id}, which was never opened")
        if not late and not self._resets.get(stream_id):
            raise ProtocolError(ErrorCode.STREAM_CLOSED, f"frame on stream {stream_id}, which has ended")
        self._count_idle()

    def _on_fault(self, stream_id: int, fault: StreamFault) -> None:
        if self._is_idle(stream_id):
            raise ProtocolError(fault.code, fault.text) from fault
        if stream_id in self._streams:
            self._drop(stream_id)
            self._events.append(StreamReset(stream_id, fault.code, fault.text))
        size = len(self._out)
        self._queue_reset(stream_id, fault.code)
        self._count_reply(len(self._out) - size)
        self._count_wasted()

    def _is_idle(self, stream_id: int) -> bool:
        return not stream_id & 1 or stream_id > self._last_stream

    def _end_remote(self, stream_id: int, stream: _Stream) -> None:
        if stream.content_left:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "less content than content-length says")
        stream.remote_ended = True
        self._end(stream_id, stream)

    def _end_local(self, stream_id: int, stream: _Stream) -> None:
        stream.local_ended = True
        self._end(stream_id, stream)

    def _end(self, stream_id: int, stream: _Stream) -> None:
        if stream.local_ended and stream.remote_ended:
            self._drop(stream_id)
            self._wasted_streams = max(0, self._wasted_streams - 1)

    def _drop(self, stream_id: int) -> _Stream:
        stream = self._streams.pop(stream_id)
        self._give_back(stream.held)
        return stream

    def _bury(self, code: ErrorCode, reason: str) -> None:
        """The connection is over, and so is each of its streams."""
        self._dead = True
        self._rest.clear()
        self._block.clear()
        self._events += [StreamReset(stream_id, code, reason) for stream_id in self._streams]
        self._streams.clear()

    # Limits

    def _count_idle(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"{self._idle_frames} frames that do nothing")

    def _count_wasted(self) -> None:
        if self._role is Role.SERVER:
            self._wasted_streams += 1
            if self._wasted_streams > MAX_WASTED_STREAMS:
                raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"{self._wasted_streams} streams opened for nothing")

    def _count_reply(self, size: int) -> None:
        self._unread_replies += size
        if self._unread_replies > MAX_UNREAD_REPLIES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "the peer asks, and does not read the answers")

    # Output

    def _sending(self, stream_id: int) -> Optional[_Stream]:
        """The stream, or None when it was reset: the event may be one that the caller has not come to yet."""
        stream = self._streams.get(stream_id)
        if stream is None and (self._dead or stream_id in self._resets):
            return None
        if stream is None or stream.local_ended:
            raise LocalProtocolError("the stream takes no more from us", stream_id=stream_id)
        return stream

    def _encode(self, headers: Sequence[Field], kind: fields.Kind) -> bytes:
        try:
            fields.check(headers, kind)
        except StreamFault as fault:
            raise LocalProtocolError(fault.text) from None
        return encode(headers)

    def _queue_block(self, stream_id: int, stream: _Stream, block: bytes, end_stream: bool) -> None:
        self._idle_frames = 0
        if self._forget_table:
            self._forget_table = False
            block = forget_table() + block
        kind, flags, limit = frames.HEADERS, frames.END_STREAM if end_stream else 0, self._peer_frame_size
        for start in range(0, max(1, len(block)), limit):  # an empty list is a frame as well
            if start + limit >= len(block):
                flags |= frames.END_HEADERS
            self._out += frames.frame(kind, flags, stream_id, block[start : start + limit])
            kind, flags = frames.CONTINUATION, 0
        if end_stream:
            self._end_local(stream_id, stream)

    def _give_back(self, size: int) -> None:
        """Open the window of the connection, as soon as half of it is due."""
        self._credit += size
        if self._credit * 2 >= self._connection_window:
            self._out += frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.WORD.pack(self._credit))
            self._receive_window += self._credit
            self._credit = 0

    def _reply(self, data: bytes) -> None:
        self._out += data
        self._count_reply(len(data))

    def _queue_reset(self, stream_id: int, code: int) -> None:
        self._remember(stream_id, True)
        self._out += frames.frame(frames.RST_STREAM, 0, stream_id, frames.WORD.pack(code))

    def _remember(self, stream_id: int, by_us: bool) -> None:
        self._resets[stream_id] = by_us
        if len(self._resets) > MAX_REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]

    def _queue_goaway(self, code: int, debug: bytes) -> None:
        last = self._last_stream if self._role is Role.SERVER else 0
        self._out += frames.frame(frames.GOAWAY, 0, 0, frames.TWO_WORDS.pack(last, code) + debug)


# Type of frame → its handler, whether it belongs to a stream or to the connection (None: either), its exact size.
_Handler = Callable[[Connection, int, int, bytes], None]
_UNKNOWN: tuple[_Handler, Optional[bool], Optional[int]] = (Connection._on_unknown, None, None)
_FRAMES: dict[int, tuple[_Handler, Optional[bool], Optional[int]]] = {
    frames.DATA: (Connection._on_data, True, None),
    frames.HEADERS: (Connection._on_headers, True, None),
    frames.PRIORITY: (Connection._on_priority, True, 5),
    frames.RST_STREAM: (Connection._on_reset, True, 4),
    frames.SETTINGS: (Connection._on_settings, False, None),
    frames.PUSH_PROMISE: (Connection._on_push, True, None),
    frames.PING: (Connection._on_ping, False, 8),
    frames.GOAWAY: (Connection._on_goaway, False, None),
    frames.WINDOW_UPDATE: (Connection._on_window_update, None, 4),
    frames.CONTINUATION: (Connection._on_continuation, True, None),
}
