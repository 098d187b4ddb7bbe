# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Include and exclude patterns of a build context, decided as the Go clients decide them (wire §4.3).

A file that is matched differently here is a secret in the image or a file that is missing from it, so the
corners are kept as well: patterns and paths are bytes, the plain kinds compare bytes, and only what needs a
regular expression sees characters, where a byte that is not UTF-8 counts as one U+FFFD.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError

_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_ODD = re.compile(r"[][\\^{|]")  # what a pattern of `*`, `?` and plain characters does not hold
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


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
    text = text[exception:]
    if b"[" in text or b"\\" in text:
        from .globs import glob_match

        glob_match(text, b".")  # only for the error that it raises; a mistake behind a mismatch is not seen, as in Go
    return _Pattern(text, exception)


def _scan(text: str) -> tuple[str, str]:
    """Kind of a pattern (exact, prefix, suffix, regex) and the expression that the Go matcher makes of it."""
    text = text[1:] if text.startswith("\ufeff") else text  # its scanner drops a BOM
    kind, parts, at = "exact", ["^"], 0
    while at < len(text):
        char, at = text[at], at + 1
        if char == "*" and text.startswith("*", at):
            first, at = at == 1, at + 1
            at += text.startswith("/", at)
            if at == len(text) and kind == "exact":
                kind = "prefix"
            else:
                parts.append("(.*/)?" if at < len(text) else ".*")
                kind = "regex"
            kind = "suffix" if first else kind
        elif char in "*?":
            parts.append("[^/]*" if char == "*" else "[^/]")
            kind = "regex"
        elif char in ".+()$":  # not `|` and `{`: its table of what is to be escaped is cut off at 64
            parts.append("\\" + char)
        else:
            escaped = text[at : at + 1] if char == "\\" else ""
            parts.append(char + escaped)
            at += len(escaped)
            kind = "regex" if char in "[]" or escaped else kind
    return kind, "".join([*parts, "$"])


def _for_python(text: str, expression: str) -> str:
    """The expression of a pattern for re.match. Raises ValueError when Go refuses it."""
    if _ODD.search(text) is None:
        return expression[:-1] + r"\Z"
    from .globs import translate

    return translate(expression)


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
                    expressions.append(_for_python(runes(text), expression))
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
    Raises PatternError for a malformed glob; what is only a malformed expression raises it in match(), when a
    path gets as far as that pattern, as there. Source: wire §4.3, patternmatcher 0.6.1.
    """

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._patterns = [parsed for parsed in map(_parse, patterns) if parsed is not None]
        runs: list[list[_Pattern]] = []
        for pattern in self._patterns:
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
        for text, exception in self._patterns:
            if exception == exceptions:
                base = text[:-3] if text.endswith(b"/**") else text
                base = base[:-2] if base.endswith(b"/*") else base
                if any(char in base for char in b"*[]?^\\"):
                    return None
                found.append(base + b"/")
        return tuple(found)
