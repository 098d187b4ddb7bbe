# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the result of a build goes, and when a task is changed: judged by what the engine has."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"
PRINTS = BASE + 'COPY word /word\nRUN cat /word > /said\nCMD ["cat", "/said"]\n'
NO_OUTPUT = (
    "No output specified with docker-container driver. Build result will only remain in the build cache. "
    "To push result image into registry use --push or to load image into docker use --load"
)


@pytest.fixture
def word() -> str:
    """Content that no cache has."""
    return uuid.uuid4().hex


def test_loaded_image_is_that_of_the_cli(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """A loaded image has the id that the real CLI's `build --load` of the same context has, and it runs."""
    path, name, other = context(PRINTS, word=word), ready.image(), ready.image()

    result = ready.build(path, name=name)

    ready.buildx("build", "--builder", ready.name, "--load", "-t", other, str(path))
    assert result["changed"]
    assert result["image"]["Id"] == ready.inspect(other)["Id"] == ready.inspect(name)["Id"]
    assert result["image"]["RepoTags"] == [f"{name}:latest"]
    assert ready.docker("run", "--rm", name) == word


def test_changed_is_judged_by_the_image(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """The same again is no change; another file is one, and so is an image that somebody removed or replaced."""
    path, name, other = context(PRINTS, word=word), ready.image(), ready.image()
    assert ready.build(path, name=name)["changed"]

    again = ready.build(path, name=name)
    assert not again["changed"]
    assert again["executed"] == []

    (path / "word").write_text(word[::-1])
    changed = ready.build(path, name=name)
    assert changed["changed"]
    assert ready.docker("run", "--rm", name) == word[::-1]

    ready.docker("rmi", name)
    back = ready.build(path, name=name)
    assert back["changed"]
    assert back["executed"] == []
    assert back["image"]["Id"] == changed["image"]["Id"]

    (path / "word").write_text(word * 2)
    ready.build(path, name=other)
    ready.docker("tag", other, name)
    replaced = ready.build(path, name=other)
    assert not replaced["changed"]
    (path / "word").write_text(word[::-1])
    assert ready.build(path, name=name)["changed"]
    assert ready.docker("run", "--rm", name) == word[::-1]


@pytest.mark.parametrize("options", [{}, {"name": "unloaded", "load": False}], ids=["no name", "load false"])
def test_unloaded_result_warns(
    ready: Bench, context: Callable[..., Path], word: str, options: dict[str, object]
) -> None:
    """What stays in the cache is changed when a step ran, and warns with the CLI's sentence, word for word."""
    path = context(PRINTS, word=word)

    first, second = ready.build(path, **options), ready.build(path, **options)

    assert (first["changed"], second["changed"]) == (True, False)
    assert [step.split("] ")[1] for step in first["executed"]][-2:] == ["COPY word /word", "RUN cat /word > /said"]
    assert ready.warnings(first) == ready.warnings(second) == [NO_OUTPUT]
    cli = ready.buildx("build", "--builder", ready.name, "--progress=plain", str(path))
    assert f"WARNING: {NO_OUTPUT}\n" in cli
    assert "unloaded" not in ready.docker("images", "--format", "{{.Repository}}")


def test_warning_reaches_a_playbook(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """A registered result has the CLI's sentence among its warnings, Ansible prints it, and a second run is ok."""
    path, name = context(PRINTS, word=word), ready.image()

    printed = ready.play(f"""
    - buildfleet.buildx.buildx_build:
        builder: {ready.name}
        path: {path}
        name: {name}
        load: false
      register: unloaded
    - ansible.builtin.assert:
        that:
          - unloaded is changed
          - unloaded.warnings == [{json.dumps(NO_OUTPUT)}]
          - unloaded.log_tail | select('search', 'RUN cat') | list | length > 0
    - buildfleet.buildx.buildx_build:
        builder: {ready.name}
        path: {path}
        name: {name}
        tag: "1.10"
        load: true
      register: loaded
      loop: [first, second]
    - ansible.builtin.assert:
        that:
          - loaded.results[0] is changed and loaded.results[1] is not changed
          - loaded.results[1].image.RepoTags == ['{name}:1.10']
          - loaded.results | map(attribute='warnings', default=[]) | flatten == []
    """)

    assert "only remain in the build cache" in printed
    assert ready.docker("run", "--rm", f"{name}:1.10") == word


def test_default_load_of_a_builder_that_the_cli_made(bench: Bench, context: Callable[..., Path], word: str) -> None:
    """The driver option default-load loads a result without a name as well, and nothing is warned of."""
    bench.buildx("create", "--name", bench.name, "--driver-opt", "default-load=true")
    path = context(PRINTS + f'LABEL of="{word}"\n', word=word)

    named = bench.image()
    result = bench.build(path)
    named_result = bench.build(path, name=named)

    found = bench.docker("images", "-q", "--no-trunc", "--filter", f"label=of={word}").split()
    assert set(found) == {bench.inspect(named)["Id"]}
    assert bench.warnings(result) == bench.warnings(named_result) == []
    assert bench.warnings(bench.build(path, load=False)) == [NO_OUTPUT]


def test_rebuild(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """never: an image of the name is enough; auto: the image decides; always: changed whatever comes of it."""
    path, name = context(PRINTS, word=word), ready.image()
    first = ready.build(path, name=name, rebuild="never")
    assert first["changed"]

    (path / "word").write_text("another")
    never = ready.build(path, name=name, rebuild="never")
    assert not never["changed"]
    assert never["image"]["Id"] == first["image"]["Id"]
    assert never["log_tail"] == []

    auto = ready.build(path, name=name)
    assert auto["changed"]
    assert not ready.build(path, name=name, rebuild="auto")["changed"]

    always = ready.build(path, name=name, rebuild="always")
    assert always["changed"]
    assert always["image"]["Id"] == auto["image"]["Id"]


def test_check_mode_neither_boots_nor_builds(bench: Bench, context: Callable[..., Path], word: str) -> None:
    """In check mode the builder stays as it is and no image comes to be; changed says whether a build would run."""
    bench.builder(state="present")
    path, name = context(PRINTS, word=word), bench.image()

    predicted = bench.module("buildx_build", check=True, builder=bench.name, path=str(path), name=name)

    assert predicted["changed"]
    assert predicted["image"] == {}
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.name}") == ""
    assert bench.docker("images", "-q", name) == ""

    bench.docker("tag", bench.environment["BUILDX_LAB_BASE_IMAGE"], name)
    for rebuild, changed in (("never", False), ("auto", True), ("always", True)):
        predicted = bench.module(
            "buildx_build", check=True, builder=bench.name, path=str(path), name=name, rebuild=rebuild
        )
        assert predicted["changed"] is changed, rebuild
        assert predicted["image"]["RepoTags"]
    assert bench.row()["Nodes"][0]["Status"] == "inactive"

    for wrong, words in (({"builder": "nobody"}, "nobody"), ({"dockerfile": "None"}, "None"), ({"name": "X"}, "X")):
        arguments: dict[str, Any] = {"builder": bench.name, "path": str(path), "name": name, **wrong}
        refused = bench.module("buildx_build", check=True, **arguments)
        assert refused.get("failed"), wrong
        assert words in refused["msg"]


def test_nocache_runs_every_step(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """nocache runs what the cache has: the steps are listed again."""
    path = context(PRINTS, word=word)
    first = ready.build(path)
    assert ready.build(path)["executed"] == []

    forced = ready.build(path, nocache=True)

    assert forced["changed"]
    assert len(forced["executed"]) == 3
    assert set(first["executed"]) <= set(forced["executed"])


def test_result_describes_the_build(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """ref is what the CLI's history shows, digest is that of the manifest, and the CLI finds the local state of it."""
    path, name = context(PRINTS, word=word), ready.image()

    result = ready.build(path, name=name)

    history = [
        json.loads(line)
        for line in ready.buildx("history", "ls", "--builder", ready.name, "--format", "json").splitlines()
    ]
    record = next(record for record in history if record["ref"].endswith(f"/{result['ref']}"))
    assert record["status"] == "Completed"
    told = ready.buildx("history", "inspect", result["ref"], "--builder", ready.name, "--format", "json")
    assert json.loads(told)["Context"] == str(path)
    assert result["digest"].startswith("sha256:")
    assert result["digest"] != result["image"]["Id"]
    assert result["steps"] == []
