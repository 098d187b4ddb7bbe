# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an engine misses, from its words. What it does with an image that lacks layers, the integration tests show."""

from __future__ import annotations

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.image_content import Layer
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.transfer import _lowest_missing

DIGITS = "ab0"
LAYERS = [Layer(f"sha256:{digit * 64}", 1, f"sha256:{digit * 64}") for digit in DIGITS]
REFUSAL = "the engine could not load the image: open /var/lib/docker/tmp/docker-import-7/blobs/sha256/{}: {}"


@pytest.mark.parametrize(("index", "digit"), list(enumerate(DIGITS)))
def test_the_layer_that_an_engine_names(index: int, digit: str) -> None:
    assert _lowest_missing(REFUSAL.format(digit * 64, "no such file or directory"), LAYERS) == index


@pytest.mark.parametrize(
    "words",
    [
        "",
        "no space left on device",
        REFUSAL.format("c" * 64, "no such file or directory"),
        REFUSAL.format("a" * 63, "no such file or directory"),
        REFUSAL.format("a" * 64, "permission denied"),
    ],
    ids=["nothing", "other", "no layer", "no digest", "other trouble"],
)
def test_other_words_name_none(words: str) -> None:
    assert _lowest_missing(words, LAYERS) is None


def test_the_same_layer_twice_is_missed_where_it_is_first() -> None:
    twice = [LAYERS[1], LAYERS[0], LAYERS[1]]
    assert _lowest_missing(REFUSAL.format("b" * 64, "no such file or directory"), twice) == 0
