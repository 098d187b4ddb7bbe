# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drift is found and repaired by the smallest step, and the cache survives: proven by engine and daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

MIB = 1 << 20
CONFIG_PATH = "/etc/buildkit/buildkitd.toml"
RECREATE = ["pull", "recreate"]
CONFIGURE = ["configure", "restart"]


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def reconcile(bench: Bench, **options: Any) -> list[str]:
    """Check, run, run again: the check says what the run does, and the second run has nothing to do. The verbs."""
    predicted = bench.builder(check=True, **options)
    done = bench.builder(**options)
    assert done["steps"] == predicted["steps"]
    assert done["diff"] == predicted["diff"]
    again = bench.builder(**options)
    assert (again["changed"], again["steps"]) == (False, [])
    assert options.get("state") or again["builder"]["Nodes"][0]["Status"] == "running"
    return verbs(done)


def mark(bench: Bench) -> None:
    """Leave something in the state volume; `marked` says whether the container has it."""
    bench.in_container("echo kept > /var/lib/buildkit/marker")


def marked(bench: Bench) -> bool:
    return bench.in_container("cat /var/lib/buildkit/marker || true") == "kept\n"


def life(bench: Bench) -> tuple[str, str]:
    """Which container it is, and since when it runs: the same as before when nothing was cut off."""
    found = bench.inspect()
    return found["Id"], found["State"]["StartedAt"]


def labels(bench: Bench) -> dict[str, str]:
    """What the daemon itself says of its worker: it has read what it was given."""
    return dict(bench.row()["Nodes"][0]["Labels"])


def test_memory(bench: Bench) -> None:
    """A limit is set, raised and lowered while the daemon runs; taken away, it makes a new container with the cache."""
    bench.builder()
    mark(bench)
    before = life(bench)

    for text, expected in (("512m", 512 * MIB), ("1g", 1024 * MIB), ("256m", 256 * MIB)):
        assert reconcile(bench, memory=text) == ["update", "register"]
        assert bench.inspect()["HostConfig"]["Memory"] == expected
        assert life(bench) == before
        assert bench.stored()["DriverOpts"] == {"memory": text}
    # Other words for the same limit are no drift, and the stored ones stay.
    assert reconcile(bench, memory="268435456") == []
    assert bench.stored()["DriverOpts"] == {"memory": "256m"}

    assert reconcile(bench, memory="") == [*RECREATE, "register"]
    assert bench.inspect()["HostConfig"]["Memory"] == 0
    assert bench.stored()["DriverOpts"] is None
    assert marked(bench)


def test_configuration(bench: Bench) -> None:
    """The first and the last configuration re-create the container, another one restarts the same; the daemon obeys."""
    bench.builder()
    mark(bench)

    def worker(label: str) -> dict[str, Any]:
        return {"worker": {"oci": {"labels": {"proof": label}}}}

    assert reconcile(bench, buildkitd_config=worker("one")) == [*RECREATE, "register"]
    assert labels(bench)["proof"] == "one"
    container = life(bench)[0]

    assert reconcile(bench, buildkitd_config=worker("two")) == [*CONFIGURE, "register"]
    assert labels(bench)["proof"] == "two"
    assert "two" in bench.in_container(f"cat {CONFIG_PATH}")
    assert life(bench)[0] == container
    assert "proof" in bench.buildx("inspect", bench.name)
    # An option that is not given leaves what is stored.
    assert reconcile(bench, memory="512m") == ["update", "register"]
    assert labels(bench)["proof"] == "two"

    assert reconcile(bench, buildkitd_config={}) == [*RECREATE, "register"]
    assert "proof" not in labels(bench)
    assert bench.in_container(f"ls {CONFIG_PATH} || true") == ""
    assert bench.stored()["Files"] is None
    assert marked(bench)


def test_certificates(bench: Bench) -> None:
    """Files that the configuration names travel with it; other content restarts, and one less re-creates."""
    authority = bench.directory / "ca.pem"
    first = Path(bench.environment["BUILDX_LAB_PRIVATE_CA"]).read_text(encoding="utf-8")
    authority.write_text(first, encoding="utf-8")
    bench.builder(buildkitd_config={"registry": {"reg.example:5000": {"ca": [str(authority)]}}})
    inside = "/etc/buildkit/certs/reg.example_5000/ca.pem"
    assert bench.in_container(f"cat {inside}") == first
    assert inside in bench.in_container(f"cat {CONFIG_PATH}")

    second = f"What is said of it\n{first}"
    authority.write_text(second, encoding="utf-8")
    options = {"buildkitd_config": {"registry": {"reg.example:5000": {"ca": [str(authority)]}}}}
    assert reconcile(bench, **options) == [*CONFIGURE, "register"]
    assert bench.in_container(f"cat {inside}") == second

    assert reconcile(bench, buildkitd_config={"debug": True}) == [*RECREATE, "register"]
    assert bench.in_container(f"ls {inside} 2>/dev/null || true") == ""


def test_env(bench: Bench) -> None:
    """Variables are exact: added, changed and taken away, each with a new container and the old cache."""
    bench.builder()
    mark(bench)

    def environment() -> dict[str, str]:
        pairs = bench.in_container("tr '\\0' '\\n' < /proc/1/environ").splitlines()
        return dict(pair.partition("=")[::2] for pair in pairs)

    inherited = environment()
    for env in ({"A": "1", "B": "x,y =z"}, {"A": "2", "NO_PROXY": "", "FLAG": True, "N": 3}, {}):
        assert reconcile(bench, env=env) == [*RECREATE, "register"]
        expected = {name: str(value).lower() if value is True else str(value) for name, value in env.items()}
        assert {name: value for name, value in environment().items() if inherited.get(name) != value} == expected | (
            {"HOSTNAME": environment()["HOSTNAME"]}
        )
    assert marked(bench)


@pytest.mark.parametrize("form", [list, " ".join])
def test_flags(bench: Bench, form: Callable[[list[str]], Any]) -> None:
    """The daemon's arguments, as a list or a string, take effect in a new container with the old cache; '' resets."""
    bench.builder()
    mark(bench)

    assert reconcile(bench, buildkitd_flags=form(["--oci-worker-labels", "proof=flag"])) == [*RECREATE, "register"]
    assert labels(bench)["proof"] == "flag"
    assert reconcile(bench, buildkitd_flags=form([])) == [*RECREATE, "register"]
    assert bench.stored()["Flags"] == ["--allow-insecure-entitlement=network.host"]
    assert "proof" not in labels(bench)
    assert marked(bench)


def test_image(bench: Bench) -> None:
    """Another image is put in place with the old cache, and an empty one means the default again."""
    other = f"{bench.name}/buildkit:2"
    bench.docker("tag", bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"], other)
    bench.builder()
    mark(bench)

    assert reconcile(bench, image=other) == [*RECREATE, "register"]
    assert bench.inspect()["Config"]["Image"] == other
    assert bench.stored()["DriverOpts"] == {"image": other}
    assert reconcile(bench) == []
    assert reconcile(bench, image="") == [*RECREATE, "register"]
    assert bench.inspect()["Config"]["Image"] == bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"]
    assert marked(bench)


def test_several_at_once(bench: Bench) -> None:
    """Differences of several kinds are one step, the largest that is needed; the small ones come together."""
    bench.builder(memory="512m", buildkitd_config={"debug": False})

    together = bench.builder(memory="600m", buildkitd_config={"debug": True})
    assert verbs(together) == ["update", *CONFIGURE, "register"]
    everything = bench.builder(memory="512m", buildkitd_config={"debug": False}, env={"A": "b"})
    assert verbs(everything) == [*RECREATE, "register"]
    assert set(everything["steps"][1]["reasons"]) == {"env", "files", "memory"}
    assert everything["steps"][1]["disruption"] == "builds"
    assert bench.inspect()["HostConfig"]["Memory"] == 512 * MIB


@pytest.mark.parametrize("state", ["present", "stopped"])
def test_a_stopped_builder_is_repaired_and_stays_stopped(bench: Bench, state: str) -> None:
    """What does not run is repaired without being started, by each kind of step."""
    bench.builder(buildkitd_config={"debug": False})
    mark(bench)
    bench.builder(state="stopped")

    assert reconcile(bench, state=state, memory="512m") == ["update", "register"]
    assert reconcile(bench, state=state, buildkitd_config={"debug": True}) == ["configure", "register"]
    assert reconcile(bench, state=state, env={"A": "b"}) == [*RECREATE, "register"]
    found = bench.inspect()
    assert (found["State"]["Status"], found["HostConfig"]["Memory"]) == ("created", 512 * MIB)
    assert verbs(bench.builder()) == ["start"]
    assert "debug = true" in bench.in_container(f"cat {CONFIG_PATH}")
    assert marked(bench)


def replaced(bench: Bench, *options: str, volume: bool = True, program: tuple[str, ...] = ()) -> None:
    """Someone has made this test's container anew by hand, in another way."""
    found = bench.inspect()
    bench.docker("rm", "-f", bench.container)
    mount = ("--mount", f"type=volume,src={bench.volume},dst=/var/lib/buildkit") if volume else ()
    parent = found["HostConfig"]["CgroupParent"]
    bench.docker(
        *("create", "--name", bench.container, "--restart", "unless-stopped", "--memory", "512m"),
        *(("--cgroup-parent", parent) if parent else ()),
        *mount,
        *options,
        *(program or (found["Config"]["Image"], *found["Config"]["Cmd"])),
    )
    files = bench.directory / "etc"
    (files / "buildkit").mkdir(parents=True)
    (files / "buildkit" / "buildkitd.toml").write_text("debug = true\n", encoding="utf-8")
    bench.docker("cp", str(files / "buildkit"), f"{bench.container}:/etc/")
    bench.docker("start", bench.container)


USUAL = ("--privileged", "--init")
OUT_OF_BAND: dict[str, tuple[Callable[[Bench], Any], list[str]]] = {
    "memory changed": (
        lambda bench: bench.docker("update", "--memory", "300m", "--memory-swap", "600m", bench.container),
        ["update"],
    ),
    "processors limited": (lambda bench: bench.docker("update", "--cpu-shares", "512", bench.container), RECREATE),
    "restart policy changed": (lambda bench: bench.docker("update", "--restart", "no", bench.container), ["update"]),
    "configuration edited": (
        lambda bench: bench.in_container(f"echo 'debug = false' > {CONFIG_PATH}"),
        CONFIGURE,
    ),
    "configuration in other words": (
        lambda bench: bench.in_container(f"printf '# mine\\n\\n\"debug\"   =   true\\n' > {CONFIG_PATH}"),
        [],
    ),
    "configuration no TOML": (lambda bench: bench.in_container(f"echo '][' > {CONFIG_PATH}"), CONFIGURE),
    "configuration deleted": (lambda bench: bench.in_container(f"rm {CONFIG_PATH}"), CONFIGURE),
    "certificate added": (
        lambda bench: bench.in_container("mkdir -p /etc/buildkit/certs/x && echo > /etc/buildkit/certs/x/ca.pem"),
        RECREATE,
    ),
    "another file added": (lambda bench: bench.in_container("echo > /etc/buildkit/notes"), []),
    "container removed": (lambda bench: bench.docker("rm", "-f", bench.container), ["pull", "create", "start"]),
    "container killed": (lambda bench: bench.docker("kill", bench.container), ["start"]),
    "container paused": (lambda bench: bench.docker("pause", bench.container), ["unpause"]),
    "made again without privileges": (lambda bench: replaced(bench, "--init"), RECREATE),
    "made again without init": (lambda bench: replaced(bench, "--privileged"), RECREATE),
    "made again with another variable": (lambda bench: replaced(bench, *USUAL, "--env", "A=b"), RECREATE),
    "made again without arguments": (
        lambda bench: replaced(bench, *USUAL, program=(bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"],)),
        RECREATE,
    ),
    "made again without the volume": (lambda bench: replaced(bench, *USUAL, volume=False), RECREATE),
    "made again on the host's network": (lambda bench: replaced(bench, *USUAL, "--network", "host"), RECREATE),
    "made again as it was": (lambda bench: replaced(bench, *USUAL), []),
    "made again from another image": (
        lambda bench: replaced(bench, *USUAL, "--entrypoint", "sleep", program=("busybox", "1000")),
        RECREATE,
    ),
    "declared otherwise by the CLI": (
        lambda bench: bench.buildx(
            *("create", "--name", bench.name, "--node", f"{bench.name}0"),
            *("--driver-opt", "memory=512m", "--driver-opt", "env.FROM=cli"),
        ),
        RECREATE,
    ),
}


@pytest.mark.parametrize("what", OUT_OF_BAND)
def test_out_of_band(bench: Bench, what: str) -> None:
    """Whatever somebody did to a container behind the declaration's back is found, and undone with the cache kept."""
    change, steps = OUT_OF_BAND[what]
    bench.builder(memory="512m", buildkitd_config={"debug": True})
    mark(bench)
    declared = engine_facts(bench)
    if what.startswith("declared"):
        declared = {**declared, "Env": sorted(["FROM=cli", *declared["Env"]])}

    change(bench)

    assert reconcile(bench) == steps
    assert engine_facts(bench) == declared
    assert marked(bench)
    if steps:
        assert bench.in_container(f"cat {CONFIG_PATH}") == "debug = true\n"


def engine_facts(bench: Bench) -> dict[str, Any]:
    """How the engine runs this test's container, as far as a builder decides it."""
    found = bench.inspect()
    config, host = found["Config"], found["HostConfig"]
    return {
        **{key: host[key] for key in ("Memory", "CpuShares", "RestartPolicy", "Privileged", "Init")},
        # The engine has two words for its own bridge.
        "Network": host["NetworkMode"].replace("default", "bridge"),
        "Env": sorted(config["Env"]),
        **{key: config[key] for key in ("Cmd", "Entrypoint", "Image")},
        "Volume": [mount["Name"] for mount in found["Mounts"]],
    }
