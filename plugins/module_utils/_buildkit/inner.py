# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The inner connection of a session: the daemon calls, the services answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, PeerProtocolError

from .framing import OK, Deframer, frame, status_trailers
from .http2.connection import Connection, DataReceived, HeadersReceived, Role, StreamReset
from .http2.errors import ErrorCode
from .http2.hpack import Field
from .service import Call, CallFactory, CallStatus, Code, Metadata, Service

ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OF_A_CALL = (CallStatus, BuildxError, OSError)
"""What ends one call, and not the session."""
HELD = 4 << 20
"""Bytes that a call may hold unworked before the daemon is no longer given room to send more."""
UNFINISHED = 64 << 20
"""Bytes of messages that are not whole yet, of all calls together; no daemon has two of its largest on the way."""
SMALL = 64 << 10
"""A message so short is not counted: as many as there may be calls are no more than that."""


class _Stream:
    """One call in progress. waiting: framed bytes that did not fit the daemon's window yet."""

    def __init__(self, call: Call, status: Optional[CallStatus] = None) -> None:
        self.call = call
        self.messages = Deframer()
        self.waiting = bytearray()
        self.owed = 0
        self.status = status

    def half_close(self) -> None:
        if self.messages.partial:
            raise PeerProtocolError("the call ended within a message")
        self.call.half_close()

    def release(self) -> None:
        """What goes wrong here is nobody's any more, and the other calls have to be released as well."""
        with contextlib.suppress(*OF_A_CALL):
            self.call.cancel()


class InnerServer:
    """Serves the services over bytes that somebody else carries.

    wake: called from any thread when a call has something to say.
    """

    def __init__(self, services: Iterable[Service], wake: Callable[[], None]) -> None:
        self.methods: dict[str, CallFactory] = {}
        for service in services:
            self.methods.update(service.methods())
        self._connection = Connection(Role.SERVER)
        self._streams: dict[int, _Stream] = {}
        self._wake = wake

    def start(self) -> None:
        self._connection.start()

    def receive(self, data: bytes) -> None:
        """Bytes from the daemon. Raises PeerProtocolError when they are no HTTP/2."""
        for event in self._connection.receive(data):
            if isinstance(event, HeadersReceived):
                self._open(event)
            elif isinstance(event, DataReceived):
                self._feed(event)
            elif isinstance(event, StreamReset):
                stream = self._streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.release()

    def work(self, budget: int) -> bool:
        """Let every call say what it has, each about `budget` bytes; True when there may be more."""
        more = False
        for stream_id in list(self._streams):
            stream = self._streams[stream_id]
            more = self._advance(stream_id, stream, budget) or more
        return more

    def data_to_send(self, limit: int) -> bytes:
        return self._connection.data_to_send(limit)

    def cancel(self) -> None:
        """The connection is gone: tell every call."""
        for stream in self._streams.values():
            stream.release()
        self._streams.clear()

    def _open(self, event: HeadersReceived) -> None:
        if event.trailers:
            self._half_close(event.stream_id)
            return
        self._connection.send_headers(event.stream_id, ANSWER)
        try:
            stream = _Stream(self._call(event.headers))
        except OF_A_CALL as exc:
            # It ends as any other, in its turn: else the answers to a daemon that only asks would pile up.
            stream = _Stream(Call(), _status_of(exc))
        self._streams[event.stream_id] = stream
        if event.end_stream:
            self._half_close(event.stream_id)

    def _call(self, headers: list[Field]) -> Call:
        path = dict(headers[:8]).get(b":path", b"").decode("latin-1")
        if path not in self.methods:
            raise CallStatus(Code.UNIMPLEMENTED, f"unknown method {path}")
        call = self.methods[path](metadata_of(headers))
        call.wake = self._wake
        return call

    def _feed(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.status:
            self._connection.consumed(event.stream_id, event.size_for_flow_control)
            return
        stream.owed += event.size_for_flow_control
        self._guard(stream, lambda: self._hand_over(stream, event.data))
        self._settle(event.stream_id, stream)
        if event.end_stream:
            self._half_close(event.stream_id)

    def _hand_over(self, stream: _Stream, data: bytes) -> None:
        messages = stream.messages.feed(data)
        for message in messages:
            stream.call.receive(message)
        if not messages and stream.messages.partial > SMALL:
            together = sum(other.messages.partial for other in self._streams.values())
            if together > UNFINISHED:
                raise CallStatus(Code.RESOURCE_EXHAUSTED, f"{together} bytes of messages that are not whole")

    def _half_close(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.status:
            self._guard(stream, stream.half_close)

    def _guard(self, stream: _Stream, act: Callable[[], None]) -> None:
        """A call ends with the status that its service gives; an error of ours is told to the daemon as well."""
        try:
            act()
        except OF_A_CALL as exc:
            stream.status = _status_of(exc)

    def _settle(self, stream_id: int, stream: _Stream) -> None:
        """Give room for as much as was worked on."""
        if stream.owed and stream.call.held() < HELD:
            self._connection.consumed(stream_id, stream.owed)
            stream.owed = 0

    def _advance(self, stream_id: int, stream: _Stream, budget: int) -> bool:
        more = False
        room = self._connection.writable(stream_id)
        if not stream.status and len(stream.waiting) < budget:

            def ask() -> None:
                nonlocal more
                messages = stream.call.produce(budget - len(stream.waiting))
                more = bool(messages)
                for message in messages:
                    stream.waiting += frame(message)
                if stream.call.finished:
                    stream.status = OK

            self._guard(stream, ask)
        self._settle(stream_id, stream)
        if stream.waiting and room:
            part = bytes(stream.waiting[:room])
            del stream.waiting[:room]
            self._connection.send_data(stream_id, part)
        if stream.status and not stream.waiting:  # cut within a message, the peer would not see the status
            del self._streams[stream_id]
            self._connection.send_headers(stream_id, status_trailers(stream.status), end_stream=True)
            # The daemon, which may still be sending, is told not to.
            self._connection.reset(stream_id, ErrorCode.NO_ERROR)
            stream.release()
            return False
        return more and not stream.waiting


def _status_of(exc: Exception) -> CallStatus:
    if isinstance(exc, CallStatus):
        return exc
    return CallStatus(Code.INTERNAL if isinstance(exc, PeerProtocolError) else Code.UNKNOWN, str(exc))


def metadata_of(headers: list[Field]) -> Metadata:
    """Request headers as metadata; values keep every byte (surrogateescape)."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith(b":"):
            found.setdefault(name.decode("latin-1"), []).append(value.decode("utf-8", "surrogateescape"))
    return {name: tuple(values) for name, values in found.items()}
