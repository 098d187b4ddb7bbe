# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The flags that a buildkitd knows, read from its own help: one that it does not know stops it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

# Since 0.34 `   --addr string [ --addr string ]   listening …`, before `   --addr value   …`; `-v` behind a comma.
_LINE = re.compile(
    r"\s+(?P<names>--?[A-Za-z][^ ]*(?:, --?[A-Za-z][^ ]*)*)(?P<value> [a-z]+)?(?: \[.*?\])?(?:\s{2,}|\s*$)"
)
_VERSION = re.compile(r"^VERSION:\s+(\S+)", re.MULTILINE)
_TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False")
_HIDDEN = {"trace": "", "containerd-worker-platform": "string", "containerd-worker-namespace": "string"}
_HIDDEN.update({"containerd-worker-runtime": "string"})
ALWAYS = ("allow-insecure-entitlement", "debug", "config", "root", "addr")
"""Flags that every supported release has: nobody need be asked for them."""


@dataclass(frozen=True)
class Help:
    """What a daemon says of itself. flags: name → the type of its value, "" for a switch."""

    version: Optional[str]
    flags: Mapping[str, str]


def parse(text: str) -> Optional[Help]:
    """Read what `buildkitd --help` printed, None when it is no such help."""
    flags: dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found:
            for name in found["names"].split(", "):
                flags[name.lstrip("-")] = (found["value"] or "").strip()
    version = _VERSION.search(text)
    return Help(version[1] if version else None, flags) if "allow-insecure-entitlement" in flags else None


def need_help(words: Sequence[str]) -> bool:
    """Whether there is a flag that not every daemon has, or a word that is none."""
    known = {**dict.fromkeys(ALWAYS, "string"), "debug": ""}
    return any(_findings(words, known))


def findings(words: Sequence[str], known: Help) -> list[str]:
    """What of the arguments this daemon would refuse, or not hear."""
    return list(_findings(words, {**_HIDDEN, **known.flags}))


def _findings(words: Sequence[str], known: Mapping[str, str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            yield f"buildkitd_flags: {word!r} is no flag, and the daemon does not hear what stands behind it"
            return
        name, equals, value = word.lstrip("-").partition("=")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            yield f"buildkitd_flags: the daemon knows no flag {word.partition('=')[0]}" + (
                f"; did you mean --{close[0]}?" if close else ""
            )
            if not equals:
                return  # whether the next word is its value is not known
        elif known[name] and not equals:
            value = next(rest, "")
            if not value:
                yield f"buildkitd_flags: {word} needs a value"
        elif not known[name] and equals and value not in _TRUE_WORDS:
            yield f"buildkitd_flags: {name} is true or false, not {value!r}"
        if known.get(name) == "int" and value and not re.fullmatch(r"[+-]?[0-9]+", value):
            yield f"buildkitd_flags: {name} is a whole number, not {value!r}"
