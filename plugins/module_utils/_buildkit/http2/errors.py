# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What goes wrong on an HTTP/2 connection, and whose fault it is."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

if TYPE_CHECKING:
    from .connection import Event


class ErrorCode(enum.IntEnum):
    """Codes of RST_STREAM and GOAWAY (RFC 9113 §7). A peer may send others: events carry plain integers."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ProtocolError(PeerProtocolError):
    """The peer broke the protocol: the connection is over.

    events: what had arrived, in the same bytes, before the fault, and a StreamReset for each stream that the
            fault ended; so that what a caller learns does not depend on how the transport cut the bytes.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"HTTP/2: {text} ({code.name})", code=code.name)
        self.code = code
        self.text = text
        self.events: list[Event] = []


class LocalProtocolError(BuildkitError):
    """We were about to break the protocol: a bug of the caller. Nothing was queued."""


class StreamFault(Exception):  # noqa: N818 - never leaves the room: it becomes RST_STREAM and a StreamReset
    """The peer broke the rules of one stream; the others go on (RFC 9113 §5.4.2)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
