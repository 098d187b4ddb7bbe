# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's and buildx's own readers are the measure (tests/unit/golden/platforms)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._platforms import Platform

GOLDEN = Path(__file__).parents[2] / "golden" / "platforms"
AMD64 = Platform("linux", "amd64")  # where the golden cases were made
REAL = [
    "linux/amd64",
    "linux/amd64/v2",
    "linux/arm64",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/386",
    "linux/s390x",
    "windows(1.2+x)/amd64",
]


def cases(name: str) -> list[dict[str, Any]]:
    return list(json.loads((GOLDEN / f"{name}.json").read_text())["cases"])


def parse_list(texts: list[str]) -> list[Platform]:
    return platforms.parse_list(texts, local=AMD64)


@pytest.mark.parametrize("case", cases("parse"), ids=lambda case: repr(case["in"]))
def test_a_specifier_as_containerd_reads_it(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ConfigError):
            platforms.parse(case["in"], local=AMD64)
        return
    expected = case["out"]
    parsed = platforms.parse(case["in"], local=AMD64)
    normalized = platforms.normalize(parsed)
    assert platforms.to_json(parsed) == expected["parsed"]
    assert platforms.to_json(normalized) == expected["normalized"]
    assert platforms.format(parsed) == expected["format"]
    assert platforms.format(normalized) == expected["key"]


@pytest.mark.parametrize("case", cases("list"), ids=lambda case: repr(case["fixed"]))
def test_a_list_as_buildx_reads_and_stores_it(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ConfigError):
            parse_list(case["fixed"])
        return
    expected = case["out"]
    listed = parse_list(case["fixed"])
    assert [platforms.format(platform) for platform in listed] == (expected["list"] or [])
    assert [platforms.format(platform) for platform in platforms.unique(listed)] == (expected["unique"] or [])
    assert [platforms.to_json(platform) for platform in listed] == (expected["json"] or [])


@pytest.mark.parametrize("case", cases("cell"))
def test_the_cell_of_the_table(case: dict[str, Any]) -> None:
    fixed, detected = parse_list(case["fixed"]), parse_list(case["found"])
    assert platforms.labels(fixed, detected) == case["out"]["labels"]
    assert platforms.cell(fixed, detected) == case["out"]["cell"]


def test_the_cell_of_a_long_list() -> None:
    """As observed with the real CLI (buildx.md §4.1)."""
    fixed = parse_list(
        [
            "linux/amd64,linux/amd64/v2,linux/arm64,linux/arm/v7,linux/arm/v6,linux/ppc64le",
            "linux/s390x,linux/386,linux/riscv64,linux/mips64,linux/mips64le,linux/loong64",
        ]
    )
    assert platforms.cell(fixed, []) == "linux/amd64* (+2), linux/arm64*, linux/arm* (+2), linux/ppc64le*, (6 more)"


def test_a_platform_that_no_specifier_says_is_only_counted() -> None:
    """A daemon may report anything, and a listing must not fail for it."""
    odd = Platform("linux", "a b")
    assert platforms.labels([], [AMD64, odd]) == ["linux/amd64", "linux/a b"]
    assert platforms.cell([], [AMD64, odd]) == "linux/amd64, (1 more)"


@given(st.lists(st.sampled_from(REAL)), st.lists(st.sampled_from(REAL)))
@settings(deadline=None)
def test_the_cell_tells_of_every_platform(fixed: list[str], detected: list[str]) -> None:
    """The numbers in the cell add up to the length of the list."""
    text = platforms.cell(parse_list(fixed), parse_list(detected))
    numbers = [re.search(r" ?\(\+?(\d+)(?: more)?\)$", item) for item in text.split(", ") if item]
    total = sum(int(number[1]) if number else 1 for number in numbers)
    assert total == len(set(fixed) | set(detected))


@given(st.sampled_from(REAL))
@settings(deadline=None)
def test_the_json_form_comes_back(text: str) -> None:
    platform = platforms.normalize(platforms.parse(text))
    assert platforms.from_json(platforms.to_json(platform)) == platform
    assert platforms.parse(platforms.format(platform)) in (platform, platform._replace(variant=""))


def test_null_missing_and_empty_are_the_same() -> None:
    full = {"os": "linux", "architecture": "amd64", "variant": None, "os.version": "", "os.features": None}
    assert platforms.from_json(full) == platforms.from_json({"os": "linux", "architecture": "amd64", "x": 1}) == AMD64
    assert platforms.format(platforms.from_json({})) == "unknown"


@pytest.mark.parametrize(
    "document",
    [{"os": 1}, {"os": "linux", "architecture": ["amd64"]}, {"os.features": "win32k"}, {"os.features": [1]}],
)
def test_a_json_form_with_other_types_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not a platform"):
        platforms.from_json(document)


@pytest.mark.parametrize(
    ("machine", "expected", "local"),
    [
        ("x86_64", "linux/amd64", "linux/amd64"),
        ("aarch64", "linux/arm64/v8", "linux/arm64"),
        ("armv7l", "linux/arm/v7", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6", "linux/arm/v6"),
        ("i686", "linux/386", "linux/386"),
        ("ppc64le", "linux/ppc64le", "linux/ppc64le"),
        ("s390x", "linux/s390x", "linux/s390x"),
        ("riscv64", "linux/riscv64", "linux/riscv64"),
        ("loongarch64", "linux/loong64", "linux/loong64"),
    ],
)
def test_this_host(monkeypatch: pytest.MonkeyPatch, machine: str, expected: str, local: str) -> None:
    monkeypatch.setattr(platforms.sys, "platform", "linux")
    monkeypatch.setattr(platforms.os, "uname", lambda: os.uname_result(("Linux", "h", "1", "1", machine)))
    assert platforms.format(platforms.host()) == expected
    assert [platforms.format(platform) for platform in platforms.parse_list(["local"])] == [local]


def test_a_single_word_is_completed_with_this_machine() -> None:
    armv6 = Platform("linux", "arm", "v6")
    assert platforms.parse("linux", local=armv6) == armv6
    assert platforms.parse("linux", local=Platform("linux", "arm", "v7")) == Platform("linux", "arm")
    assert platforms.parse("linux", local=Platform("linux", "arm64", "v8")) == Platform("linux", "arm64")
    assert platforms.parse("s390x", local=armv6) == Platform("linux", "s390x")
