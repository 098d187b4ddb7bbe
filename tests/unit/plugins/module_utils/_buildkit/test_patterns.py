# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.globs import glob_match
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.patterns import (
    Matcher,
    PatternError,
    clean,
    runes,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "patterns"
MATCH, GLOB = (json.loads((GOLDEN / name).read_text(encoding="utf-8"))["cases"] for name in ("match.json", "glob.json"))


def raw(text: str) -> bytes:
    return text.encode("latin-1")


def matches(matcher: Matcher, path: bytes) -> bool:
    """As a walk asks: each directory on the way first."""
    parts, state, matched = path.split(b"/"), 0, False
    for depth in range(1, len(parts) + 1):
        matched, state = matcher.match(b"/".join(parts[:depth]), state)
    return matched


def test_the_corpus_is_there() -> None:
    assert len(MATCH) > 400
    assert len(GLOB) > 200
    assert sum("error" in case for case in MATCH) > 20


@pytest.mark.parametrize("case", MATCH, ids=lambda case: " ".join(case["patterns"]).encode("unicode_escape").decode())
def test_same_answer_as_the_go_matcher(case: dict[str, Any]) -> None:
    patterns = [raw(pattern) for pattern in case["patterns"]]
    if "path" in case:
        matcher = Matcher(patterns)
        with pytest.raises(PatternError):
            matches(matcher, raw(case["path"]))
    elif "error" in case:
        with pytest.raises(PatternError):
            Matcher(patterns)
    else:
        matcher = Matcher(patterns)
        assert {path: matches(matcher, raw(path)) for path in case["matched"]} == case["matched"]


@pytest.mark.parametrize("case", GLOB, ids=lambda case: case["pattern"].encode("unicode_escape").decode())
def test_same_answer_as_filepath_match(case: dict[str, Any]) -> None:
    pattern = raw(case["pattern"])
    if "error" in case:
        with pytest.raises(PatternError):
            glob_match(pattern, raw(case["name"]))
    else:
        assert {name: glob_match(pattern, raw(name)) for name in case["matched"]} == case["matched"]


def test_an_error_names_the_pattern() -> None:
    with pytest.raises(PatternError, match=r'^illegal exclusion pattern: "!"$'):
        Matcher([b"a", b" ! "])
    with pytest.raises(PatternError, match=r"'docs/\*\[a-'"):
        Matcher([b"[a-z]", b"docs/*[a-"]).match(b"docs")
    with pytest.raises(PatternError, match=r"'\[z-a\]\*'.*range"):
        Matcher([b"[z-a]*"]).match(b"x")


def test_tables_of_unicode_are_refused_and_not_guessed() -> None:
    with pytest.raises(PatternError, match="not supported"):
        Matcher([rb"\pLx"]).match(b"x")


def test_an_exception_is_not_inherited_when_it_had_nothing_to_change() -> None:
    """wire §4.3: skipped patterns are recorded as "no match"."""
    matcher = Matcher([b"!a", b"a/b"])
    assert matcher.match(b"a") == (False, 0)
    assert matches(matcher, b"a/b")
    assert matches(matcher, b"a/b/c")


def test_the_later_pattern_wins_whoever_inherited_it() -> None:
    matcher = Matcher([b"a", b"!a/b", b"a/b/c"])
    assert [matches(matcher, path) for path in (b"a", b"a/b", b"a/b/x", b"a/b/c", b"a/b/c/d")] == [
        True,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([b"a", b"!b/c", b"!d/**", b"!e/*"], (b"b/c/", b"d/", b"e/")),
        ([b"a", b"!b/*.c"], None),
        ([b"a"], ()),
    ],
)
def test_where_exceptions_can_match(patterns: list[bytes], wanted: object) -> None:
    assert Matcher(patterns).bases(exceptions=True) == wanted


def test_clean_is_lexical() -> None:
    cases = {b"": b".", b"a//b/../c/": b"a/c", b"//a": b"/a", b"/..": b"/", b"../a": b"../a", b"./a/.": b"a"}
    assert {path: clean(path) for path in cases} == cases


def test_bytes_that_are_not_utf8_count_one_each() -> None:
    assert runes(b"\xe2\x82a\xff\xed\xa0\x80") == "\ufffd" * 2 + "a" + "\ufffd" * 4


def test_plain_patterns_do_not_load_the_rare_part() -> None:
    """Every module loaded is compiled in every run on the target."""
    code = (
        "import sys\n"
        "from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.patterns import Matcher\n"
        "Matcher([b'**/*.py?', b'!a.b/**', b'x**']).match(b'a')\n"
        "sys.exit(any(name.endswith('globs') for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
