# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The rare part of patterns: brackets, escapes and whatever else means something to Go's matchers.

Kept apart because most builds never load it. Two languages: the shell patterns of filepath.Match (one
component of a path), and RE2, into which the Go clients turn a pattern without escaping all of it, so that
`\\d`, `a|b*` or `x{2}*` in a .dockerignore mean more than they seem to.

Not supported, and refused: `\\p` and `\\P` with their tables of Unicode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Optional

from .patterns import PatternError, runes

_Ranges = list[tuple[int, int]]

_CHUNK = re.compile(rb"(\**)((?:\\.?|\[(?:\\.?|[^\]\\])*\]?|[^*\[\\])*)", re.DOTALL)
_ITEM = re.compile(r"\\?([^\ud800-\udfff])", re.DOTALL)
_CLASSES = {  # name → pairs of first and last character
    "d": "09", "w": "09AZ__az", "s": "\t\n\f\r  ",
    "alnum": "09AZaz", "alpha": "AZaz", "ascii": "\x00\x7f", "blank": "\t\t  ", "cntrl": "\x00\x1f\x7f\x7f",
    "digit": "09", "graph": "!~", "lower": "az", "print": " ~", "punct": "!/:@[`{~", "space": "\t\r  ",
    "upper": "AZ", "word": "09AZ__az", "xdigit": "09AFaf",
}  # fmt: skip
_CONTROLS = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_ASSERTIONS = {"A": r"\A", "z": r"\Z", "b": r"\b", "B": r"\B"}
_ESCAPE = re.compile(r"(0[0-7]{0,2}|[1-7][0-7]{1,2})|x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
_ANYWHERE = re.compile(r"\||\{[0-9]")
_REPEAT = re.compile(r"(0|[1-9][0-9]*)(?:,(0|[1-9][0-9]*)?)?\}")


def _set(ranges: Iterable[tuple[int, int]], negated: bool = False) -> str:
    return "[" + "^" * negated + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "]"


# ---- filepath.Match ----


def glob_match(pattern: bytes, name: bytes) -> bool:
    """Whether a name without slashes matches a shell pattern as a whole.

    Raises PatternError for a bracket or an escape that is not complete, but only if the name matches up to the
    star before it. (One known difference: a star that would have to end within a character does not.)
    """
    text, at = name.decode("utf-8", "surrogateescape"), 0
    chunks = [chunk for chunk in _CHUNK.findall(pattern) if any(chunk)]
    try:
        for number, (star, chunk) in enumerate(chunks, 1):
            found = _compiled(bool(star), chunk, number == len(chunks)).match(text, at)
            if found is None:
                return False
            at = found.end()
    except ValueError:
        raise PatternError(f"syntax error in pattern {runes(pattern)!r}") from None
    return at == len(text)


@lru_cache(maxsize=64)
def _compiled(star: bool, chunk: bytes, last: bool) -> re.Pattern[str]:
    text, at, parts = chunk.decode("utf-8", "surrogateescape"), 0, [".*?" * star]
    while at < len(text):
        char, at = text[at], at + 1
        if char == "[":
            negated = text.startswith("^", at)
            ranges, at = _glob_class(text, at + negated)
            parts.append(_set(ranges, negated))
        elif char == "?":
            parts.append(".")
        else:
            if char == "\\":
                if at == len(text):
                    raise ValueError(text)
                char, at = text[at], at + 1
            parts.append(re.escape(char))
    return re.compile("".join(parts) + r"\Z" * last, re.DOTALL)


def _glob_class(text: str, at: int) -> tuple[_Ranges, int]:
    """What stands between brackets, and the offset behind them."""
    ranges: _Ranges = []
    while not ranges or not text.startswith("]", at):
        ends: list[int] = []
        while len(ends) < 1 or (len(ends) < 2 and text.startswith("-", at)):
            at += len(ends)
            item = None if text.startswith(("-", "]"), at) else _ITEM.match(text, at)
            if item is None or item.end() == len(text):
                raise ValueError(text)
            ends.append(ord(item.group(1)))
            at = item.end()
        ranges.append((ends[0], ends[-1]))
    # A byte that is not UTF-8 counts as U+FFFD here too; a range that is upside down matches nothing.
    ranges += [(0xDC80, 0xDCFF) for low, high in ranges if low <= 0xFFFD <= high]
    return [(low, high) for low, high in ranges if low <= high] or [(0xD800, 0xD800)], at + 1


# ---- RE2 ----


def translate(expression: str) -> str:
    """The expression for Python's re.match that finds what Go's MatchString finds anywhere in a text.

    expression: as patterns.py builds it, so its groups and dots are known. Raises ValueError when Go refuses it.
    """
    return _Translator(expression).translate()


def _class_ranges(name: str, negated: bool) -> _Ranges:
    pairs = _CLASSES.get(name)
    if pairs is None:
        raise ValueError(f"unknown character class {name!r}")
    ranges = [(ord(low), ord(high)) for low, high in zip(pairs[::2], pairs[1::2])]
    if not negated:
        return ranges
    edges = [-1, *(edge for pair in ranges for edge in pair), 0x110000]
    return [(low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2]) if low + 1 < high]


class _Translator:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def translate(self) -> str:
        # With `|` or a count on its anchor the expression may begin to match anywhere.
        lead = "(?s:.*?)" if _ANYWHERE.search(self._text) else ""
        parts = [lead]
        while self._at < len(self._text):
            char = self._take()
            repeat = _REPEAT.match(self._text, self._at) if char == "{" else None
            if repeat:
                self._at = repeat.end()
                parts[-1] = _repeated(parts[-1], repeat)
            elif char == "[":
                parts.append(self._bracket())
            elif char == "\\":
                parts += self._escaped()
            elif char == "|":
                parts.append("|" + lead)
            elif char == "*" or (char == "?" and parts[-1] == ")"):
                parts[-1] += char
            else:
                parts.append({"^": r"\A", "$": r"\Z", "(": "(?:", ")": ")", ".": "."}.get(char) or re.escape(char))
        return "".join(parts)

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("missing closing ]")
        self._at += 1
        return self._text[self._at - 1]

    def _ahead(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _escaped(self) -> list[str]:
        """Parts for the escape at hand."""
        if self._text[self._at] in _ASSERTIONS:
            return [_ASSERTIONS[self._take()]]
        if self._ahead("Q"):
            literal, _end, rest = self._text[self._at + 1 :].partition("\\E")
            self._at = len(self._text) - len(rest)
            return [re.escape(char) for char in literal]
        named = self._named()
        return [re.escape(chr(self._code())) if named is None else _set(named)]

    def _named(self) -> Optional[_Ranges]:
        """Ranges of the class that the escape at hand stands for, or None when it stands for a character."""
        if self._text[self._at : self._at + 1].lower() not in tuple("dws"):
            return None
        char = self._take()
        return _class_ranges(char.lower(), char.isupper())

    def _code(self) -> int:
        """Code point of an escaped character."""
        number = _ESCAPE.match(self._text, self._at)
        if number:
            self._at = number.end()
            octal, short, long = number.groups()
            code = int(octal, 8) if octal else int(short or long, 16)
        else:
            char = self._take()
            code = _CONTROLS.get(char, ord(char) if char < "\x80" and not char.isalnum() else 0x110000)
        if code > 0x10FFFF:
            raise ValueError("an escape sequence that is invalid or not supported")
        return code

    def _char(self) -> int:
        char = self._take()
        return self._code() if char == "\\" else ord(char)

    def _bracket(self) -> str:
        negated = self._ahead("^")
        self._at += negated
        ranges: _Ranges = []
        while not ranges or not self._ahead("]"):
            ranges += self._item()
        self._at += 1
        return _set(ranges, negated)

    def _item(self) -> _Ranges:
        end = self._text.find(":]", self._at + 2) if self._ahead("[:") else -1
        if end >= 0:
            name, self._at = self._text[self._at + 2 : end], end + 2
            negated = name.startswith("^")
            return _class_ranges(name[negated:] if len(name) > 1 + negated else "", negated)
        if self._ahead("\\"):
            self._at += 1
            named = self._named()
            if named is not None:
                return named
            self._at -= 1
        low = high = self._char()
        if self._ahead("-") and not self._ahead("-]") and self._at + 1 < len(self._text):
            self._at += 1
            high = self._char()
        if high < low:
            raise ValueError("invalid range of characters")
        return [(low, high)]


def _repeated(atom: str, repeat: re.Match[str]) -> str:
    low, high = int(repeat.group(1)), int(repeat.group(2) or repeat.group(1))
    if low > high or high > 1000:
        raise ValueError("invalid repeat count")
    if atom.endswith(("*", "?", "}")) and atom[-2:-1] != "\\":
        raise ValueError("invalid nested repetition operator")
    if atom.startswith("|"):
        raise ValueError("missing argument to repetition operator")
    return f"(?:{atom}){{{repeat.group()}"
