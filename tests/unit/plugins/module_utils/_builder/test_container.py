# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of attributes: what is sent comes back as what was wanted, and each difference has its repair."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import container
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.container import (
    CONFIGURE,
    RECREATE,
    UPDATE,
    create_body,
    differences,
    live_limits,
    parse,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.spec import (
    ContainerSpec,
    EngineFacts,
    NodeState,
    digests,
    wanted,
)

Inspect = dict[str, Any]
IMAGE: Mapping[str, Any] = MappingProxyType(
    {
        "Id": "sha256:1a",
        "Config": {"Env": ["PATH=/usr/bin:/bin", "BUILDKIT_SETUP_CGROUPV2_ROOT=1"], "Entrypoint": ["buildkitd"]},
    }
)
GIB = 1 << 30


def engine_shows(
    body: Mapping[str, Any], image: Optional[Mapping[str, Any]] = IMAGE, *, swap_counted: bool = True
) -> Inspect:
    """What inspect says after the body was sent, with what the engine fills in.

    As dockerd 26.1.5 does [V]: variables, entrypoint and command of the image; the network `bridge`; twice the
    memory as swap, -1 on a kernel that does not count it; `no` for a restart policy without a name.
    """
    defaults = (image or {}).get("Config") or {}
    sent = dict(body["HostConfig"])
    env = list(body.get("Env") or [])
    own = {pair.partition("=")[0] for pair in env}
    env += [pair for pair in defaults.get("Env") or [] if pair.partition("=")[0] not in own]
    memory = sent.get("Memory", 0)
    policy = sent["RestartPolicy"]
    host = {
        "NetworkMode": "bridge", "Memory": 0, "CpuQuota": 0, "CpuPeriod": 0, "CpuShares": 0, "CpusetCpus": "",
        "CpusetMems": "", "CgroupParent": "", "UsernsMode": "", "DeviceRequests": None,
        "MemorySwap": 0 if not memory else 2 * memory if swap_counted else -1,
        **sent,
        "RestartPolicy": {**policy, "Name": policy["Name"] or "no"},
    }  # fmt: skip
    return {
        "Id": "c" * 64,
        "Image": "sha256:1a",
        "State": {"Status": "running", "Running": True},
        "Config": {
            "Image": body["Image"],
            "Cmd": body["Cmd"] if body["Cmd"] is not None else defaults.get("Cmd"),
            "Env": env,
            "Entrypoint": defaults.get("Entrypoint"),
        },
        "HostConfig": host,
        "Mounts": [
            {"Type": "volume", "Name": mount["Source"], "Source": "/v/x", "Destination": mount["Target"]}
            for mount in sent["Mounts"]
        ],
    }  # fmt: skip


def found(wish: ContainerSpec, inspect: Inspect, image: Optional[Mapping[str, Any]] = IMAGE) -> NodeState:
    return parse(inspect, image, dict(wish.files), wish)


def made(wish: ContainerSpec, image: Optional[Mapping[str, Any]] = IMAGE) -> NodeState:
    """The node after a container was made for the wish."""
    return found(wish, engine_shows(create_body(wish, {}), image), image)


VALUES = {
    "image": st.sampled_from(["moby/buildkit:v0.34.2", "docker.io/moby/buildkit:v0.34.2", ""]),
    "network": st.sampled_from(["host", "bridge", "default", "", "mine"]),
    "memory": st.sampled_from(["64m", "1g", "1024m", "0", ""]),
    "memory-swap": st.sampled_from(["2g", "-1", "0", ""]),
    "cpu-quota": st.sampled_from(["50000", "0", ""]),
    "cpu-period": st.sampled_from(["100000", "0"]),
    "cpu-shares": st.sampled_from(["512", "0"]),
    "cpuset-cpus": st.sampled_from(["0-1", ""]),
    "cpuset-mems": st.sampled_from(["0", ""]),
    "cgroup-parent": st.sampled_from(["/mine", ""]),
    "restart-policy": st.sampled_from(["", "no", "always", "unless-stopped", "on-failure:3"]),
    "default-load": st.just("true"),
    "env.PATH": st.sampled_from(["/usr/bin:/bin", "/mine"]),
    "env.BUILDKIT_SETUP_CGROUPV2_ROOT": st.sampled_from(["1", "0", ""]),
    "env.X": st.sampled_from(["", "a=b", "c d"]),
}
OPTIONS = st.fixed_dictionaries({}, optional=VALUES)
FLAGS = st.none() | st.lists(st.sampled_from(["--debug", "--oci-worker=false", "--root"]), max_size=3).map(tuple)
FILES = st.dictionaries(st.sampled_from(["buildkitd.toml", "certs/r/ca.pem"]), st.sampled_from([b"", b"debug = true"]))
IMAGES = st.fixed_dictionaries(
    {},
    optional={
        "Env": st.lists(st.sampled_from(IMAGE["Config"]["Env"]), unique=True) | st.none(),
        "Entrypoint": st.sampled_from([["buildkitd"], None, []]),
        "Cmd": st.sampled_from([["--debug"], [], None]),
    },
).map(lambda config: {"Id": "sha256:1a", "Config": config})


ENTRIES = st.builds(
    lambda options, flags, files: NodeEntry("ci0", "e", None, options, flags, files), OPTIONS, FLAGS, FILES
)
FACTS = st.builds(EngineFacts, cgroupfs=st.booleans(), userns=st.booleans())


@given(entry=ENTRIES, facts=FACTS, image=st.just(IMAGE) | IMAGES, swap=st.booleans())
@settings(deadline=None, max_examples=150)
def test_what_was_wanted_is_what_is_found(entry: NodeEntry, facts: EngineFacts, image: Inspect, swap: bool) -> None:
    """For any driver options, on any image, a container that was just made has no drift."""
    wish = wanted(entry, dataclasses.replace(facts, swap_limit=swap))
    inspect = engine_shows(create_body(wish, {}), image, swap_counted=swap)
    node = parse(inspect, image, dict(wish.files), wish, swap_limit=swap)
    assert differences(wish, node.spec) == {}


@given(entry=ENTRIES)
@settings(deadline=None, max_examples=50)
def test_an_image_that_is_gone_is_no_drift(entry: NodeEntry) -> None:
    """The container goes on without it; what the image had set is then not known."""
    wish = wanted(entry, EngineFacts())
    inspect = engine_shows(create_body(wish, {}), IMAGE)
    assert differences(wish, parse(inspect, None, dict(wish.files), wish).spec) == {}


PLAIN = wanted(NodeEntry("ci0", "e"), EngineFacts())
RICH = ContainerSpec(
    image="moby/buildkit:v0.34.2",
    command=("--debug",),
    env=(("A", "1"),),
    files=(("buildkitd.toml", "d1"),),
    mount=PLAIN.mount,
    network="host",
    memory=GIB,
    memory_swap=3 * GIB,
    cpu_quota=50000,
    cpu_period=100000,
    cpu_shares=512,
    cpuset_cpus="0",
    cpuset_mems="0",
    cgroup_parent="/docker/buildx",
    restart_policy=("always", 0),
)


@pytest.mark.parametrize(
    ("attribute", "wish", "there", "way"),
    [
        ("image", "moby/buildkit:b", "moby/buildkit:a", RECREATE),
        ("command", ("--debug",), (), RECREATE),
        ("command", (), ("--debug",), RECREATE),
        ("env", (("A", "1"),), (("A", "2"),), RECREATE),
        ("env", (), (("A", "1"),), RECREATE),
        ("mount", "buildx_buildkit_ci0_state", "", RECREATE),
        ("network", "host", "", RECREATE),
        ("memory", GIB, 0, UPDATE),
        ("memory", GIB, 2 * GIB, UPDATE),
        ("memory", 0, GIB, RECREATE),
        ("memory_swap", -1, 2 * GIB, UPDATE),
        ("memory_swap", 0, 5 * GIB, UPDATE),
        ("cpu_quota", 1, 2, UPDATE),
        ("cpu_quota", 0, 2, UPDATE),
        ("cpu_period", 1, 2, UPDATE),
        ("cpu_period", 0, 2, UPDATE),
        ("cpu_shares", 1, 2, UPDATE),
        ("cpu_shares", 0, 2, RECREATE),
        ("cpuset_cpus", "0", "0-1", UPDATE),
        ("cpuset_cpus", "", "0-1", RECREATE),
        ("cpuset_mems", "0", "", UPDATE),
        ("cpuset_mems", "", "0", RECREATE),
        ("cgroup_parent", "/a", "/b", RECREATE),
        ("restart_policy", ("always", 0), ("unless-stopped", 0), UPDATE),
        ("restart_policy", ("", 0), ("always", 0), UPDATE),
        ("userns", "host", "", RECREATE),
        ("privileged", True, False, RECREATE),
        ("init", True, False, RECREATE),
        ("files", (("buildkitd.toml", "b"),), (("buildkitd.toml", "a"),), CONFIGURE),
        ("files", (("buildkitd.toml", "b"),), (), CONFIGURE),
        ("files", (("buildkitd.toml", "b"), ("certs/x", "c")), (("buildkitd.toml", "b"),), CONFIGURE),
        ("files", (("buildkitd.toml", "b"),), (("buildkitd.toml", "b"), ("certs/x", "c")), RECREATE),
        ("files", (), (("buildkitd.toml", "b"),), RECREATE),
    ],
)
def test_the_smallest_repair_of_each_difference(attribute: str, wish: Any, there: Any, way: str) -> None:
    one = dataclasses.replace(RICH, **{attribute: wish})
    other = dataclasses.replace(RICH, **{attribute: there})
    assert differences(one, other) == {attribute: way}
    assert differences(one, one) == {}


def test_swap_without_a_limit_of_memory_takes_a_new_container() -> None:
    """Beside a limit of the memory there is a word for it: twice as much."""
    plain = dataclasses.replace(RICH, memory=0, memory_swap=0)
    assert differences(plain, dataclasses.replace(plain, memory_swap=5 * GIB)) == {"memory_swap": RECREATE}


@pytest.mark.parametrize("name", container.OTHER_LIMITS)
def test_limits_that_no_builder_has(name: str) -> None:
    """Somebody gave them to the container by hand; the engine cannot take them away."""
    inspect = engine_shows(create_body(PLAIN, {}))
    inspect["HostConfig"][name] = 7
    assert differences(PLAIN, found(PLAIN, inspect).spec) == {"other_limits": RECREATE}


def test_every_attribute_has_its_row() -> None:
    assert list(container.ATTRIBUTES) == [field.name for field in dataclasses.fields(ContainerSpec)]


def test_each_limit_that_can_be_changed_in_place_says_how() -> None:
    """An UPDATE without a live form would report a change and do nothing."""
    for name, row in container.ATTRIBUTES.items():
        value = getattr(RICH, name)
        if row.repair(value, None if name != "files" else (), RICH) == UPDATE:
            assert row.live(RICH), name


def test_one_call_changes_all_limits() -> None:
    assert live_limits(RICH, ("memory", "cpu_quota", "cpuset_cpus", "restart_policy")) == {
        "mem_limit": GIB,
        "memswap_limit": 3 * GIB,
        "cpu_quota": 50000,
        "cpuset_cpus": "0",
        "restart_policy": {"Name": "always", "MaximumRetryCount": 0},
    }


def test_memory_takes_its_swap_along() -> None:
    """The engine refuses memory above the swap limit, which it had set to twice the old memory by itself."""
    wish = dataclasses.replace(PLAIN, memory=4 * GIB)
    assert live_limits(wish, ("memory",)) == {"mem_limit": 4 * GIB, "memswap_limit": 8 * GIB}
    endless = dataclasses.replace(wish, memory_swap=-1)
    assert live_limits(endless, ("memory",)) == {"mem_limit": 4 * GIB, "memswap_limit": -1}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("moby/buildkit:x", "docker.io/moby/buildkit:x", True),
        ("sha256:" + "a" * 64, "sha256:" + "a" * 64, True),
        ("sha256:" + "a" * 64, "moby/buildkit:x", False),
    ],
)
def test_images_are_compared_by_what_their_names_mean(one: str, other: str, same: bool) -> None:
    wish, there = (dataclasses.replace(PLAIN, image=name) for name in (one, other))
    assert (differences(wish, there) == {}) is same


def test_the_body_of_a_plain_builder() -> None:
    """What v0.38.2 sends, and no more (buildx.md §3.4)."""
    entry = NodeEntry("ci0", "e", flags=("--allow-insecure-entitlement=network.host",))
    assert create_body(wanted(entry, EngineFacts(cgroupfs=True)), {}) == {
        "Image": "moby/buildkit:buildx-stable-1",
        "Cmd": ["--allow-insecure-entitlement=network.host"],
        "HostConfig": {
            "Privileged": True,
            "Init": True,
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "Mounts": [{"Type": "volume", "Source": "buildx_buildkit_ci0_state", "Target": "/var/lib/buildkit"}],
            "CgroupParent": "/docker/buildx",
        },
    }


def test_the_body_of_a_builder_with_everything() -> None:
    body = create_body(RICH, {"DeviceRequests": [{"Count": -1}]})
    assert body["Env"] == ["A=1"]
    host = body["HostConfig"]
    assert host["DeviceRequests"] == [{"Count": -1}]
    assert (host["NetworkMode"], host["Memory"], host["MemorySwap"]) == ("host", GIB, 3 * GIB)
    assert (host["CpuQuota"], host["CpuPeriod"], host["CpuShares"]) == (50000, 100000, 512)
    assert (host["CpusetCpus"], host["CpusetMems"], host["CgroupParent"]) == ("0", "0", "/docker/buildx")
    assert "UsernsMode" not in host


def test_devices_are_kept_through_a_new_container() -> None:
    """The CLI finds graphics cards by trying; what it found is not lost (buildx.md §3.4)."""
    inspect = engine_shows(create_body(PLAIN, {"DeviceRequests": [{"Count": -1}]}))
    assert found(PLAIN, inspect).body == {"DeviceRequests": [{"Count": -1}]}
    assert made(PLAIN).body == {}


# What counts as found.


def looked(wish: ContainerSpec = PLAIN, **changes: Any) -> ContainerSpec:
    """The spec that is found after something was changed behind our back."""
    inspect = engine_shows(create_body(wish, {}))
    for path, value in changes.items():
        section, _dot, key = path.partition("__")
        inspect[section][key] = value
    return found(wish, inspect).spec


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        ({"HostConfig__Memory": GIB, "HostConfig__MemorySwap": 2 * GIB}, "memory", GIB),
        ({"HostConfig__CpuShares": 2}, "cpu_shares", 2),
        ({"HostConfig__CpusetCpus": "1"}, "cpuset_cpus", "1"),
        ({"HostConfig__NetworkMode": "host"}, "network", "host"),
        ({"HostConfig__Privileged": False}, "privileged", False),
        ({"HostConfig__Init": None}, "init", False),
        ({"HostConfig__UsernsMode": "host"}, "userns", "host"),
        ({"HostConfig__CgroupParent": "/x"}, "cgroup_parent", "/x"),
        ({"HostConfig__RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}, "restart_policy", ("no", 0)),
        ({"HostConfig__RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}, "restart_policy", ("always", 0)),
        ({"Config__Cmd": ["--debug"]}, "command", ("--debug",)),
        ({"Config__Entrypoint": ["sh", "-c"]}, "command", ("sh", "-c")),
        ({"Config__Image": "busybox"}, "image", "busybox"),
        ({"Config__Env": ["PATH=/usr/bin:/bin", "X=1"]}, "env", (("X", "1"),)),
        ({"Config__Env": ["PATH=/mine"]}, "env", (("PATH", "/mine"),)),
    ],
)  # fmt: skip
def test_a_change_behind_our_back_is_seen(changes: dict[str, Any], attribute: str, value: Any) -> None:
    there = looked(**changes)
    assert getattr(there, attribute) == value
    assert list(differences(PLAIN, there)) == [attribute]


def test_a_missing_key_is_as_if_it_were_not_set() -> None:
    """Engines leave out what they do not know."""
    inspect = engine_shows(create_body(PLAIN, {}))
    for key in ("CpuShares", "UsernsMode", "DeviceRequests", "CpusetMems", "MemorySwap"):
        del inspect["HostConfig"][key]
    inspect["Config"]["Env"] = None
    assert differences(PLAIN, found(PLAIN, inspect).spec) == {}


@pytest.mark.parametrize("mounts", [None, [], [{"Destination": "/x", "Name": "v"}]])
def test_a_container_without_the_state_volume(mounts: Any) -> None:
    inspect = engine_shows(create_body(PLAIN, {}))
    inspect["Mounts"] = mounts
    assert differences(PLAIN, found(PLAIN, inspect).spec) == {"mount": RECREATE}


def test_a_directory_as_the_state_is_a_difference() -> None:
    inspect = engine_shows(create_body(PLAIN, {}))
    inspect["Mounts"] = [{"Type": "bind", "Source": "/srv/state", "Destination": "/var/lib/buildkit"}]
    assert found(PLAIN, inspect).spec.mount == "/srv/state"


def test_only_our_files_count() -> None:
    """The image, and the CLI in GitHub's runners, put others beside them."""
    files = {
        "buildkitd.toml": "a",
        "certs/r/ca.pem": "b",
        "provenance.d/github_actions_context.json": "c",
        "cni.json": "d",
    }
    node = parse(engine_shows(create_body(PLAIN, {})), IMAGE, files, PLAIN)
    assert node.spec.files == (("buildkitd.toml", "a"), ("certs/r/ca.pem", "b"))


def test_what_it_is_besides_its_attributes() -> None:
    node = made(PLAIN)
    assert (node.status, node.container_id, node.image_id) == ("running", "c" * 64, "sha256:1a")


def test_files_by_their_digest() -> None:
    entry = NodeEntry("ci0", "e", files={"buildkitd.toml": b"debug = true\n"})
    wish = wanted(entry, EngineFacts())
    inspect = engine_shows(create_body(wish, {}))
    written_otherwise = dict(digests({"buildkitd.toml": b"# by hand\ndebug=true"}))
    assert differences(wish, parse(inspect, IMAGE, written_otherwise, wish).spec) == {}
    changed = dict(digests({"buildkitd.toml": b"debug = false"}))
    assert differences(wish, parse(inspect, IMAGE, changed, wish).spec) == {"files": CONFIGURE}
