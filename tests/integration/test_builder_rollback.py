# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change that does not work out, or is cut off half-way, costs neither the builder nor its cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

WAIT: dict[str, Any] = {"wait_timeout": 3}
STORED_CONFIG = {"worker": {"oci": {"labels": {"proof": "old"}}}}


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def image(bench: Bench, *changes: str) -> str:
    """An image of this test's own, with other settings than the image of BuildKit."""
    name = f"{bench.name}/broken:1"
    container = bench.docker("create", bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"]).strip()
    bench.docker("commit", *(word for change in changes for word in ("--change", change)), container, name)
    bench.docker("rm", "-v", container)
    return name


DEAD = ["--oci-worker=false", "--containerd-worker=false"]
"""Flags that the daemon knows, and that leave it nothing to work with: it ends at once."""
BROKEN: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "no worker": lambda bench: {"buildkitd_flags": DEAD},
    "entrypoint that ends": lambda bench: {"image": image(bench, 'ENTRYPOINT ["false"]')},
    "entrypoint that is not there": lambda bench: {"image": image(bench, 'ENTRYPOINT ["/no/such/program"]')},
}


@pytest.mark.parametrize("what", ["no worker", "entrypoint that ends", "entrypoint that is not there"])
def test_the_old_container_comes_back(bench: Bench, what: str) -> None:
    """A daemon that does not come up is given up: the old one runs again, with its container, cache and entry."""
    bench.builder()
    bench.in_container("echo kept > /var/lib/buildkit/marker")
    before, entry = bench.inspect(), bench.entry.read_bytes()

    result = bench.module("buildx_builder", name=bench.name, **WAIT, **BROKEN[what](bench))

    assert result["failed"]
    assert result["rolled_back"] is True
    assert "The container that was there before is back" in result["msg"]
    assert verbs(result) == ["pull"]
    after = bench.inspect()
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)
    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"
    assert bench.entry.read_bytes() == entry
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.name}").split() == [before["Id"][:12]]
    if what == "no worker":
        assert any("no worker found" in line for line in result["daemon_log"])
    good = bench.builder()
    assert (good["changed"], good["builder"]["Nodes"][0]["Status"]) == (False, "running")
    assert verbs(bench.builder(env={"A": "b"})) == ["pull", "recreate", "register"]
    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buildkitd_flags": ["--no-such-flag"]}, "no-such-flag"),
        ({"buildkitd_config": {"worker": {"oci": "nonsense"}}}, "worker.oci"),
        ({"buildkitd_config": {"registry": {"https://reg.example": {"http": True}}}}, "https://reg.example"),
        ({"memory": "1m"}, "memory"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_touched(bench: Bench, options: dict[str, Any], words: str) -> None:
    """The builder that runs is not even restarted, and one that is not there is not made."""
    missing = bench.module("buildx_builder", name=bench.name, **options)
    left = bench.docker("ps", "-aq", "--filter", f"name={bench.name}")
    bench.builder()
    before, entry = bench.inspect(), bench.entry.read_bytes()

    running = bench.module("buildx_builder", name=bench.name, **options)

    for result in (missing, running):
        assert (result["failed"], result["changed"], result["error"]["kind"]) == (True, False, "config")
        assert words in result["msg"]
        assert result["findings"]
    assert left == ""
    assert bench.inspect()["State"] == before["State"]
    assert bench.entry.read_bytes() == entry


def test_a_daemon_that_serves_nothing(bench: Bench) -> None:
    """A container that runs without a BuildKit in it is no builder: the task fails in time, and the old one is back."""
    bench.builder()
    before = bench.inspect()["Id"]
    idle = image(bench, 'ENTRYPOINT ["sh", "-c", "sleep 1000"]')

    result = bench.module("buildx_builder", name=bench.name, image=idle, **WAIT)

    assert result["failed"]
    assert "does not answer: no answer within 3 s" in result["msg"]
    assert result["rolled_back"] is True
    assert bench.inspect()["Id"] == before


def test_a_stopped_builder_is_put_back_stopped(bench: Bench) -> None:
    """A builder that did not run gets its old container back, and that one does not run either."""
    bench.builder()
    bench.builder(state="stopped")
    before = bench.inspect()["Id"]

    result = bench.module("buildx_builder", name=bench.name, buildkitd_flags=DEAD, **WAIT)

    assert result["rolled_back"] is True
    after = bench.inspect()
    assert (after["Id"], after["State"]["Status"]) == (before, "exited")


def test_a_configuration_that_the_daemon_refuses(bench: Bench) -> None:
    """A configuration with which the daemon does not start fails the task, and the old one is in place again."""
    bench.builder(buildkitd_config=STORED_CONFIG)
    before, entry = bench.inspect()["Id"], bench.entry.read_bytes()

    nothing = {"worker": {"oci": {"enabled": False}, "containerd": {"enabled": False}}}
    result = bench.module("buildx_builder", name=bench.name, buildkitd_config=nothing, **WAIT)

    assert result["failed"]
    assert result["rolled_back"] is True
    assert "The configuration that was there before is back" in result["msg"]
    assert result["daemon_log"]
    assert bench.entry.read_bytes() == entry
    good = bench.builder()
    assert good["changed"] is False
    assert good["builder"]["Nodes"][0]["Labels"]["proof"] == "old"
    assert bench.inspect()["Id"] == before


def test_a_new_builder_that_does_not_start(bench: Bench) -> None:
    """With nothing to go back to, what is half made is known to the store and repaired by the next good run."""
    result = bench.module("buildx_builder", name=bench.name, buildkitd_flags=DEAD, **WAIT)

    assert result["failed"]
    assert result["changed"] is True
    assert "rolled_back" not in result
    assert verbs(result) == ["pull", "register", "create", "start"]
    assert verbs(bench.builder(buildkitd_flags=[])) == ["pull", "recreate", "register"]
    assert verbs(bench.builder(state="absent")) == ["remove", "remove_volume", "unregister"]


def set_aside(bench: Bench, *, stopped: bool) -> str:
    """As an interrupted re-creation leaves it: the container under its other name. Its id."""
    if stopped:
        bench.docker("kill", bench.container)
    bench.docker("rename", bench.container, f"buildx_previous_{bench.name}0")
    return str(bench.inspect(f"buildx_previous_{bench.name}0")["Id"])


@pytest.mark.parametrize(
    ("stopped", "options", "steps", "runs"),
    [
        (True, {}, ["restore", "start"], True),
        (True, {"state": "present"}, ["restore"], False),
        (True, {"state": "stopped"}, ["restore"], False),
        (True, {"env": {"A": "b"}}, ["restore", "pull", "recreate", "register"], True),
        (True, {"memory": "1g"}, ["restore", "update", "start", "register"], True),
        (False, {}, ["restore"], True),
        (False, {"state": "stopped"}, ["restore", "stop"], False),
        (False, {"env": {"A": "b"}}, ["restore", "pull", "recreate", "register"], True),
    ],
)
def test_interrupted_before_the_new_one(
    bench: Bench, *, stopped: bool, options: dict[str, Any], steps: list[str], runs: bool
) -> None:
    """A container that an interrupted run has set aside is put back first, and then dealt with like any other."""
    bench.builder()
    bench.in_container("echo kept > /var/lib/buildkit/marker")
    container = set_aside(bench, stopped=stopped)

    predicted = bench.builder(check=True, **options)
    done = bench.builder(**options)

    assert verbs(done) == steps
    assert done["steps"] == predicted["steps"]
    assert bench.builder(**options)["changed"] is False
    found = bench.inspect()
    assert found["State"]["Running"] is runs
    assert (found["Id"] == container) is ("recreate" not in steps)
    bench.builder()
    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"


def test_interrupted_and_then_removed(bench: Bench) -> None:
    """Absence includes a container that an interrupted run has set aside, and its volume."""
    bench.builder()
    set_aside(bench, stopped=True)

    assert verbs(bench.builder(state="absent")) == ["discard", "remove_volume", "unregister"]
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.name}") == ""
    assert bench.docker("volume", "ls", "-q", "--filter", f"name={bench.name}") == ""
    assert bench.builder(state="absent")["changed"] is False


def test_killed_in_the_middle(bench: Bench) -> None:
    """A run that is killed while it waits for a new daemon leaves what the next run finishes, with the cache."""
    bench.builder()
    bench.in_container("echo kept > /var/lib/buildkit/marker")
    entry = bench.entry.read_bytes()
    process = bench.begin("buildx_builder", name=bench.name, buildkitd_flags=DEAD, wait_timeout=60)
    names = ("ps", "-a", "--filter", f"name={bench.name}", "--format", "{{.Names}} {{.State}}")
    bench.wait("the new one is tried", lambda: f"{bench.container} restarting" in bench.docker(*names))
    process.kill()
    process.communicate()
    assert f"buildx_previous_{bench.name}0" in bench.docker(*names)
    assert bench.entry.read_bytes() == entry

    assert verbs(bench.builder()) == ["discard", "pull", "recreate"]

    assert bench.docker(*names).split() == [bench.container, "running"]
    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"
    assert bench.builder()["changed"] is False
