# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import directory_keys
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.contexts import named
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.directory_keys import shared_key
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def test_a_key_is_of_a_client_and_its_directories(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "twö \udcff"
    for path in (one, two):
        path.mkdir()
    keys = [
        shared_key(client, *map(str, paths))
        for client in ("host", "other")
        for paths in ((one,), (two,), (one, one), (one, two), (two, one))
    ]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)


def test_a_key_stays_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.mkdir()
    key = shared_key("host", str(path))
    (path / "file").write_text("x")
    (tmp_path / "link").symlink_to("one")
    os.utime(path, ns=(1, 1))
    assert shared_key("host", str(tmp_path / "link")) == key == shared_key("host", f"{path}/../one/.")


def test_a_directory_in_the_place_of_another_has_another_key(tmp_path: Path) -> None:
    path, other = tmp_path / "one", tmp_path / "two"
    for each in (path, other):
        each.mkdir()
    key = shared_key("host", str(path))
    path.rename(tmp_path / "old")
    other.rename(path)
    assert shared_key("host", str(path)) != key


def test_an_inode_that_is_used_again_counts_as_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for generation in (7, 8):
        monkeypatch.setattr(directory_keys, "_generation", lambda _descriptor, told=generation: told)
        keys.add(shared_key("host", str(tmp_path)))
    assert len(keys) == 2


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot open the directory .*/none: No such file"):
        shared_key("host", str(tmp_path / "none"))


def test_names_and_their_directories(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    given = {
        "docker.io/library/alpine:latest": str(tmp_path / "one"),
        "example.com:5000/a/b:1.0": str(tmp_path / "two"),
    }

    found = named(given)

    locals_ = {key: value[len("local:") :] for key, value in found.attrs.items() if key.startswith("context:")}
    assert set(locals_) == {"context:alpine", "context:example.com:5000/a/b:1.0"}
    assert found.attrs["frontend.caps"] == "moby.buildkit.frontend.contexts+forward"
    assert {key: found.directories[local] for key, local in locals_.items()} == {
        "context:alpine": str(tmp_path / "one"),
        "context:example.com:5000/a/b:1.0": str(tmp_path / "two"),
    }
    assert all(local.isascii() and local.isprintable() for local in found.directories)


def test_local_names_are_those_of_directories(tmp_path: Path) -> None:
    """A name that means another directory in another build must have another key, and so another local name."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    builds = [named({"a": one, "b": two}), named({"a": two, "b": one}), named({"a": one})]
    offered = [local for build in builds for local in build.directories.items()]
    assert len({directory for _local, directory in offered}) == 2
    for local, directory in offered:
        assert {each for name, each in offered if name == local} == {directory}
    assert set(builds[2].directories) < set(builds[0].directories)


def test_reserved_names_are_names_like_others(tmp_path: Path) -> None:
    found = named({"context": str(tmp_path), "dockerfile": str(tmp_path)})
    assert not {"context", "dockerfile"} & set(found.directories)
    assert len(found.directories) == 2


def test_no_names() -> None:
    assert named({}) == ({}, {})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a": "none"}, "failed to get build context a: .*none is not a directory"),
        ({"a": "file"}, "failed to get build context a: .*file is not a directory"),
        ({"A": "."}, "invalid name of a build context 'A'"),
        ({"": "."}, "invalid name of a build context ''"),
        ({"a": ".", "a:latest": "."}, "the build context a is named twice"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, given: dict[str, str], words: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=words):
        named({name: str(tmp_path / directory) for name, directory in given.items()})
