# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The numbers that docker's directory keeps for registries (buildkit-wire.md §9.2)."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import token_seeds
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.token_seeds import seed


def test_it_stays_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    first = seed(str(directory), "a")
    assert len(first) == 16
    assert seed(str(directory), "a") == first
    assert seed(str(directory), "b") != first
    assert (directory / ".token_seed").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in directory.iterdir()) == [".token_seed", ".token_seed.lock"]


def test_the_clis_file(tmp_path: Path) -> None:
    """As the CLI writes it; what else is in it stays."""
    known = {"a": {"Seed": base64.b64encode(b"0123456789abcdef").decode()}, "b": {"Seed": "AAAA", "more": 1}}
    (tmp_path / ".token_seed").write_text(json.dumps(known))
    assert seed(str(tmp_path), "a") == b"0123456789abcdef"
    made = seed(str(tmp_path), "c")
    after = json.loads((tmp_path / ".token_seed").read_text())
    assert after == {**known, "c": {"Seed": base64.b64encode(made).decode()}}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"a": {"Seed": 1}}', '{"a": {"Seed": "!"}}'])
def test_a_file_that_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / ".token_seed").write_text(content)
    assert seed(str(tmp_path), "a") == seed(str(tmp_path), "a")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert seed(str(tmp_path / "file"), "h") == seed(str(tmp_path / "file"), "h")
    assert len(token_seeds.seed(str(tmp_path / "file"), "h")) == 16


def test_all_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _number: seed(str(tmp_path), "a"), range(32)))) == 1
