# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""buildkitd.toml, read and written as buildx does (buildx.md §2.6).

`create` parses the file into a plain document and stores what its TOML library makes of that document again:
comments lost, keys sorted, literal strings where possible. dumps() writes the same bytes, so that a builder made
here and one made by the CLI have equal entries in the store. loads() is there because the targets' Python may be
older than tomllib. It reads TOML 1.0 and what 1.1 added (line breaks and a last comma in inline tables, times
without seconds, `e` and `x` escapes), because the CLI does; what dumps() writes is TOML 1.0.

Values are str, bool, int (64 bits), float, list, dict and the datetime types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, NoReturn, Optional, Union, cast

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

_MAX_DEPTH = 100  # of arrays and inline tables, far below Python's own limit
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1

_CONTROL = r"\x00-\x08\x0b-\x1f\x7f"  # never literal; tab is, and newline where a string has lines
_COMMENT = rf"#[^\n{_CONTROL}]*"
_DIGITS = "[0-9](?:_?[0-9])*"
_INTEGER = "[+-]?(?:0|[1-9](?:_?[0-9])*)"
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?"

_SPACE = re.compile(r"[ \t]*")
_LINE_END = re.compile(rf"[ \t]*(?:{_COMMENT})?(?:\r?\n|\Z)")
_BLANK = re.compile(rf"(?:[ \t]|\r?\n|{_COMMENT}(?=\r?\n|\Z))*")
_BARE_KEY = re.compile("[A-Za-z0-9_-]+")
_LINES = re.compile(
    rf'"""(?:\r?\n)?(?P<basic>(?:[^"\\{_CONTROL}]|\r\n|\\(?:\r\n|[^{_CONTROL}])|""?(?!"))*"{{0,2}})"""'
    rf"|'''(?:\r?\n)?(?P<literal>(?:[^'{_CONTROL}]|\r\n|''?(?!'))*'{{0,2}})'''"
)
_STRING = re.compile(rf'"(?P<basic>(?:[^"\\\n{_CONTROL}]|\\[^\n{_CONTROL}])*)"|' rf"'(?P<literal>[^'\n{_CONTROL}]*)'")
_ESCAPE = re.compile(
    r"\\(?:(?P<code>x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})|(?P<line>[ \t]*\r?\n[ \t\r\n]*)|(?P<char>.?))"
)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}
_ESCAPES = {char: "\\" + letter for letter, char in _ESCAPED.items() if letter != "e"}  # which older readers lack
_NOT_LITERAL = re.compile(r"['\x00-\x1f\x7f]")
_NOT_BASIC = re.compile(r'["\\\x00-\x1f\x7f]')
_SCALAR = re.compile(
    r"(?:(?P<bool>true|false)"
    r"|(?P<based>0x[0-9A-Fa-f](?:_?[0-9A-Fa-f])*|0o[0-7](?:_?[0-7])*|0b[01](?:_?[01])*)"
    rf"|(?P<float>[+-]?(?:inf|nan)|{_INTEGER}(?:\.{_DIGITS})?[eE][+-]?{_DIGITS}|{_INTEGER}\.{_DIGITS})"
    rf"|(?P<integer>{_INTEGER})"
    rf"|(?P<date>{_DATE})(?:[Tt ](?P<at>{_TIME})(?P<zone>[Zz]|[+-][0-9]{{2}}:[0-9]{{2}})?)?"
    rf"|(?P<time>{_TIME}))"
    r"(?=[ \t\r\n,\]}#]|\Z)"
)

# How a table came to be decides who may still add to it.
_IMPLICIT = "implicit"  # as the parent of a [header]: its own header may follow
_HEADER = "header"  # by its [header]: that was the only one
_DOTTED = "dotted"  # by a dotted key: more dotted keys, and headers of tables below
_CLOSED = "closed"  # inline: complete as it stands


class _DateTime(datetime):
    """A datetime with Go's spelling: Python has no nanoseconds and forgets the zeros at the end of a fraction."""

    written = ""


class _Time(time):
    """A time with Go's spelling."""

    written = ""


def loads(text: str) -> dict[str, Any]:
    """The document. Raises ConfigError with the number of the line for everything that buildx refuses to read."""
    return _Reader(text).document()


class _Reader:
    """One pass over the text; `_position` is where the next word starts."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0
        self._root: dict[str, Any] = {}
        # Tables and arrays are plain dicts and lists from the start; what else is known of them stands here, by id.
        self._origin = {id(self._root): _HEADER}
        self._arrays_of_tables: set[int] = set()

    def document(self) -> dict[str, Any]:
        table = self._root
        while self._position < len(self._text):
            self._match(_SPACE)
            if self._peek() == "[":
                table = self._header()
            elif self._peek() not in "#\r\n":
                self._key_value(table)
            if not self._match(_LINE_END):
                self._fail("the line should end here")
        return self._root

    # Words

    def _match(self, pattern: re.Pattern[str]) -> Optional[re.Match[str]]:
        match = pattern.match(self._text, self._position)
        if match:
            self._position = match.end()
        return match

    def _peek(self) -> str:
        """The next character; a newline at the end of the text."""
        return self._text[self._position : self._position + 1] or "\n"

    def _take(self, word: str) -> bool:
        found = self._text.startswith(word, self._position)
        self._position += len(word) * found
        return found

    def _expect(self, word: str) -> None:
        if not self._take(word):
            self._fail(f"{word} is expected")

    def _fail(self, reason: str) -> NoReturn:
        line = self._text.count("\n", 0, self._position) + 1
        raise ConfigError(f"failed to parse config: toml: line {line}: {reason}")

    # Tables

    def _header(self) -> dict[str, Any]:
        array = self._take("[[")
        if not array:
            self._expect("[")
        *parents, last = self._key()
        self._expect("]]" if array else "]")
        table = self._root
        for part in parents:
            table = self._below(table, part)
        return self._append(table, last) if array else self._open(table, last)

    def _below(self, table: dict[str, Any], part: str) -> dict[str, Any]:
        """The table that a header passes through: of an array of tables, the last one."""
        child: Any = table[part] if part in table else self._new_table(table, part, _IMPLICIT)
        if id(child) in self._arrays_of_tables:
            child = child[-1]
        if self._origin.get(id(child), _CLOSED) == _CLOSED:
            self._fail(f"{part} cannot be extended")
        return cast("dict[str, Any]", child)

    def _open(self, table: dict[str, Any], last: str) -> dict[str, Any]:
        if last not in table:
            return self._new_table(table, last, _HEADER)
        child = cast("dict[str, Any]", table[last])
        if self._origin.get(id(child)) != _IMPLICIT:
            self._fail(f"{last} is defined twice")
        self._origin[id(child)] = _HEADER
        return child

    def _append(self, table: dict[str, Any], last: str) -> dict[str, Any]:
        if last not in table:
            table[last] = []
            self._arrays_of_tables.add(id(table[last]))
        elif id(table[last]) not in self._arrays_of_tables:
            self._fail(f"{last} is defined twice")
        child: dict[str, Any] = {}
        table[last].append(child)
        self._origin[id(child)] = _HEADER
        return child

    def _new_table(self, table: dict[str, Any], key: str, origin: str) -> dict[str, Any]:
        child: dict[str, Any] = {}
        table[key] = child
        self._origin[id(child)] = origin
        return child

    # Keys and values

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._match(_SPACE)
            match = self._match(_BARE_KEY)
            parts.append(match[0] if match else self._quoted(_STRING, "a key is expected"))
            self._match(_SPACE)
            if not self._take("."):
                return parts
            if len(parts) == _MAX_DEPTH:
                self._fail("tables are nested too deeply")

    def _key_value(self, table: dict[str, Any]) -> None:
        *parents, last = self._key()
        self._expect("=")
        self._match(_SPACE)
        for part in parents:
            child = table[part] if part in table else self._new_table(table, part, _DOTTED)
            if self._origin.get(id(child)) != _DOTTED:
                self._fail(f"{part} cannot be extended")
            table = child
        if last in table:
            self._fail(f"{last} is defined twice")
        table[last] = self._value()

    def _value(self) -> Any:
        first = self._peek()
        if first in "\"'":
            pattern = _LINES if self._text.startswith(first * 3, self._position) else _STRING
            return self._quoted(pattern, "the string has no end, or a control character that should be escaped")
        if first not in "[{":
            return self._scalar()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail("arrays and tables are nested too deeply")
        value: Any = self._array() if first == "[" else self._inline_table()
        self._depth -= 1
        return value

    def _array(self) -> list[Any]:
        return [self._value() for _item in self._items("[", "]")]

    def _inline_table(self) -> dict[str, Any]:
        table: dict[str, Any] = {}
        self._origin[id(table)] = _HEADER
        for _item in self._items("{", "}"):
            self._key_value(table)
        self._origin[id(table)] = _CLOSED
        return table

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        """Stops before each item, and behind the closing bracket."""
        self._expect(opening)
        self._match(_BLANK)
        while not self._take(closing):
            yield
            self._match(_BLANK)
            if not self._take(","):
                self._expect(closing)
                return
            self._match(_BLANK)

    def _quoted(self, pattern: re.Pattern[str], reason: str) -> str:
        match = self._match(pattern)
        if match is None:
            self._fail(reason)
        if match["basic"] is None:
            return match["literal"]
        return _ESCAPE.sub(self._unescape, match["basic"])

    def _unescape(self, match: re.Match[str]) -> str:
        if match["line"]:
            return ""
        if not match["code"]:
            return _ESCAPED.get(match["char"]) or self._fail(f"unknown escape {match[0]}")
        point = int(match["code"][1:], 16)
        if 0xD800 <= point < 0xE000 or point > 0x10FFFF:
            self._fail(f"no character has the code of {match[0]}")
        return chr(point)

    def _scalar(self) -> Union[bool, int, float, date, time]:
        match = self._match(_SCALAR)
        if match is None:
            self._fail("a value is expected")
        try:
            if match["bool"]:
                return match["bool"] == "true"
            if match["based"] or match["integer"]:
                return _checked_integer(int(match[0], 0 if match["based"] else 10))
            return _float(match["float"]) if match["float"] else _moment(match)
        except ValueError as error:
            self._fail(f"{match[0]}: {error}")


def _checked_integer(number: int) -> int:
    if not _MIN_INTEGER <= number <= _MAX_INTEGER:
        raise ValueError("integers have at most 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number) and "inf" not in text:
        raise ValueError("too large for a float")
    return number


def _moment(match: re.Match[str]) -> Union[date, time]:
    """A date, a time, or both; ValueError when there is no such moment."""
    day = date(*map(int, match["date"].split("-"))) if match["date"] else None
    clock = match["at"] or match["time"]
    if clock is None and day:
        return day
    clock, _dot, fraction = clock.partition(".")
    hour, minute, second = [*map(int, clock.split(":")), 0][:3]
    at = _Time(hour, minute, second, int(fraction[:6].ljust(6, "0")))
    moment = _DateTime.combine(day, at, _zone(match["zone"])) if day else at
    # Of an offset date-time Go keeps the instant, of the local kinds how exactly they were written.
    moment.written = _spell(moment, fraction[:9].rstrip("0") if match["zone"] else fraction[:9])
    return moment


def _zone(text: Optional[str]) -> Optional[timezone]:
    if text is None or text in "Zz":
        return timezone.utc if text else None
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError("no such time zone")
    return timezone(timedelta(hours=hours, minutes=minutes) * (-1 if text[0] == "-" else 1))


def _spell(moment: Union[datetime, time], fraction: str) -> str:
    clock = f"{moment:%H:%M:%S}" + ("." + fraction if fraction else "")
    if not isinstance(moment, datetime):
        return clock
    offset = moment.utcoffset()
    zone = "" if offset is None else moment.isoformat()[-6:] if offset else "Z"
    return f"{moment.date()}T{clock}{zone}"


def dumps(document: Mapping[str, Any]) -> str:
    """The document as buildx stores it. Raises ConfigError for what TOML cannot say.

    None in a table is a key that is not there; tuples are lists.
    """
    text: list[str] = []
    after_header = True  # headers that follow each other stand close, all others after an empty line
    for line in _lines(document, ()):
        is_header = line.startswith("[")
        text += ["\n", line] if is_header and not after_header else [line]
        after_header = is_header
    return "".join(text)


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table: first what has a value, then the tables below it, both in order of the keys."""
    entries = _entries(table)
    tables = {key: _tables(value) for key, value in entries}
    for key, value in entries:
        if not tables[key]:
            yield f"{_spell_key(key)} = {_spell_value(value)}\n"
    for key, value in entries:
        below = (*path, key)
        header = ".".join(map(_spell_key, below))
        for item in tables[key]:
            yield f"[{header}]\n" if item is value else f"[[{header}]]\n"
            yield from _lines(item, below)


def _entries(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    for key in table:
        if not isinstance(key, str):
            raise ConfigError(f"a key of a TOML table is a string, not {key!r}")
    return [(key, table[key]) for key in sorted(table) if table[key] is not None]


def _tables(value: Any) -> Sequence[Mapping[str, Any]]:
    """The tables that get a header of their own: the value itself, or the items of a list that has nothing else."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value):
        return value
    return ()


def _spell_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _spell_text(key)


def _spell_value(value: Any) -> str:  # noqa: PLR0911 - one return for each type
    if isinstance(value, str):
        return _spell_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not _MIN_INTEGER <= value <= _MAX_INTEGER:
            raise ConfigError(f"{value} has more than the 64 bits of a TOML integer")
        return str(value)
    if isinstance(value, float):
        return _spell_float(value)
    if isinstance(value, (datetime, time)):
        return getattr(value, "written", "") or _spell(value, f"{value.microsecond:06d}".rstrip("0"))
    if isinstance(value, date):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_spell_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_spell_key(key)} = {_spell_value(item)}' for key, item in _entries(value))}}}"
    raise ConfigError(f"TOML has no value for {value!r}")


def _spell_float(number: float) -> str:
    """The shortest digits that read back as the same number, never with an exponent."""
    if math.isnan(number):
        return "nan"
    digits = repr(number)
    if "e" not in digits:
        return digits
    from decimal import Decimal

    digits = f"{Decimal(digits):f}"
    return digits if "." in digits else digits + ".0"


def _spell_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"not a text that can be written as UTF-8: {text!r}") from error
    if not _NOT_LITERAL.search(text):
        return f"'{text}'"
    return '"' + _NOT_BASIC.sub(lambda match: _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04X}", text) + '"'
