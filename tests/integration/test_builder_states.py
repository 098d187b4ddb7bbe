# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""States of a builder: from every state that a container can be in to every state that can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

DEFAULT_FLAGS = ("--allow-insecure-entitlement=network.host",)
BAD_FLAG = "--no-such-flag"
GONE = ["remove", "remove_volume", "unregister"]


def hand_made(bench: Bench, *command: str) -> None:
    """A container as the CLI makes one, made by hand and not started."""
    parent = ("--cgroup-parent", "/docker/buildx")
    cgroupfs = bench.docker("info", "--format", "{{.CgroupDriver}}").strip() == "cgroupfs"
    bench.docker(
        *("create", "--name", bench.container, "--privileged", "--init", "--restart", "unless-stopped"),
        *(parent if cgroupfs else ()),
        *("--mount", f"type=volume,src={bench.volume},dst=/var/lib/buildkit"),
        *(bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"], *(command or DEFAULT_FLAGS)),
    )


def crash_loop(bench: Bench) -> None:
    """Start this test's container, whose daemon cannot start, and wait until the engine restarts it again and again."""
    bench.docker("start", bench.container)
    bench.wait("the container restarts", lambda: bench.inspect()["RestartCount"] >= 2)


def prepare(bench: Bench, situation: str) -> None:
    """The store has the builder, and its container is in this situation; `unknown`: the store does not have it."""
    if situation == "unknown":
        return
    flags = ("--buildkitd-flags", BAD_FLAG) if situation == "crashing as declared" else ()
    bench.buildx("create", "--name", bench.name, "--driver", "docker-container", *flags)
    if situation in ("missing", "volume alone"):
        if situation == "volume alone":
            bench.docker("volume", "create", bench.volume)
        return
    stored = bench.stored()["Flags"]
    hand_made(bench, *(BAD_FLAG, *stored) if situation == "crashing" else stored)
    if situation.startswith("crashing"):
        crash_loop(bench)
    elif situation != "created":
        bench.docker("start", bench.container)
    if situation == "paused":
        bench.docker("pause", bench.container)
    elif situation == "exited":
        bench.docker("kill", bench.container)


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def told(result: dict[str, Any], *, but_reasons: bool) -> list[dict[str, Any]]:
    """The steps; without their reasons where these are a state that comes and goes while one looks."""
    return [{key: step[key] for key in step if key != "reasons" or not but_reasons} for step in result["steps"]]


def engine_has(bench: Bench) -> dict[str, Any]:
    """All that the engine has of this test, as far as it does not change by itself."""
    containers = bench.docker("ps", "-aq", "--no-trunc", "--filter", f"name={bench.name}").split()
    details = [bench.inspect(container) for container in containers]
    return {
        "containers": {
            found["Name"]: (found["Id"], found["HostConfig"], found["Config"], found["State"]["Paused"])
            for found in details
        },
        "stopped": sorted(
            found["Name"] for found in details if not found["State"]["Running"] and not found["State"]["Restarting"]
        ),
        "volumes": bench.docker("volume", "ls", "-q", "--filter", f"name={bench.name}").split(),
    }


def status(bench: Bench) -> str:
    """The engine's word for this test's container; `missing` when there is none."""
    found = bench.docker("ps", "-a", "--filter", f"name=^/{bench.container}$", "--format", "{{.State}}").strip()
    return found or "missing"


CASES = [
    # situation, state → steps, the container afterwards
    ("unknown", "started", ["pull", "register", "create", "start"], "running"),
    ("unknown", "present", ["register"], "missing"),
    ("unknown", "stopped", ["register"], "missing"),
    ("unknown", "absent", [], "missing"),
    ("missing", "started", ["pull", "create", "start"], "running"),
    ("missing", "present", [], "missing"),
    ("missing", "stopped", [], "missing"),
    ("missing", "absent", ["unregister"], "missing"),
    ("volume alone", "absent", ["remove_volume", "unregister"], "missing"),
    ("created", "started", ["start"], "running"),
    ("created", "present", [], "created"),
    ("created", "stopped", [], "created"),
    ("created", "absent", GONE, "missing"),
    ("running", "started", [], "running"),
    ("running", "present", [], "running"),
    ("running", "stopped", ["stop"], "exited"),
    ("running", "absent", GONE, "missing"),
    ("paused", "started", ["unpause"], "running"),
    ("paused", "present", [], "paused"),
    ("paused", "stopped", ["stop"], "exited"),
    ("paused", "absent", GONE, "missing"),
    ("exited", "started", ["start"], "running"),
    ("exited", "present", [], "exited"),
    ("exited", "stopped", [], "exited"),
    ("exited", "absent", GONE, "missing"),
    ("crashing", "started", ["pull", "recreate"], "running"),
    ("crashing", "present", ["pull", "recreate"], "running"),
    ("crashing", "stopped", ["stop", "pull", "recreate"], "created"),
    ("crashing", "absent", GONE, "missing"),
    ("crashing as declared", "present", [], "restarting"),
    ("crashing as declared", "stopped", ["stop"], "exited"),
    ("crashing as declared", "absent", GONE, "missing"),
]


@pytest.mark.parametrize(
    ("situation", "state", "steps", "afterwards"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_every_state_from_every_situation(
    bench: Bench, situation: str, state: str, steps: list[str], afterwards: str
) -> None:
    """Check mode says the steps and changes nothing, the run does exactly those, and a second run finds nothing."""
    prepare(bench, situation)
    before = bench.tree(bench.directory), engine_has(bench)

    predicted = bench.builder(state=state, check=True)

    assert (bench.tree(bench.directory), engine_has(bench)) == before
    assert verbs(predicted) == steps
    assert predicted["changed"] is bool(steps)
    done = bench.builder(state=state)
    crashing = situation.startswith("crashing")
    assert told(done, but_reasons=crashing) == told(predicted, but_reasons=crashing)
    assert done["diff"] == predicted["diff"] or crashing
    assert done["changed"] is bool(steps)
    again = bench.builder(state=state)
    assert (again["changed"], again["steps"]) == (False, [])
    assert status(bench) == afterwards or (afterwards == "restarting" and status(bench) == "running")
    if state == "absent":
        assert engine_has(bench)["volumes"] == []
        assert not bench.entry.exists()
        assert again["builder"] == {}
    else:
        assert again["builder"]["Name"] == bench.name
    if state == "started":
        assert again["builder"]["Nodes"][0]["Version"] == bench.environment["BUILDX_LAB_BUILDKIT_VERSION"]


@pytest.mark.parametrize(
    ("situation", "options", "before", "after"),
    [
        ("unknown", {}, {"builder": None}, {"status": "running"}),
        ("missing", {"state": "absent"}, {}, {"builder": None}),
        ("created", {"memory": "512m"}, {"memory": 0, "status": "created"}, {"memory": 512 << 20, "status": "running"}),
        ("created", {"env": {"A": "b"}}, {"env": {}}, {"env": {"A": "b"}}),
        ("created", {"env": {"MY_TOKEN": "hidden"}}, {"env": {}}, {"env": {"MY_TOKEN": "********"}}),
        ("created", {"use": True}, {"current": False}, {"current": True}),
        ("exited", {"state": "stopped"}, {}, {}),
    ],
)
def test_diff(
    bench: Bench, situation: str, options: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Diff mode shows before and after of what the steps change, the same in check mode and in the run."""
    prepare(bench, situation)
    node = f"{bench.name}0"

    predicted = bench.builder(check=True, diff=True, **options)
    done = bench.builder(diff=True, **options)

    assert done["diff"] == predicted["diff"]
    for side, expected in (("before", before), ("after", after)):
        shown = done["diff"][side]
        for key, value in expected.items():
            found = shown if key in ("builder", "current") else shown[node]
            assert found[key] == value
    assert "hidden" not in str(done)
    assert (done["diff"]["before"] != done["diff"]["after"]) is done["changed"]


def test_a_daemon_that_never_starts_fails_the_task(bench: Bench) -> None:
    """A builder whose own declaration keeps its daemon from starting fails within the time given, with its log."""
    prepare(bench, "crashing as declared")

    result = bench.module("buildx_builder", name=bench.name, wait_timeout=2)

    assert result["failed"]
    assert "does not answer" in result["msg"]
    assert BAD_FLAG.lstrip("-") in result["msg"]
    assert any(BAD_FLAG.lstrip("-") in line for line in result["daemon_log"])
    assert (result["changed"], result["steps"]) == (False, [])
    assert result["error"]["kind"] == "builder"


@pytest.mark.parametrize("state", ["started", "present", "absent"])
def test_engine_not_reachable(bench: Bench, state: str) -> None:
    """An engine that does not answer fails the task with its address, and nothing is written down."""
    result = bench.module("buildx_builder", name=bench.name, state=state, docker_host="unix:///nonexistent")

    assert result["failed"]
    assert result["error"]["kind"] == "engine_unreachable"
    assert "no Docker engine answers at unix:///nonexistent" in result["msg"]
    assert "Traceback" not in str(result)
    assert not bench.entry.exists()


def test_an_orphan_that_runs_is_removed_by_force_only(bench: Bench) -> None:
    """Without an entry in the store a running container stays unless force says otherwise; then volume and all go."""
    hand_made(bench)
    bench.docker("start", bench.container)

    refused = bench.module("buildx_builder", name=bench.name, state="absent")

    assert refused["failed"]
    assert "force: true" in refused["msg"]
    assert bench.inspect()["State"]["Running"]
    removed = bench.builder(state="absent", force=True)
    assert verbs(removed) == ["remove", "remove_volume"]
    assert status(bench) == "missing"
    assert engine_has(bench)["volumes"] == []


def test_an_orphan_that_is_stopped_is_removed(bench: Bench) -> None:
    """Without an entry in the store a stopped container and its volume are removed without force."""
    hand_made(bench)

    assert verbs(bench.builder(state="absent")) == ["remove", "remove_volume"]
    assert status(bench) == "missing"


def test_a_node_that_another_builder_has_is_left_alone(bench: Bench) -> None:
    """Absence of a name never removes a container that another builder's entry owns."""
    owner = f"{bench.name}-owner"
    bench.buildx("create", "--name", owner, "--driver", "docker-container", "--node", f"{bench.name}0")
    hand_made(bench)

    result = bench.builder(state="absent")

    assert (result["changed"], result["steps"]) == (False, [])
    assert owner in str(result["warnings"])
    assert status(bench) == "created"


def test_an_orphan_is_taken_over(bench: Bench) -> None:
    """A builder that is declared again over its kept container and cache starts them, and makes nothing anew."""
    prepare(bench, "running")
    found = bench.inspect()["Id"]
    bench.in_container("echo kept > /var/lib/buildkit/marker")
    bench.buildx("rm", "--keep-daemon", bench.name)

    result = bench.builder()

    assert verbs(result) == ["register"]
    assert bench.inspect()["Id"] == found
    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"
