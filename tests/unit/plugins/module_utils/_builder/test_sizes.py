# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CLI's own reader of sizes is the measure (tests/unit/golden/sizes)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import sizes
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

GOLDEN = Path(__file__).parents[3] / "golden" / "sizes"
READERS = {"memory": sizes.ram_in_bytes, "swap": sizes.swap_in_bytes}


def cases() -> list[tuple[Callable[[str], int], dict[str, Any]]]:
    return [
        (read, case)
        for name, read in READERS.items()
        for case in json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
    ]


@pytest.mark.parametrize(("read", "case"), cases())
def test_a_size_as_the_cli_reads_it(read: Callable[[str], int], case: dict[str, Any]) -> None:
    if "error" not in case:
        assert read(case["in"]) == case["out"]
        return
    with pytest.raises(ConfigError) as caught:
        read(case["in"])
    # Where the CLI shows an error of Go's number parser, ours names the option's value.
    go_only = case["error"].startswith("strconv.")
    assert str(caught.value) == (f"invalid size: '{case['in']}'" if go_only else case["error"])


@pytest.mark.parametrize("text", ["8192p", "9223372036854775808", "1e400"])
def test_more_than_64_bits_is_refused_where_the_cli_overflows(text: str) -> None:
    with pytest.raises(ConfigError, match="64 bits"):
        sizes.ram_in_bytes(text)


def test_no_limit_exists_for_swap_only() -> None:
    assert sizes.swap_in_bytes("-1") == -1
    with pytest.raises(ConfigError, match="invalid size: '-1'"):
        sizes.ram_in_bytes("-1")
