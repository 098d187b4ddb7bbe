# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What buildx's own TOML library made of the same documents is the measure (tests/unit/golden/toml)."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import toml
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

GOLDEN = Path(__file__).parents[3] / "golden" / "toml"


def cases(name: str) -> list[dict[str, str]]:
    return list(json.loads((GOLDEN / f"{name}.json").read_text())["cases"])


ALL = [case for name in ("handwritten", "random", "buildkitd") for case in cases(name)]


@pytest.mark.parametrize("case", [case for case in ALL if "out" in case], ids=lambda case: repr(case["in"][:40]))
def test_a_document_is_stored_as_buildx_stores_it(case: dict[str, str]) -> None:
    assert toml.dumps(toml.loads(case["in"])) == case["out"]


@pytest.mark.parametrize("case", [case for case in ALL if "out" in case], ids=lambda case: repr(case["in"][:40]))
def test_what_is_stored_is_stored_the_same_again(case: dict[str, str]) -> None:
    assert toml.dumps(toml.loads(case["out"])) == case["out"]


@pytest.mark.parametrize("case", [case for case in ALL if "error" in case], ids=lambda case: repr(case["in"][:40]))
def test_a_document_that_buildx_refuses_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"toml: line \d+: "):
        toml.loads(case["in"])


def test_the_golden_documents_are_many_and_of_both_kinds() -> None:
    assert len(ALL) > 300
    assert 100 < sum("error" in case for case in ALL) < len(ALL) - 150


WORDS = [
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "a",
    "b",
    "'a'",
    '"b"',
    "1",
    "1.5",
    "true",
    "\n",
    "# c",
    '"""',
    " ",
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    "'\"\\\n\r\t\x00\x1f\x7f aé#", max_size=6
)
moments = (
    st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))))
)
scalars = texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | moments
values = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=12,
)
documents = st.dictionaries(texts | st.sampled_from("abc"), values, max_size=5)


@given(documents)
@settings(deadline=None)
def test_what_was_written_reads_back_equal(document: dict[str, Any]) -> None:
    assert toml.loads(toml.dumps(document)) == document


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python has no tomllib")
@given(documents)
@settings(deadline=None)
def test_tomllib_reads_the_same(document: dict[str, Any]) -> None:
    import tomllib

    assert tomllib.loads(toml.dumps(document)) == document


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python has no tomllib")
@given(st.lists(st.sampled_from(WORDS), max_size=12))
@settings(deadline=None)
def test_what_both_accept_means_the_same(words: list[str]) -> None:
    import tomllib

    text = "".join(words)
    try:
        ours = toml.loads(text)
        theirs = tomllib.loads(text)
    except (ConfigError, tomllib.TOMLDecodeError):
        return  # who accepts what differs in known places: TOML 1.1 and the limits of Go
    assert ours == theirs


@given(
    st.text(max_size=40) | st.lists(st.sampled_from(list("[]{}=,.'\"\\\n\r\t #a0-:TZ_+e")), max_size=20).map("".join)
)
@settings(deadline=None)
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    with contextlib.suppress(ConfigError):
        toml.loads(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = ", 1), ("a = 1\na = 2", 2), ("\n\n\n[a", 4), ("a = [\n1,\n2", 3), ("a = 1\r\nb = 'x\r\n", 2), ('"""', 1)],
)
def test_an_error_names_the_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"^failed to parse config: toml: line {line}: "):
        toml.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "a = " + "{a = " * 5000,
        "[" + ".".join("a" * 5000) + "]",
        ".".join("a" * 5000) + " = 1",
    ],
)
def test_depth_has_a_limit_of_our_own(text: str) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        toml.loads(text)


@pytest.mark.parametrize("unit", ["'", '"', '"""', "'''", '"\\', "1", "1_", "[", " ", "#", "a.", "\n", '"""x"'])
def test_a_megabyte_of_nonsense_is_read_in_time_proportional_to_it(unit: str) -> None:
    """One bad line must not cost minutes; the run's own timeout is the measure."""
    text = "a = " + unit * (1_000_000 // len(unit))
    with pytest.raises(ConfigError):
        toml.loads(text)


def test_the_year_0_is_refused_though_go_has_one() -> None:
    with pytest.raises(ConfigError, match="year 0"):
        toml.loads("a = 0000-01-01")


def test_loaded_moments_are_ordinary_datetimes() -> None:
    document = toml.loads("a = 1979-05-27T07:32:00.5Z\nb = 1979-05-27 07:32:00\nc = 1979-05-27\nd = 07:32:00.500")
    assert document == {
        "a": datetime(1979, 5, 27, 7, 32, 0, 500000, timezone.utc),
        "b": datetime(1979, 5, 27, 7, 32),
        "c": date(1979, 5, 27),
        "d": time(7, 32, 0, 500000),
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), "nan"),
        (-float("nan"), "nan"),
        (math.inf, "inf"),
        (-0.0, "-0.0"),
        (1e22, "10000000000000000000000.0"),
        (1e-7, "0.0000001"),
        (datetime(1979, 5, 27, 7, 32, 0, 120000, timezone.utc), "1979-05-27T07:32:00.12Z"),
        (datetime(5, 1, 2), "0005-01-02T00:00:00"),
        ((1, "a"), "[1, 'a']"),
        (({"a": 1}, 2), "[{a = 1}, 2]"),
    ],
)
def test_values_that_come_from_elsewhere(value: object, written: str) -> None:
    assert toml.dumps({"a": value}) == f"a = {written}\n"


def test_a_key_without_a_value_is_left_out() -> None:
    assert toml.dumps({"a": None, "b": {"c": None}}) == "[b]\n"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({5000: 1}, "a key of a TOML table is a string, not 5000"),
        ({"a": {None: 1}}, "is a string, not None"),
        ({"a": [{1: 1}, 1]}, "is a string, not 1"),
        ({"a": [None]}, "TOML has no value for None"),
        ({"a": b"x"}, "TOML has no value for b'x'"),
        ({"a": 2**63}, "64 bits"),
        ({"a": -(2**63) - 1}, "64 bits"),
        ({"a": "\udc80"}, "UTF-8"),
        ({"\udc80": 1}, "UTF-8"),
    ],
)
def test_what_toml_cannot_say(document: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toml.dumps(document)
