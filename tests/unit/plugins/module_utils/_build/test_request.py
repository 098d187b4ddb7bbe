# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a task's options to what the daemon is asked (wire §5.2, buildx.md §5)."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import request as requests
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.request import (
    BuildRequest,
    Source,
    frontend_attrs,
    local_directories,
    source,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

PROCESS: Any = SimpleNamespace(absolute=os.path.abspath, variable=lambda name: None)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "app"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\n")
    return directory


def params(context: Path, **given: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "name": None, "tag": "latest", "path": str(context), "dockerfile": None, "args": None, "target": None,
        "labels": None, "platform": None, "nocache": False, "pull": False, "load": None, "push": False, "tags": None,
        "outputs": None, "cache_from": None, "cache_to": None, "secrets": None, "build_contexts": None,
    }  # fmt: skip
    return {**defaults, **given}


def from_params(given: dict[str, Any]) -> BuildRequest:
    return requests.from_params(given, PROCESS)


def test_nothing_but_a_directory(context: Path) -> None:
    request = from_params(params(context))
    assert request == BuildRequest(Source(str(context), str(context), "Dockerfile"), [], platforms=[])
    assert frontend_attrs(request, engine_store=False, attest=False) == {"filename": "Dockerfile"}
    assert local_directories(request) == {"context": str(context), "dockerfile": str(context)}


def test_everything(context: Path) -> None:
    request = from_params(
        params(
            context,
            name="registry.example.com/app",
            tag="1.10",
            target="tests",
            args={"VERSION": 2.5, "DEBUG": True, "NONE": None},
            labels={"org.example.a": "b", "n": 3},
            platform=["linux/arm64/v8", "x86_64"],
            nocache=True,
            pull=True,
            load=False,
        )
    )
    assert (request.image, request.load) == ("registry.example.com/app:1.10", False)
    assert frontend_attrs(request, engine_store=False, attest=True) == {
        "filename": "Dockerfile",
        "target": "tests",
        "platform": "linux/arm64,linux/amd64",
        "no-cache": "",
        "image-resolve-mode": "pull",
        "attest:provenance": "mode=min,inline-only=true",
        "build-arg:DEBUG": "true",
        "build-arg:NONE": "",
        "build-arg:VERSION": "2.5",
        "label:n": "3",
        "label:org.example.a": "b",
    }


@pytest.mark.parametrize(
    ("pull", "engine_store", "mode"),
    [(False, False, None), (False, True, "local"), (True, False, "pull"), (True, True, "pull")],
)
def test_which_base_images_are_used(context: Path, pull: bool, engine_store: bool, mode: str | None) -> None:
    """The engine's own BuildKit takes the engine's images, as the CLI has it."""
    attrs = frontend_attrs(from_params(params(context, pull=pull)), engine_store=engine_store, attest=False)
    assert attrs.get("image-resolve-mode") == mode


@pytest.mark.parametrize(
    ("name", "tag", "image"),
    [
        (None, "x", None),
        ("", "x", None),
        ("app", "latest", "app:latest"),
        ("app", "1.10", "app:1.10"),
        ("app:2", "1.10", "app:2"),
        ("docker.io/library/app", "latest", "app:latest"),
        ("r:5000/app", "latest", "r:5000/app:latest"),
        ("r:5000/a/b:c", "latest", "r:5000/a/b:c"),
    ],
)
def test_the_name_of_the_image(context: Path, name: str | None, tag: str, image: str | None) -> None:
    """A tag in the name wins, as for docker_image_build."""
    assert from_params(params(context, name=name, tag=tag)).image == image


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "UPPER"}, "invalid name 'UPPER'"),
        ({"name": "app@sha256:" + "0" * 64}, "name must not hold a digest"),
        ({"name": "app", "tag": ""}, "invalid tag ''"),
        ({"name": "app", "tag": "a b"}, "invalid tag 'a b'"),
        ({"load": True}, "load needs a name"),
        ({"platform": ["not/a/real/platform/x"]}, "."),
    ],
)
def test_what_is_refused(context: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_params(params(context, **wrong))


def test_keys_of_yaml_may_be_numbers(context: Path) -> None:
    request = from_params(params(context, args={1: "a", "B": "b", 2.5: "c"}, labels={2: 3}))
    assert request.args == {"1": "a", "2.5": "c", "B": "b"}
    assert request.labels == {"2": "3"}


def test_arguments_may_be_secrets_and_are_not_printed(context: Path) -> None:
    assert "s3cret" not in repr(from_params(params(context, args={"TOKEN": "s3cret"})))


def test_the_order_of_arguments_does_not_matter(context: Path) -> None:
    one, other = ({"A": "1", "B": "2"}, {"B": "2", "A": "1"})
    attrs = [frontend_attrs(from_params(params(context, args=args)), engine_store=False, attest=False)
             for args in (one, other)]  # fmt: skip
    assert list(attrs[0].items()) == list(attrs[1].items())


# The context and the Dockerfile.


def test_a_dockerfile_beside_the_context(context: Path, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "app.Dockerfile").write_text("FROM scratch\n")
    for dockerfile in ("../docker/app.Dockerfile", str(tmp_path / "docker" / "app.Dockerfile")):
        found = source(str(context), dockerfile)
        assert found == Source(str(context), str(tmp_path / "docker"), "app.Dockerfile")
        assert found.dockerfile == str(tmp_path / "docker" / "app.Dockerfile")


def test_a_dockerfile_below_the_context(context: Path) -> None:
    (context / "build").mkdir()
    (context / "build" / "Dockerfile").write_text("")
    assert source(str(context), "build/Dockerfile") == Source(str(context), str(context / "build"), "Dockerfile")


@pytest.mark.parametrize(("there", "dockerfile"), [("dockerfile", None), ("x/dockerfile", "x/Dockerfile")])
def test_a_dockerfile_in_lower_case(tmp_path: Path, there: str, dockerfile: str | None) -> None:
    """As the CLI."""
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("")
    assert source(str(tmp_path), dockerfile).dockerfile == str(tmp_path / there)


def test_the_usual_name_wins(context: Path) -> None:
    (context / "dockerfile").write_text("")
    assert source(str(context), None).filename == "Dockerfile"


def test_links_are_resolved(context: Path, tmp_path: Path) -> None:
    """The daemon's copy of a directory is kept under its path: one path for one directory."""
    (tmp_path / "link").symlink_to(context)
    assert source(str(tmp_path / "link"), None) == source(str(context), None)


def test_a_relative_context(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(context.parent)
    assert source("app", None) == source(str(context), None)


@pytest.mark.parametrize(
    ("path", "dockerfile", "words"),
    [
        ("no", None, r'unable to prepare context: path ".*/no" not found on the target'),
        ("app/Dockerfile", None, 'unable to prepare context: path ".*/app/Dockerfile" is no directory'),
        ("app", "other", "there is no Dockerfile at .*/app/other"),
        ("app", "sub", "there is no Dockerfile at .*/app/sub"),
        ("empty", None, "there is no Dockerfile at .*/empty/Dockerfile"),
    ],
)
def test_what_is_missing_is_named(context: Path, tmp_path: Path, path: str, dockerfile: str | None, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (context / "sub").mkdir()
    with pytest.raises(ConfigError, match=words):
        source(str(tmp_path / path), dockerfile)


@pytest.mark.parametrize("locked", ["", "Dockerfile"])
def test_what_may_not_be_read_is_named(context: Path, monkeypatch: pytest.MonkeyPatch, locked: str) -> None:
    path = os.path.join(context, locked) if locked else str(context)
    monkeypatch.setattr(os, "access", lambda asked, mode: str(asked) != path)
    with pytest.raises(ConfigError, match="cannot be read by this user"):
        source(str(context), None)


def test_the_clis_sentence() -> None:
    assert requests.NO_OUTPUT_WARNING.startswith("No output specified with docker-container driver.")
