# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CLI's own shlex and pflag are the measure (tests/unit/golden/flags)."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import flags, toml
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

GOLDEN = Path(__file__).parents[3] / "golden" / "flags"
GRANT = "--allow-insecure-entitlement"
ADDED = f"{GRANT}=network.host"


def cases(name: str) -> list[dict[str, Any]]:
    return list(json.loads((GOLDEN / f"{name}.json").read_text())["cases"])


@pytest.mark.parametrize("case", cases("split"), ids=lambda case: repr(case["in"]))
def test_split_as_the_cli(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ConfigError) as caught:
            flags.split(case["in"])
        assert str(caught.value) == f"failed to parse buildkit flags: {case['error']}"
    else:
        assert flags.split(case["in"]) == case["out"]


@given(st.lists(st.text(min_size=0, max_size=8)))
@settings(deadline=None)
def test_words_that_were_quoted_come_back(words: list[str]) -> None:
    assert flags.split(shlex.join(words)) == words


@pytest.mark.parametrize("case", cases("entitlement"), ids=lambda case: f"{case['flags']} {case['network']}")
def test_entitlement_as_the_cli(case: dict[str, Any]) -> None:
    config = toml.loads(case["config"])
    assert flags.with_entitlement(case["flags"], network=case["network"], config=config) == case["out"]


@pytest.mark.parametrize(
    ("given_flags", "network", "config", "expected"),
    [
        (None, "", {}, [ADDED]),
        (None, "", {"insecure-entitlements": ["network.host"]}, None),
        (None, "host", {"insecure-entitlements": ["network.host"]}, [ADDED]),
        (["--debug"], "", {}, ["--debug", ADDED]),
        ([GRANT, "security.insecure"], "", {}, [GRANT, "security.insecure"]),
        ([GRANT, "security.insecure"], "host", {}, [GRANT, "security.insecure", ADDED]),
        (["--debug", GRANT, "security.insecure"], "", {}, ["--debug", GRANT, "security.insecure", ADDED]),
    ],
)
def test_the_rules_of_the_reference(given_flags: Any, network: str, config: dict[str, object], expected: Any) -> None:
    """Each row of the table of buildx.md §2.4, and its trap."""
    assert flags.with_entitlement(given_flags, network=network, config=config) == expected


def test_the_flags_that_were_given_stay_as_they_are() -> None:
    given_flags = ["--debug"]
    flags.with_entitlement(given_flags, network="")
    assert given_flags == ["--debug"]


@pytest.mark.parametrize("value", ["network.host", [1], {"a": 1}, True, ["network.host", None]])
def test_entitlements_of_another_type_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"insecure-entitlements .* not a list of strings"):
        flags.with_entitlement(None, config={"insecure-entitlements": value})
