# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits, restart policy and network of a builder's container: set, changed, taken away, and changed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Bench

MIB = 1 << 20
UPDATE, RECREATE = ["update", "register"], ["pull", "recreate", "register"]


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def reconcile(bench: Bench, **options: Any) -> list[str]:
    """Check, run, run again: the check says what the run does, and the second run has nothing to do. The verbs."""
    predicted = bench.builder(check=True, **options)
    done = bench.builder(**options)
    assert (done["steps"], done["diff"]) == (predicted["steps"], predicted["diff"])
    again = bench.builder(**options)
    assert (again["changed"], again["steps"]) == (False, [])
    return verbs(done)


def life(bench: Bench) -> tuple[str, str]:
    """Which container it is, and since when it runs: the same as before when nothing was cut off."""
    found = bench.inspect()
    return found["Id"], found["State"]["StartedAt"]


def cgroup(bench: Bench, file: str) -> str:
    """What the kernel says of the daemon's own control group."""
    return bench.in_container(f"cat /sys/fs/cgroup/{file}").strip()


def limits(bench: Bench) -> dict[str, Any]:
    host = bench.inspect()["HostConfig"]
    keys = ("Memory", "MemorySwap", "CpuQuota", "CpuPeriod", "CpuShares", "CpusetCpus", "CpusetMems")
    return {**{key: host[key] for key in keys}, "RestartPolicy": host["RestartPolicy"]["Name"]}


SET: dict[str, Any] = {
    "memory": "512m",
    "memory_swap": "1g",
    "cpu_quota": 50000,
    "cpu_period": 50000,
    "cpu_shares": 512,
    "cpuset_cpus": "0",
    "cpuset_mems": "0",
    "restart_policy": "always",
}
RAISED: dict[str, Any] = {
    "memory": "1g",
    "memory_swap": "3g",
    "cpu_quota": 150000,
    "cpu_period": 200000,
    "cpu_shares": 2048,
    "cpuset_cpus": "0-1",
    "cpuset_mems": "0",
    "restart_policy": "on-failure:3",
}
LOWERED: dict[str, Any] = {
    "memory": "256m",
    "memory_swap": "300m",
    "cpu_quota": 20000,
    "cpu_period": 40000,
    "cpu_shares": 100,
    "cpuset_cpus": "1",
    "cpuset_mems": "0",
    "restart_policy": "no",
}


def test_set_raise_lower_and_take_away(bench: Bench) -> None:
    """Every limit is set and changed while the daemon runs, in one call; some can be taken away so as well."""
    bench.builder()
    before = life(bench)

    for wish, memory, swap in ((SET, 512, 1024), (RAISED, 1024, 3072), (LOWERED, 256, 300)):
        assert reconcile(bench, **wish) == UPDATE
        assert limits(bench) == {
            "Memory": memory * MIB,
            "MemorySwap": swap * MIB,
            "CpuQuota": wish["cpu_quota"],
            "CpuPeriod": wish["cpu_period"],
            "CpuShares": wish["cpu_shares"],
            "CpusetCpus": wish["cpuset_cpus"],
            "CpusetMems": "0",
            "RestartPolicy": wish["restart_policy"].partition(":")[0],
        }
    assert cgroup(bench, "memory/memory.limit_in_bytes") == str(256 * MIB)
    assert cgroup(bench, "cpu/cpu.cfs_quota_us") == "20000"
    assert cgroup(bench, "cpu/cpu.shares") == "100"
    assert reconcile(bench, memory_swap="-1") == UPDATE
    assert limits(bench)["MemorySwap"] == -1
    assert reconcile(bench, memory_swap="", cpu_quota=0, cpu_period=0, restart_policy="") == UPDATE
    assert (limits(bench)["MemorySwap"], limits(bench)["RestartPolicy"]) == (512 * MIB, "unless-stopped")
    assert (cgroup(bench, "cpu/cpu.cfs_quota_us"), cgroup(bench, "cpu/cpu.cfs_period_us")) == ("-1", "100000")
    assert life(bench) == before


def test_taken_away_with_a_new_container(bench: Bench) -> None:
    """The engine cannot take these away: a new container, for each of them alone; the entry is then a plain one."""
    given: dict[str, Any] = {"memory": "512m", "cpu_shares": 512, "cpuset_cpus": "0", "cpuset_mems": "0"}
    bench.builder(**given)
    nothing: dict[str, Any] = {"memory": "", "cpu_shares": 0, "cpuset_cpus": "", "cpuset_mems": ""}

    for option, value in nothing.items():
        predicted = bench.builder(check=True, **{option: value})
        assert verbs(predicted) == RECREATE
        assert set(predicted["steps"][1]["reasons"]) <= {option, "memory_swap"}
    assert reconcile(bench, **nothing) == RECREATE
    assert not any(value for key, value in limits(bench).items() if key != "RestartPolicy")
    assert bench.stored()["DriverOpts"] is None


def test_docker_update(bench: Bench) -> None:
    """What somebody changed with `docker update` is put back, in place where the engine can do that."""
    bench.builder(memory="512m", cpu_shares=512, cpuset_cpus="0-1", restart_policy="always")
    before = life(bench)
    bench.docker(
        *("update", "--memory", "300m", "--memory-swap", "700m", "--cpu-shares", "100", "--cpuset-cpus", "0"),
        *("--cpu-quota", "60000", "--cpu-period", "50000", "--restart", "no", bench.container),
    )

    predicted = bench.builder(check=True)
    assert set(predicted["steps"][0]["reasons"]) == {
        *("memory", "memory_swap", "cpu_shares", "cpuset_cpus", "cpu_quota", "cpu_period", "restart_policy"),
    }
    assert reconcile(bench) == ["update"]
    assert limits(bench) == {
        "Memory": 512 * MIB,
        "MemorySwap": 1024 * MIB,
        "CpuQuota": -1,
        "CpuPeriod": 100000,
        "CpuShares": 512,
        "CpusetCpus": "0-1",
        "CpusetMems": "",
        "RestartPolicy": "always",
    }
    assert life(bench) == before


def test_docker_update_of_what_is_not_declared(bench: Bench) -> None:
    """Limits that cannot be taken away in place, those among them that no builder can have, make a new container."""
    bench.builder()
    changes = {
        ("--pids-limit", "5000"): "other_limits",
        ("--cpu-shares", "100"): "cpu_shares",
        ("--cpuset-cpus", "0"): "cpuset_cpus",
        ("--memory-reservation", "200m"): "other_limits",
        ("--cpus", "1.5"): "other_limits",
    }
    for words, reason in changes.items():
        bench.docker("update", *words, bench.container)
        predicted = bench.builder(check=True)
        assert verbs(predicted) == ["pull", "recreate"]
        assert reason in predicted["steps"][1]["reasons"]
    assert reconcile(bench) == ["pull", "recreate"]
    host = bench.inspect()["HostConfig"]
    assert not any(host[key] for key in ("PidsLimit", "CpuShares", "CpusetCpus", "MemoryReservation", "NanoCpus"))


def test_network_and_group(bench: Bench) -> None:
    """Network and control group are those of a new container; the entitlement comes with the host's network."""
    network = f"{bench.name}-net"
    bench.docker("network", "create", network)
    try:
        bench.builder(buildkitd_flags=["--allow-insecure-entitlement=security.insecure"])
        assert reconcile(bench, network=network, cgroup_parent="/buildx-tests") == RECREATE
        host = bench.inspect()["HostConfig"]
        assert (host["NetworkMode"], host["CgroupParent"]) == (network, "/buildx-tests")
        assert bench.stored()["Flags"] == ["--allow-insecure-entitlement=security.insecure"]

        assert reconcile(bench, network="host", cgroup_parent="") == RECREATE
        host = bench.inspect()["HostConfig"]
        assert (host["NetworkMode"], host["CgroupParent"]) == ("host", "/docker/buildx")
        assert "--allow-insecure-entitlement=network.host" in bench.stored()["Flags"]
        assert reconcile(bench, network="") == RECREATE
        assert bench.inspect()["HostConfig"]["NetworkMode"] in ("default", "bridge")
    finally:
        bench.builder(state="absent")
        bench.docker("network", "rm", network)
