# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hand-written cases; those recorded from fsutil are with the walk (test_walk.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.followpaths import followed, include_patterns


def test_links_lead_on_but_never_out(tmp_path: Path) -> None:
    root = bytes(tmp_path)
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/real")
    (tmp_path / "real" / "up").symlink_to("../../../etc/passwd")
    assert followed(root, [b"link/deep/x"]) == [b"link", b"real/deep/x"]
    assert followed(root, [b"link/up"]) == [b"etc/passwd", b"link", b"real/up"]
    assert followed(root, [b"../outside", b".."]) == [b"..", b"../outside"][:1]


def test_circles_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "self").symlink_to("self/x")
    assert followed(bytes(tmp_path), [b"a/x", b"self"]) == [b"a", b"b", b"self"]


def test_long_chains_do_not_recurse(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"l{number}").symlink_to(f"l{number + 1}")
    assert len(followed(bytes(tmp_path), [b"l0"]) or ()) == 1501


def test_wildcards_follow_the_links_they_find(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.ini").symlink_to("../shared/a")
    (tmp_path / "conf" / "b.txt").symlink_to("../shared/b")
    assert followed(bytes(tmp_path), [b"conf/*.ini"]) == [b"conf/*.ini", b"shared/a"]
    assert followed(bytes(tmp_path), [b"none/*.ini", b"conf/[a"]) == [b"conf/[a", b"none/*.ini"]
    assert followed(bytes(tmp_path), [rb"conf/\*.ini"]) == [rb"conf/\*.ini"]


def test_the_root_means_no_filter(tmp_path: Path) -> None:
    assert include_patterns(bytes(tmp_path), [], [b"a", b"/"]) == []
    assert include_patterns(bytes(tmp_path), [b"x"], [b"."]) == [b"x"]
    assert include_patterns(bytes(tmp_path), [b"x"], []) == [b"x"]
    assert include_patterns(bytes(tmp_path), [b"x"], [b"x/y", b"z"]) == [b"x", b"z"]


def test_what_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        followed(bytes(tmp_path), [b"n" * 300 + b"/x"])
