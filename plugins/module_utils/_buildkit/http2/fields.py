# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a header list may contain (RFC 9113 §8.2, §8.3), for lists that arrive and for our own.

Tolerated, although §8.2.1 forbids it: spaces around a value. BuildKit sends file patterns as metadata, and Go
refuses neither `"a "` when it sends nor when it receives; a strict server would fail builds that work elsewhere.
Not supported: CONNECT, and answers to HEAD (whose content-length announces nothing).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

from .errors import ErrorCode, StreamFault
from .hpack import Field


class Kind(NamedTuple):
    """A kind of header list, by its pseudo-header fields."""

    required: frozenset[bytes]
    allowed: frozenset[bytes]


_REQUIRED = frozenset((b":method", b":scheme", b":path"))
REQUEST = Kind(_REQUIRED, _REQUIRED | {b":authority"})
RESPONSE = Kind(frozenset((b":status",)), frozenset((b":status",)))
TRAILERS = Kind(frozenset(), frozenset())

# Visible ASCII without upper case; a colon in front only.
_NAME = re.compile(rb":?[!-9;-@\[-~]+")
_NOT_IN_VALUE = re.compile(rb"[\x00\r\n]")
_DECIMAL = re.compile(rb"[0-9]{1,18}")
_STATUS = re.compile(rb"[1-5][0-9][0-9]")
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")  # §8.2.2
)


def check(fields: Sequence[Field], kind: Kind) -> Optional[int]:
    """The content-length, or None; raises StreamFault when the list is malformed."""
    seen: set[bytes] = set()
    length: Optional[int] = None
    pseudo_allowed = True
    for name, value in fields:
        if not _NAME.fullmatch(name) or _NOT_IN_VALUE.search(value):
            raise _malformed(name, "has a character that it may not have")
        if name[0] == 0x3A:
            if not pseudo_allowed or name in seen or name not in kind.allowed:
                raise _malformed(name, "is not expected here")
            if not value or (name == b":status" and not _STATUS.fullmatch(value)):
                raise _malformed(name, "has no usable value")
            seen.add(name)
            continue
        pseudo_allowed = False
        if name in _OF_THE_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            raise _malformed(name, "does not exist in HTTP/2")
        if name == b"content-length":
            if not _DECIMAL.fullmatch(value) or length not in (None, int(value)):
                raise _malformed(name, "has no usable value")
            length = int(value)
    for name in kind.required - seen:
        raise _malformed(name, "is missing")
    return length


def _malformed(name: bytes, what: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, f"header field {name[:60].decode('latin-1')!r} {what}")
