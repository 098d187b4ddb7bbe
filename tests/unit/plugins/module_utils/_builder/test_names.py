# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import names
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


@pytest.mark.parametrize("name", ["a", "A0", "RSX-Case", "a.b_c-d", "z" * 200, "default0"])
def test_names_are_stored_in_lower_case(name: str) -> None:
    assert names.normalize(name) == names.normalize_builder(name) == name.lower()


@pytest.mark.parametrize("name", ["", "0a", "-a", "_a", ".a", "a b", "a/b", "a\n", "é", "aé", "a:b", "../a", "\u212aa"])
def test_names_that_the_cli_refuses(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        names.normalize(name)
    assert str(caught.value) == (
        f"invalid name {name}, name needs to start with a letter and may not contain symbols, except ._-"
    )


@pytest.mark.parametrize("name", ["default", "Default"])
def test_default_is_reserved_for_builders_only(name: str) -> None:
    assert names.normalize(name) == "default"
    with pytest.raises(ConfigError, match="default is a reserved name and cannot be used to identify builder instance"):
        names.normalize_builder(name)


def test_container_and_volume_are_named_after_the_node() -> None:
    assert names.container_name("ci0") == "buildx_buildkit_ci0"
    assert names.volume_name("ci0") == "buildx_buildkit_ci0_state"


@pytest.mark.parametrize(
    ("container", "node"),
    [
        ("buildx_buildkit_ci0", "ci0"),
        ("buildx_buildkit_", None),
        ("buildx_buildkit_0", None),
        ("x_buildx_buildkit_ci0", None),
        ("ci0", None),
    ],
)
def test_the_node_of_a_container(container: str, node: object) -> None:
    assert names.node_name(container) == node


@pytest.mark.parametrize(
    ("builder", "taken", "expected"),
    [
        ("ci", (), "ci0"),
        ("CI", (), "ci0"),
        ("ci", ("ci0", "ci1"), "ci2"),
        ("ci", ("ci1",), "ci0"),
        ("ci", ("ci0", "ci2"), "ci1"),
        ("ci", ("other0",), "ci0"),
    ],
)
def test_the_next_node_takes_the_first_free_number(builder: str, taken: tuple[str, ...], expected: str) -> None:
    assert names.next_node_name(builder, taken) == expected
