# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Text that programs wrote for a terminal, made safe and small for a task's result."""

from __future__ import annotations

import re
from collections import deque

LINE_MAX = 8192  # characters of a line that are kept: two such lines fill the default tail

_PLAIN = bytes(byte for byte in range(256) if (byte >= 32 and byte != 127) or byte in b"\t\n")
_ESCAPE = re.compile(  # CSI; OSC, DCS and other strings up to their end; the short ones; CSI in one character
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\r\n])", re.MULTILINE)  # anchored, else long lines take quadratic time
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def clean(data: bytes) -> str:
    """Decode output of a program; the number of line feeds stays what it was.

    Bytes that are not UTF-8 become U+FFFD, escape sequences and control characters go, and of a line that
    was written over with carriage returns (a progress bar) only the last writing remains, as on a terminal.
    """
    text = data.decode("utf-8", "replace")
    if text.isascii() and not data.translate(None, _PLAIN):  # nearly always; costs about a nanosecond a byte
        return text
    return _CONTROL.sub("", _OVERWRITTEN.sub("", _ESCAPE.sub("", text)))


def clean_text(text: str) -> str:
    """The same for text that is decoded already: names, errors, what this program says itself."""
    return clean(text.encode("utf-8", "replace"))


def shorten(line: str) -> str:
    return line if len(line) <= LINE_MAX else line[: LINE_MAX - 1] + "…"


class Tail:
    """The last lines of a log: at most `lines` of them and at most `room` bytes (UTF-8, line feeds included)."""

    def __init__(self, lines: int, room: int) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._room = room
        self._added = 0  # bytes at the last count, and characters since

    def extend(self, new: list[str], length: int) -> None:
        """Add lines of about `length` characters together; bytes are counted only now and then, it costs."""
        self._lines.extend(new)
        self._added += length
        if self._added > 2 * self._room:
            self._trim()

    def lines(self) -> list[str]:
        self._trim()
        return list(self._lines)

    def _trim(self) -> None:
        kept = self._lines
        size = sum(map(_bytes, kept))
        while size > self._room and len(kept) > 1:
            size -= _bytes(kept.popleft())
        if size > self._room:  # one line that is too long must not leave nothing; four bytes for the mark and the feed
            kept[0] = kept[0].encode("utf-8", "replace")[: max(self._room - 4, 0)].decode("utf-8", "ignore") + "…"
            size = _bytes(kept[0])
        self._added = size


def _bytes(line: str) -> int:
    return (len(line) if line.isascii() else len(line.encode("utf-8", "replace"))) + 1
