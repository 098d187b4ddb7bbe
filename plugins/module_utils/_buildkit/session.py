# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The session: the connection through which the daemon asks this side for files and hands results back.

Two HTTP/2 connections, one inside the other (wire §2.1). Outside we are the client of one call,
Control.Session; its messages carry the bytes of the inner connection, where the daemon is the client and
we serve. Both are ours (http2/), because grpcio's cost per message would decide the speed of every tree of
small files; one thread and one loop serve them, so that many small messages leave in one write.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

from .dial import Dialer
from .framing import Deframer, frame, percent_decoded
from .http2.connection import (
    Connection,
    DataReceived,
    GoAwayReceived,
    HeadersReceived,
    Role,
    StreamReset,
)
from .inner import InnerServer
from .service import Service
from .wirebytes import bytes_message, decode_bytes_message

PATH = "/moby.buildkit.v1.Control/Session"
CHUNK = 64 << 10
"""Bytes of the inner connection in one message, and as much as may wait in the outer stream (speed.md)."""
CLOSE_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""A daemon asks for the session's health every 5 s (wire §2.4): one that is silent for so long is frozen or cut off."""


class Session:
    """A session with a daemon, served by a thread of its own from `start` to `close`.

    id: unique, of printable ASCII. shared_key: must be unique per client host and directory: the daemon
    keeps the last copy of a directory under it, and takes what has the same size and time for the same (wire §3.6).
    on_failure: called in the session's thread when the session broke; `failure` is set before.
    """

    on_failure: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, dialer: Dialer, identity: str, shared_key: str, services: Iterable[Service]) -> None:
        self.id = identity
        self._shared_key = shared_key
        self._inner = InnerServer(services, self._wake)
        self._dialer = dialer
        self._outer = Connection(Role.CLIENT)
        self._messages = Deframer()
        self._stream = 0
        self._socket: Optional[socket.socket] = None
        self._waker = self._woken = -1
        self._waking = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self.failure: Optional[BuildkitError] = None

    def start(self) -> None:
        """Open the stream and begin to serve. Raises BuildxError when the daemon cannot be reached."""
        self._socket = self._dialer.dial()
        self._socket.setblocking(False)
        self._waker, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._outer.start()
        self._stream = self._outer.open_stream(self._request_headers())
        self._inner.start()
        self._thread.start()

    def close(self) -> None:
        """End the session: the daemon is told, the thread ends, nothing stays open."""
        self._closing.set()
        self._wake()
        if self._thread.ident is None:
            self._release()
            return
        self._thread.join(CLOSE_SECONDS * 3)
        if self._thread.is_alive() and self._socket is not None:
            # It waits for a file system that does not answer, and will release what it uses. The daemon need not wait.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
        with self._waking:
            for descriptor in (self._waker, self._woken) if self._woken >= 0 else ():
                os.close(descriptor)
            self._waker = self._woken = -1

    def _request_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", PATH.encode()),
            (b":authority", self._dialer.authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"buildfleet-buildx"),
            (b"x-docker-expose-session-uuid", self.id.encode()),
            (b"x-docker-expose-session-sharedkey", self._shared_key.encode("ascii")),
        ]
        return headers + [(b"x-docker-expose-session-grpc-method", path.encode()) for path in self._inner.methods]

    def _wake(self) -> None:
        """May be called from any thread: something has to be said without a byte having arrived.

        Even after the end, when the number of the closed pipe may be that of another file.
        """
        with self._waking, contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            if self._woken >= 0:
                os.write(self._woken, b"\0")

    # The loop; everything below runs in the session's thread.

    def _run(self) -> None:
        stream = self._socket
        if stream is None:
            return
        try:
            self._loop(stream)
        except BuildkitError as exc:
            self.failure = exc
        except OSError as exc:
            self.failure = BuildkitError(f"the connection of the session broke: {exc}")
        except Exception as exc:
            self.failure = BuildkitError(f"the session broke: {exc!r}")
            raise  # a bug, whose traceback belongs on stderr
        finally:
            with contextlib.suppress(OSError):
                self._send(stream)  # why the daemon is left
            self._release()
            self._inner.cancel()
            if self.failure is not None:
                self.on_failure()

    def _loop(self, stream: socket.socket) -> None:
        ended_at: Optional[float] = None
        silence = 0.0  # seconds that were spent waiting: while we are busy, nobody can be heard
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while True:
                if self._closing.is_set() and ended_at is None:
                    ended_at = time.monotonic() + CLOSE_SECONDS
                    self._outer.send_data(self._stream, b"", end_stream=True)
                busy = ended_at is None and self._produce()
                unsent = self._send(stream)
                selector.modify(stream, selectors.EVENT_READ | (selectors.EVENT_WRITE if unsent else 0))
                waits_at = time.monotonic()
                left = SILENCE_SECONDS - silence if ended_at is None else ended_at - waits_at
                if left <= 0:
                    if ended_at is None:
                        raise BuildkitError(
                            f"nothing was heard of the daemon for {SILENCE_SECONDS:g} s: it is frozen or cut off",
                            hint="See whether the builder is paused, or its host overloaded or out of reach.",
                        )
                    return
                ready = {key.fileobj: mask for key, mask in selector.select(0.0 if busy and not unsent else left)}
                silence += time.monotonic() - waits_at
                if self._waker in ready:
                    self._drain_wakes()
                if ready.get(stream, 0) & selectors.EVENT_READ:
                    silence = 0.0
                    if self._receive(stream):
                        return

    def _produce(self) -> bool:
        """Move what the services have to say into the outer stream; True while there is more to do."""
        more = True
        while more and self._outer.pending < CHUNK:
            room = min(CHUNK, self._outer.writable(self._stream) - 16)
            if room <= 0:
                return False
            more = self._inner.work(CHUNK)
            data = self._inner.data_to_send(room)
            if not data:
                return False
            # Never an empty message: the daemon would take the last one's bytes for new ones (wire §2.3).
            self._outer.send_data(self._stream, frame(bytes_message(data)))
        return True

    def _send(self, stream: socket.socket) -> bool:
        """Write what waits; True when the peer does not take it all."""
        while self._outer.pending or self._unsent:
            data = self._unsent or self._outer.data_to_send(4 * CHUNK)
            try:
                sent = stream.send(data)
            except BlockingIOError:
                sent = 0
            self._unsent = data[sent:]
            if self._unsent:
                return True
        return False

    _unsent: bytes = b""

    def _receive(self, stream: socket.socket) -> bool:
        """Take what arrived; True when the session is over."""
        try:
            data = stream.recv(256 << 10)
        except BlockingIOError:
            return False
        events = self._outer.receive(data) if data else self._outer.receive_end()
        for event in events:
            if isinstance(event, DataReceived):
                self._outer.consumed(self._stream, event.size_for_flow_control)
                for message in self._messages.feed(event.data):
                    self._inner.receive(decode_bytes_message(message))
            elif isinstance(event, HeadersReceived) and event.end_stream:
                return self._ended(percent_decoded(dict(event.headers).get(b"grpc-message", b"")))
            elif isinstance(event, StreamReset):
                return self._ended(event.reason)
            elif isinstance(event, GoAwayReceived) and event.code:
                # Without a code it is the daemon's wish to end after what it has begun, and so after this session.
                return self._ended(event.debug.decode("utf-8", "replace"))
        return not data and self._ended("")

    def _ended(self, words: str) -> bool:
        if not self._closing.is_set():
            raise PeerProtocolError(f"the session ended before the build: {words or 'the daemon closed it'}")
        return True

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._waker, 4096):
                pass
