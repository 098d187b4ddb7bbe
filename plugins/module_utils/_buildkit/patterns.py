# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Include and exclude patterns of a build context, decided as the Go clients decide them (wire §4.3).

A file that is matched differently here is a secret in the image or a file that is missing from it, so the
corners are kept as well: patterns are bytes, the plain kinds compare bytes, and only what needs a regular
expression sees characters, where a byte that is not UTF-8 counts as one U+FFFD.

Not supported, and refused by name: `\\p`, `\\P` and `\\Q` (Unicode tables and quoting of RE2).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Optional, Union

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError


class PatternError(BuildkitError):
    """A pattern cannot be used; the message names it."""

    kind = "pattern"


def clean(path: bytes) -> bytes:
    """Shortest lexical form of a path; an empty one becomes `.`, and `/..` is `/`."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith(b"//") else cleaned  # POSIX lets a double slash stand, Go does not


def runes(raw: bytes) -> str:
    """The text that Go's regular expressions see: each byte that is not UTF-8 is one U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _NOT_UTF8.sub("\ufffd", raw.decode("utf-8", "surrogateescape"))


_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


# ---- globs: one component of a path, as filepath.Match sees it ----


class _Class(NamedTuple):
    negated: bool
    ranges: list[tuple[int, int]]


_Token = Union[int, None, _Class]  # a byte, `?`, a class


class _Chunk(NamedTuple):
    star: bool  # preceded by `*`
    tokens: list[_Token]


def _rune(raw: bytes, at: int) -> tuple[int, int]:
    """Code point at an offset and its size in bytes; a byte that starts none is (0xfffd, 1)."""
    lead = raw[at]
    size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    try:
        return ord(raw[at : at + size].decode()), size
    except UnicodeDecodeError:
        return 0xFFFD, 1


def _class_char(pattern: bytes, at: int) -> tuple[int, int]:
    """One end of a range inside brackets, and the offset behind it."""
    if pattern[at : at + 1] in (b"", b"-", b"]"):
        raise PatternError(f"syntax error in pattern {runes(pattern)!r}")
    at += pattern[at] == 0x5C
    code, size = _rune(pattern, at) if at < len(pattern) else (0xFFFD, 1)
    if (code, size) == (0xFFFD, 1) or at + size >= len(pattern):
        raise PatternError(f"syntax error in pattern {runes(pattern)!r}")
    return code, at + size


def parse_glob(pattern: bytes) -> list[_Chunk]:
    """Split a shell pattern at its stars. Raises PatternError when a bracket or an escape is not complete."""
    chunks, at = [_Chunk(False, [])], 0
    while at < len(pattern):
        byte, at = pattern[at], at + 1
        tokens = chunks[-1].tokens
        if byte == 0x2A:
            if tokens or not chunks[-1].star:
                chunks.append(_Chunk(True, []))
        elif byte == 0x3F:
            tokens.append(None)
        elif byte == 0x5B:
            negated = pattern[at : at + 1] == b"^"
            at += negated
            ranges: list[tuple[int, int]] = []
            while not ranges or pattern[at] != 0x5D:
                low, at = _class_char(pattern, at)
                high = low
                if pattern[at] == 0x2D:
                    high, at = _class_char(pattern, at + 1)
                ranges.append((low, high))
            at += 1
            tokens.append(_Class(negated, ranges))
        else:
            if byte == 0x5C:
                if at == len(pattern):
                    raise PatternError(f"syntax error in pattern {runes(pattern)!r}")
                byte, at = pattern[at], at + 1
            tokens.append(byte)
    return chunks


def _consume(tokens: Sequence[_Token], name: bytes, at: int) -> int:
    """Offset behind what the tokens match at an offset, or -1."""
    for token in tokens:
        if at >= len(name):
            return -1
        if isinstance(token, int):
            if name[at] != token:
                return -1
            at += 1
            continue
        code, size = _rune(name, at)
        if token is not None and any(low <= code <= high for low, high in token.ranges) == token.negated:
            return -1
        at += size
    return at


def glob_match(chunks: Sequence[_Chunk], name: bytes) -> bool:
    """Whether a name without slashes matches a parsed pattern as a whole."""
    at = 0
    for index, (star, tokens) in enumerate(chunks):
        last = index == len(chunks) - 1
        if star and not tokens:
            return True
        for start in range(at, len(name) + 1 if star else at + 1):  # a star skips bytes, not characters
            end = _consume(tokens, name, start)
            if end >= 0 and (end == len(name) or not last):
                at = end
                break
        else:
            return False
    return at == len(name)


# ---- regular expressions: from RE2's syntax to Python's ----

_CLASSES = {  # name → pairs of first and last character
    "d": "09", "w": "09AZ__az", "s": "\t\n\f\r  ",
    "alnum": "09AZaz", "alpha": "AZaz", "ascii": "\x00\x7f", "blank": "\t\t  ", "cntrl": "\x00\x1f\x7f\x7f",
    "digit": "09", "graph": "!~", "lower": "az", "print": " ~", "punct": "!/:@[`{~", "space": "\t\r  ",
    "upper": "AZ", "word": "09AZ__az", "xdigit": "09AFaf",
}  # fmt: skip
_CONTROLS = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_PLAIN = {"^": r"\A", "$": r"\Z", "(": "(?:", ")": ")", "?": "?", "*": "*", ".": "."}
_ASSERTIONS = {"A": r"\A", "z": r"\Z", "b": r"\b", "B": r"\B"}


def _class_ranges(name: str, negated: bool) -> list[tuple[int, int]]:
    pairs = _CLASSES.get(name)
    if pairs is None:
        raise ValueError(f"unknown character class {name!r}")
    ranges = [(ord(low), ord(high)) for low, high in zip(pairs[::2], pairs[1::2])]
    if not negated:
        return ranges
    edges = [-1, *(edge for pair in ranges for edge in pair), 0x110000]
    return [(low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2]) if low + 1 < high]


def _set(ranges: Iterable[tuple[int, int]], negated: bool = False) -> str:
    return "[" + "^" * negated + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "]"


class _Translator:
    """Rewrites one expression that the scanner below has made; ValueError when RE2 would refuse it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def translate(self) -> str:
        parts = []
        while self._at < len(self._text):
            char = self._take()
            if char == "[":
                parts.append(self._bracket())
            elif char == "\\":
                parts.append(self._escape())
            else:
                parts.append(_PLAIN.get(char) or re.escape(char))
        return "".join(parts)

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("missing closing ]")
        self._at += 1
        return self._text[self._at - 1]

    def _ahead(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _escape(self) -> str:
        if self._text[self._at] in _ASSERTIONS:
            return _ASSERTIONS[self._take()]
        named = self._named()
        return re.escape(chr(self._code())) if named is None else _set(named)

    def _named(self) -> Optional[list[tuple[int, int]]]:
        """Ranges of the class that the escape at hand stands for, or None when it stands for a character."""
        if self._text[self._at].lower() not in "dws":
            return None
        char = self._take()
        return _class_ranges(char.lower(), char.isupper())

    def _code(self) -> int:
        """Code point of an escaped character."""
        char = self._take()
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char < "\x80" and not char.isalnum():
            return ord(char)
        digits = re.compile("[0-7]{1,3}" if char == "0" else "[1-7][0-7]{1,2}").match(self._text, self._at - 1)
        if digits:
            self._at = digits.end()
            return int(digits.group(), 8)
        digits = re.compile("x([0-9A-Fa-f]{2})").match(self._text, self._at - 1)
        if not digits:
            raise ValueError(f"escape sequence \\{char} is invalid or not supported")
        self._at = digits.end()
        return int(digits.group(1), 16)

    def _char(self) -> int:
        char = self._take()
        return self._code() if char == "\\" else ord(char)

    def _bracket(self) -> str:
        negated = self._ahead("^")
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while not ranges or not self._ahead("]"):
            ranges += self._item()
        self._at += 1
        return _set(ranges, negated)

    def _item(self) -> list[tuple[int, int]]:
        end = self._text.find(":]", self._at + 2) if self._ahead("[:") else -1
        if end >= 0:
            name, self._at = self._text[self._at + 2 : end], end + 2
            return _class_ranges(name.lstrip("^") if len(name) > 2 else "", name.startswith("^"))
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


# ---- patterns ----


class _Pattern(NamedTuple):
    text: bytes  # cleaned, without the sign
    exception: bool


def _parse(pattern: bytes) -> Optional[_Pattern]:
    text = pattern.decode("utf-8", "surrogateescape").strip(_SPACE).encode("utf-8", "surrogateescape")
    if not text:
        return None
    text = clean(text)
    if text == b"!":
        raise PatternError('illegal exclusion pattern: "!"')
    exception = text.startswith(b"!")
    parse_glob(text[exception:])  # refuses what is not a glob
    return _Pattern(text[exception:], exception)


def _scan(text: str) -> tuple[str, str]:
    """Kind of a pattern (exact, prefix, suffix, regex) and its expression in RE2's syntax."""
    text = text[1:] if text.startswith("\ufeff") else text  # the scanner of the Go clients drops a BOM
    kind, parts, at = "exact", ["^"], 0
    while at < len(text):
        char, at = text[at], at + 1
        if char == "*" and text.startswith("*", at):
            first, at = at == 1, at + 1
            at += text.startswith("/", at)
            if at < len(text):
                parts.append("(.*/)?")
                kind = "regex"
            elif kind == "exact":
                kind = "prefix"
            else:
                parts.append(".*")
                kind = "regex"
            kind = "suffix" if first else kind
        elif char in "*?":
            parts.append("[^/]*" if char == "*" else "[^/]")
            kind = "regex"
        elif char in ".+()|{}$":
            parts.append("\\" + char)
        elif char == "\\":
            parts.append(char + text[at : at + 1])
            at += 1
            kind = "regex"
        else:
            parts.append(char)
            kind = "regex" if char in "[]" else kind
    return kind, "".join([*parts, "$"])


class _Run:
    """Neighbouring patterns of one sign. They answer, and are inherited, like one pattern (see Matcher)."""

    def __init__(self, patterns: Iterable[_Pattern]) -> None:
        self._exact: set[bytes] = set()
        self._error = ""
        prefixes, suffixes, expressions = [], [], []
        for text, _exception in patterns:
            kind, expression = _scan(runes(text))
            if kind == "exact":
                self._exact.add(text)
            elif kind == "prefix":
                prefixes.append(text[:-2])
            elif kind == "suffix":
                suffixes.append(text[2:])
                if text[2:3] == b"/":
                    self._exact.add(text[3:])
            else:
                try:
                    expressions.append(_Translator(expression).translate())
                except ValueError as error:
                    self._error = f"syntax error in pattern {runes(text)!r}: {error}"
                    break  # whoever gets as far as this pattern fails
        self._prefixes, self._suffixes = tuple(prefixes), tuple(suffixes)
        self._search: Optional[Callable[[str], object]] = None
        if expressions:
            self._search = re.compile("|".join(f"(?:{part})" for part in expressions), re.ASCII).match

    def test(self, path: bytes) -> bool:
        if path in self._exact or path.endswith(self._suffixes) or path.startswith(self._prefixes):
            return True
        if self._search is not None and self._search(runes(path)) is not None:
            return True
        if self._error:
            raise PatternError(self._error)
        return False


class Matcher:
    """An ordered list of patterns; a later one overrules an earlier one, `!` turns its meaning around.

    Of a run of patterns with one sign only the first match is looked for and inherited. That is the Go rule
    ("skip what cannot change the state, and record no match for it"), as all of them set the same state.
    Raises PatternError for a malformed pattern; what is only a malformed expression raises it when a path gets
    as far as that pattern, as there. Source: wire §4.3.
    """

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self.patterns = [parsed for parsed in map(_parse, patterns) if parsed is not None]
        runs: list[list[_Pattern]] = []
        for pattern in self.patterns:
            if not runs or runs[-1][0].exception != pattern.exception:
                runs.append([])
            runs[-1].append(pattern)
        self._runs = [(1 << at, run[0].exception, _Run(run).test) for at, run in enumerate(runs)]

    def match(self, path: bytes, parent: int = 0) -> tuple[bool, int]:
        """Whether a path matches, and what its children are to be given as `parent` (0 at the top)."""
        matched, state = False, 0
        for bit, exception, test in self._runs:
            if parent & bit or (exception == matched and test(path)):
                state |= bit
                matched = not exception
        return matched, state

    def bases(self, exceptions: bool) -> Optional[tuple[bytes, ...]]:
        """Directories, with a slash behind, that hold all the patterns of one sign can match; None: anywhere."""
        found = []
        for text, exception in self.patterns:
            if exception == exceptions:
                base = text[:-3] if text.endswith(b"/**") else text
                base = base[:-2] if base.endswith(b"/*") else base
                if any(char in base for char in b"*[]?^\\"):
                    return None
                found.append(base + b"/")
        return tuple(found)
