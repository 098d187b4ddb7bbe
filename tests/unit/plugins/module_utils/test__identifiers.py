# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._identifiers import new_ref


@pytest.mark.parametrize(
    ("entropy", "expected"),
    [
        # github.com/moby/buildkit v0.34.2, the arithmetic of identity.NewID on these bytes
        (b"\x00" * 17, "hvy0lj3x0b883f8e30fyp2172"),
        (b"\xff" * 17, "zrw1727u0mgg6ugs60vxe42e4"),
        (bytes(range(17)), "hw05xdvcpbrfi4jekqvbjy4b2"),
    ],
)
def test_the_digits_are_those_of_buildkit(entropy: bytes, expected: str) -> None:
    assert new_ref(lambda size: entropy[:size]) == expected


@given(st.binary(min_size=17, max_size=17))
@settings(deadline=None)
def test_every_ref_has_25_characters(entropy: bytes) -> None:
    ref = new_ref(lambda _size: entropy)
    assert len(ref) == 25
    assert ref.isascii()
    assert ref.isalnum()
    assert ref == ref.lower()


def test_two_refs_differ() -> None:
    assert new_ref() != new_ref()
