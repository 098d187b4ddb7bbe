# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Frames: their header, their types, and the payloads that are the same in both directions (RFC 9113 §4, §6)."""

from __future__ import annotations

import struct

from .errors import ErrorCode, ProtocolError

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
LARGEST_STREAM_ID = (1 << 31) - 1

# The length has 24 bits, which struct does not know: a byte and a word.
FRAME_HEADER = struct.Struct(">BHBBL")
WORD = struct.Struct(">L")
SETTING = struct.Struct(">HL")
TWO_WORDS = struct.Struct(">LL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame; the caller keeps the payload within the peer's frame size."""
    size = len(payload)
    return FRAME_HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def settings_payload(settings: dict[int, int]) -> bytes:
    """Payload of a SETTINGS frame."""
    return b"".join(SETTING.pack(key, value) for key, value in settings.items())


def parse_settings(payload: bytes) -> dict[int, int]:
    """Key → last value of it. Each value is checked, unknown keys are kept (RFC 9113 §6.5.2)."""
    settings: dict[int, int] = {}
    for key, value in SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"initial window of {value} bytes")
        if (key == ENABLE_PUSH and value > 1) or (
            key == MAX_FRAME_SIZE and not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE
        ):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"setting {key} has the value {value}")
        settings[key] = value
    return settings


def without_padding(flags: int, payload: bytes) -> bytes:
    """Content of a DATA or HEADERS frame (RFC 9113 §6.1, §6.2)."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "padded frame without the length of its padding")
    if payload[0] >= len(payload):
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
