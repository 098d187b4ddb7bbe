# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the image of a builder is pulled, and what happens when it cannot be."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Bench

LAB = Path(__file__).resolve().parents[1] / "lab/lab.py"
# An engine of its own, whose registry may be stopped while other tests need theirs.
ALONE = "offline"


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def publish(bench: Bench, version: str) -> str:
    """An image in the registry and not in the engine. Its name is the test's own, the version is in a label."""
    name = f"{bench.environment['BUILDX_LAB_REGISTRY']}/test/pulled:{bench.name}"
    container = bench.docker("create", bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"]).strip()
    bench.docker("commit", "--change", f"LABEL version={version}", container, name)
    bench.docker("rm", "-v", container)
    bench.docker("push", name)
    bench.docker("rmi", name)
    return name


def version(bench: Bench) -> str:
    """The label of the image that this test's container runs."""
    return str(bench.inspect()["Config"]["Labels"]["version"])


@pytest.fixture
def local(bench: Bench) -> str:
    """An image that is on the engine and in no registry."""
    name = f"{bench.name}/local:1"
    bench.docker("tag", bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"], name)
    return name


@pytest.mark.parametrize("pull", ["auto", "missing", "always"])
def test_pulled(bench: Bench, pull: str) -> None:
    """An image that the engine does not have comes from the registry."""
    name = publish(bench, "1")

    result = bench.builder(image=name, pull=pull)

    assert verbs(result) == ["pull", "register", "create", "start"]
    assert version(bench) == "1"
    assert bench.builder(image=name, pull=pull)["changed"] is False


def test_a_new_image_under_the_same_name(bench: Bench) -> None:
    """A tag that has moved in the registry is drift with pull=always only, which asks each time; the cache is kept."""
    name = publish(bench, "1")
    bench.builder(image=name)
    bench.in_container("echo kept > /var/lib/buildkit/marker")
    assert bench.builder(pull="always")["changed"] is False

    publish(bench, "2")

    for pull in ("auto", "missing", "never"):
        assert bench.builder(pull=pull)["changed"] is False
    predicted = bench.builder(pull="always", check=True, diff=True)
    assert version(bench) == "1"
    node = f"{bench.name}0"
    assert predicted["diff"]["before"][node]["image_id"] == bench.inspect()["Image"]
    assert name in predicted["diff"]["after"][node]["image_id"]
    done = bench.builder(pull="always")
    assert verbs(done) == ["pull", "recreate"]
    assert done["steps"] == predicted["steps"]
    assert done["steps"][1]["reasons"] == ["image_id"]
    assert version(bench) == "2"
    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"
    assert bench.builder(pull="always")["changed"] is False


def test_always_through_the_mirror(bench: Bench) -> None:
    """The default image is asked for where the engine pulls it from, and is no drift when it is the same."""
    bench.builder(pull="always")

    assert bench.builder(pull="always")["changed"] is False


@pytest.mark.parametrize(
    ("pull", "steps"),
    [
        ("auto", ["pull", "register", "create", "start"]),
        ("missing", ["register", "create", "start"]),
        ("never", ["register", "create", "start"]),
    ],
)
def test_local_image(bench: Bench, local: str, pull: str, steps: list[str]) -> None:
    """An image that only the engine has is used: after a failed pull, as the CLI does, or without asking a registry."""
    result = bench.builder(image=local, pull=pull)

    assert verbs(result) == steps
    assert bench.inspect()["Config"]["Image"] == local
    assert bench.builder(image=local, pull=pull)["changed"] is False


def test_a_local_tag_that_moved_is_no_drift(bench: Bench, local: str) -> None:
    """A tag that somebody moved on the engine changes nothing while the declared name stays."""
    bench.builder(image=local)
    container = bench.docker("create", bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"]).strip()
    bench.docker("commit", "--change", "LABEL version=3", container, local)
    bench.docker("rm", "-v", container)

    for pull in ("auto", "missing", "never"):
        assert bench.builder(pull=pull)["changed"] is False


@pytest.mark.parametrize(
    ("pull", "words"),
    [
        ("auto", "can neither be pulled nor found"),
        ("always", "cannot be pulled"),
        ("missing", "can neither be pulled nor found"),
        ("never", "the engine has no image"),
    ],
)
def test_no_such_image(bench: Bench, pull: str, words: str) -> None:
    """An image that is nowhere fails the task with its name and changes nothing, whether the builder is new or not."""
    name = f"{bench.environment['BUILDX_LAB_REGISTRY']}/test/{bench.name}:nowhere"

    new = bench.module("buildx_builder", name=bench.name, image=name, pull=pull)

    assert new["failed"]
    assert words in new["msg"]
    assert name in new["msg"]
    assert new["changed"] is False
    assert not bench.entry.exists()
    bench.builder()
    before, entry = bench.inspect(), bench.entry.read_bytes()
    other = bench.module("buildx_builder", name=bench.name, image=name, pull=pull)
    assert other["failed"]
    assert (other["changed"], other.get("steps", [])) == (False, [])
    after = bench.inspect()
    assert (after["Id"], after["State"]) == (before["Id"], before["State"])
    assert bench.entry.read_bytes() == entry


@pytest.mark.parametrize("pull", ["always", "missing"])
def test_only_auto_falls_back(bench: Bench, local: str, pull: str) -> None:
    """With pull=always a registry that has not got the image is a failure; with missing it is not asked."""
    result = bench.module("buildx_builder", name=bench.name, image=local, pull=pull)

    assert bool(result.get("failed")) is (pull == "always")
    if pull == "always":
        assert "pull" in result["msg"]
        assert local in result["msg"]
        assert not bench.entry.exists()


@pytest.fixture
def alone(bench: Bench) -> Iterator[Bench]:
    """This test's bench, on an engine that no other test uses."""
    lab("up")
    found = re.search(r"^export DOCKER_HOST=(\S+)$", lab("env"), re.MULTILINE)
    assert found
    bench.environment["DOCKER_HOST"] = found[1]
    yield bench
    for name in (bench.name, f"{bench.name}-second"):
        bench.module("buildx_builder", name=name, state="absent")
    lab("engine", "stop")
    lab("registry", "stop")


def lab(*arguments: str) -> str:
    """A command of the lab for the engine of its own; with the HOME of the tests, where the lab's cache is."""
    done = subprocess.run(
        ["python3", str(LAB), "--name", ALONE, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_registry(alone: Bench) -> None:
    """The default image is really pulled, layer by layer; with the registry down the next builder uses that copy."""
    image = alone.environment["BUILDX_LAB_BUILDKIT_IMAGE"]
    alone.docker("rmi", "-f", image, check=False)
    assert alone.docker("images", "-q", image) == ""

    assert verbs(alone.builder()) == ["pull", "register", "create", "start"]
    assert alone.docker("images", "-q", image) != ""

    lab("registry", "stop")
    second = alone.builder(name=f"{alone.name}-second")
    assert verbs(second) == ["pull", "register", "create", "start"]
    assert second["builder"]["Nodes"][0]["Status"] == "running"
    assert alone.builder()["changed"] is False
    refused = alone.module("buildx_builder", name=alone.name, pull="always")
    assert refused["failed"]
    assert image in refused["msg"]
