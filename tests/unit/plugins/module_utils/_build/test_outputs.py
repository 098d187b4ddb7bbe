# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Outputs: what a task says, and which results that comes to (buildx §5.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.output_option import parse, parse_all
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.outputs import Output, resolve
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("out", Output("local", {}, "/cwd/out")),
        ("dest=foo", Output("local", {}, "/cwd/dest=foo")),
        ("type=local,dest=/srv/site,mode=delete", Output("local", {"mode": "delete"}, "/srv/site")),
        ('type=tar,"dest=/srv/a,b.tar"', Output("tar", {}, "/srv/a,b.tar")),
        ("type=oci, DEST=/srv/x.tar,compression=zstd", Output("oci", {"compression": "zstd"}, "/srv/x.tar")),
        ({"type": "oci", "dest": "layout", "tar": False}, Output("oci", {"tar": "false"}, "/cwd/layout", layout=True)),
        ({"type": "oci", "dest": "x", "tar": True}, Output("oci", {"tar": "true"}, "/cwd/x")),
        ({"type": "docker"}, Output("docker")),
        ({"type": "docker", "context": "other"}, Output("docker", context="other")),
        ({"type": "docker", "dest": "i.tar"}, Output("docker", {}, "/cwd/i.tar")),
        ({"type": "image", "name": ["a", "b:2"]}, Output("image", names=("a:latest", "b:2"))),
        ("type=image,name=a:1", Output("image", names=("a:1",))),
        (
            {"type": "image", "push": True, "compression-level": 3},
            Output("image", {"compression-level": "3", "push": "true", "unpack": "false"}, pushes=True),
        ),
        ("type=registry", Output("image", {"push": "true", "unpack": "false"}, pushes=True)),
        (
            {"type": "registry", "unpack": True},
            Output("image", {"push": "true", "unpack": "true"}, pushes=True),
        ),
        ({"type": "image", "push": False}, Output("image", {"push": "false"})),
        ("type=cacheonly", Output("cacheonly")),
    ],
)
def test_what_is_said(value: Any, output: Output) -> None:
    assert parse(value, absolute) == output


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"dest": "x"}, "type is required for output"),
        ("type=,dest=x", "type is required"),
        ("type=zip,dest=x", "invalid output type 'zip': there are cacheonly, docker"),
        ("type=local", "dest is required for local exporter"),
        ({"type": "tar"}, "dest is required for tar exporter"),
        ({"type": "oci", "dest": ""}, "dest is required for oci exporter"),
        ("type=tar,dest=-", "no standard output"),
        ("-", "no standard output"),
        ("type=local,nonsense", "'nonsense' must be a key=value pair"),
        ('type=local,"dest=x', "invalid output"),
        ("type=local\ndest=x", "one line"),
        (7, "invalid output 7"),
        ({"type": "image", "dest": "x"}, "an output of type image has no dest"),
        ({"type": "local", "dest": "x", "push": True}, "only an image can be pushed"),
        ({"type": "image", "context": "other"}, "context is the docker context"),
        ({"type": "image", "name": "UPPER"}, "name of an output"),
    ],
)
def test_what_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(value, absolute)


def test_what_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    for value, words in (
        ({"type": "local", "dest": str(tmp_path / "file")}, "destination directory .* is a file"),
        ({"type": "oci", "tar": "0", "dest": str(tmp_path / "file")}, "destination directory .* is a file"),
        ({"type": "tar", "dest": str(tmp_path / "directory")}, "destination file .* is a directory"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(value, absolute)


def test_nothing_is_said() -> None:
    assert parse_all([], absolute) == parse_all([""], absolute) == []


PUSH = Output("image", {"push": "true", "unpack": "false"}, pushes=True)
LOAD, TREE = Output("docker"), Output("local", {}, "/out")


@pytest.mark.parametrize(
    ("outputs", "options", "results"),
    [
        ([], {"named": True}, [LOAD]),
        ([], {}, []),
        ([], {"default_load": True}, [LOAD]),
        ([], {"named": True, "load": False}, []),
        ([], {"default_load": True, "load": False}, []),
        ([], {"named": True, "push": True}, [PUSH]),
        ([], {"named": True, "push": True, "load": True}, [PUSH, LOAD]),
        ([TREE], {"named": True}, [TREE]),
        ([TREE], {"named": True, "load": True}, [TREE, LOAD]),
        ([LOAD], {"named": True, "load": True}, [LOAD]),
        ([Output("docker", {}, "/x.tar")], {"named": True, "load": True}, [Output("docker", {}, "/x.tar"), LOAD]),
        ([Output("image")], {"named": True, "push": True}, [PUSH]),
        ([Output("image", {"unpack": "true"})], {"named": True, "push": True},
         [Output("image", {"unpack": "true", "push": "true"}, pushes=True)]),
        ([Output("cacheonly")], {"named": True}, []),
        ([Output("cacheonly"), TREE], {}, [TREE]),
    ],
)  # fmt: skip
def test_what_it_comes_to(outputs: list[Output], options: dict[str, Any], results: list[Output]) -> None:
    """The short options add to the list; without any word an image with a name is loaded (DESIGN §5)."""
    given_ = {"load": None, "push": False, "named": False, "default_load": False, **options}
    assert resolve(outputs, **given_) == results


def test_a_push_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="tag is needed when pushing to registry"):
        resolve([], load=None, push=True, named=False, default_load=False)
    own = Output("image", names=("a:1",))
    assert resolve([own], load=None, push=True, named=False, default_load=False)[0].pushes


def test_one_layout_for_a_build() -> None:
    layouts = [Output("oci", {"tar": "false"}, f"/{name}", layout=True) for name in "ab"]
    with pytest.raises(ConfigError, match="already exists"):
        resolve(layouts, load=None, push=False, named=False, default_load=False)


@given(st.lists(st.sampled_from([TREE, LOAD, Output("image"), Output("cacheonly")])), st.booleans(), st.booleans())
def test_nothing_that_was_asked_for_is_forgotten(outputs: list[Output], load: bool, push: bool) -> None:
    results = resolve(outputs, load=load or None, push=push, named=True, default_load=False)
    assert sum(output.loads for output in results) >= int(load)
    assert any(output.pushes for output in results) is push
    assert [output for output in results if output == TREE] == [output for output in outputs if output == TREE]
