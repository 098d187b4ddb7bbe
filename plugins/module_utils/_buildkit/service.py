# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a service of the session is: a table of methods, each call a machine without I/O.

The session's loop (session.py) owns the transport. It feeds a call with the gRPC messages that
arrived, without their five-byte prefix, and drains what the call has to say up to a budget of bytes a
turn, so that everything runs in one thread and many small messages leave in one write. A call never
waits: what takes long is done elsewhere, and the loop is woken.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Protocol


class Code(enum.IntEnum):
    """Status codes of gRPC that our services answer with."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallStatus(Exception):  # noqa: N818 - a status, which the peer may take as success (ALREADY_EXISTS)
    """Ends a call with another status than OK; raised by the methods of a Call."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


Metadata = Mapping[str, tuple[str, ...]]
"""Request metadata of a call: lower-case key → its values in order, pseudo-headers left out."""


class Call:
    """One call of the daemon. Every method may raise CallStatus, which ends the call.

    finished: True as soon as the call is to end with OK; what produce() returned before is sent first.
    wake:     set by the session; may be called from any thread when the call has something to say or has ended.
    """

    finished = False
    wake: Callable[[], None] = staticmethod(lambda: None)

    def receive(self, message: bytes) -> None:
        """Take one gRPC message."""

    def half_close(self) -> None:
        """The daemon will send no more messages."""

    def produce(self, budget: int) -> list[bytes]:
        """Messages to send now, together about `budget` bytes; [] when there is nothing to say yet.

        The loop asks again after each message received, whenever there is room in the transport, and
        after a wake-up; a call that returned [] must not count on being asked before one of these.
        """
        del budget
        return []

    def held(self) -> int:
        """Bytes of received messages that wait to be worked on; the peer may send less meanwhile."""
        return 0

    def cancel(self) -> None:
        """The call is over without an answer of ours (reset by the daemon, session lost): release what it holds."""


class UnaryCall(Call):
    """A call with one request and one answer."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._asked = False
        self._reply: list[bytes] = []

    def receive(self, message: bytes) -> None:
        if self._asked:
            raise CallStatus(Code.INTERNAL, "more than one message in a unary call")
        self._asked = True
        self._reply.append(self._answer(message))

    def half_close(self) -> None:
        if not self._asked:
            raise CallStatus(Code.INTERNAL, "no message in a unary call")

    def produce(self, budget: int) -> list[bytes]:
        del budget
        reply, self._reply = self._reply, []
        if reply:
            self.finished = True
        return reply


CallFactory = Callable[[Metadata], Call]


class Service(Protocol):
    """A service that the session offers to the daemon."""

    def methods(self) -> Mapping[str, CallFactory]:
        """Full method path (`/package.Service/Method`) → what makes a Call from the request's metadata.

        The keys are also what is announced when the session opens (wire §2.2), so that the two cannot differ.
        """
