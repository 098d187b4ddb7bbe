# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container that the CLI would make for a node (buildx.md §3.2 to §3.4)."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import spec
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.spec import (
    ContainerSpec,
    EngineFacts,
    digests,
    engine_facts,
    wanted,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

PLAIN = ContainerSpec(
    image="moby/buildkit:buildx-stable-1",
    command=(),
    env=(),
    files=(),
    mount="buildx_buildkit_ci0_state",
)


def of(*, flags: tuple[str, ...] | None = None, files: dict[str, bytes] | None = None, **options: str) -> ContainerSpec:
    words = {key.replace("_", "-"): value for key, value in options.items()}
    return wanted(NodeEntry("ci0", "e", driver_opts=words, flags=flags, files=files or {}), EngineFacts())


def test_a_node_without_settings() -> None:
    assert of() == PLAIN
    assert PLAIN.restart_policy == ("unless-stopped", 0)
    assert (PLAIN.privileged, PLAIN.init) == (True, True)


@pytest.mark.parametrize(
    ("option", "text", "attribute", "value"),
    [
        ("image", "other:1", "image", "other:1"),
        ("image", "", "image", PLAIN.image),
        ("network", "host", "network", "host"),
        ("memory", "512m", "memory", 512 << 20),
        ("memory", "0", "memory", 0),
        ("memory-swap", "1g", "memory_swap", 1 << 30),
        ("memory-swap", "-1", "memory_swap", -1),
        ("cpu-quota", "50000", "cpu_quota", 50000),
        ("cpu-period", "100000", "cpu_period", 100000),
        ("cpu-shares", "512", "cpu_shares", 512),
        ("cpu-shares", "", "cpu_shares", 0),
        ("cpuset-cpus", "0-1", "cpuset_cpus", "0-1"),
        ("cpuset-mems", "0", "cpuset_mems", "0"),
        ("restart-policy", "always", "restart_policy", ("always", 0)),
        ("restart-policy", "on-failure:3", "restart_policy", ("on-failure", 3)),
        ("restart-policy", "", "restart_policy", ("", 0)),
        ("env.HTTP_PROXY", "http://p", "env", (("HTTP_PROXY", "http://p"),)),
        # What the daemon does not see.
        ("default-load", "true", "image", PLAIN.image),
        ("provenance-add-gha", "false", "image", PLAIN.image),
        ("cgroup-parent", "/mine", "cgroup_parent", ""),
    ],
)
def test_each_driver_option(option: str, text: str, attribute: str, value: Any) -> None:
    found = wanted(NodeEntry("ci0", "e", driver_opts={option: text}), EngineFacts())
    assert getattr(found, attribute) == value
    untouched = {name: getattr(found, name) for name in found.__dataclass_fields__ if name != attribute}
    assert untouched == {name: getattr(PLAIN, name) for name in untouched}


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("memory", "lots", "invalid size: 'lots'"),
        ("cpu-quota", "half", "cpu-quota must be a whole number"),
        ("cpu-shares", "1.5", "cpu-shares must be a whole number"),
        ("restart-policy", ":3", "no policy provided before colon"),
        ("restart-policy", "on-failure:x", "maximum retry count must be an integer"),
        ("restart-policy", "on-failure:", "maximum retry count must be an integer"),
    ],
)
def test_what_the_cli_refuses(option: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wanted(NodeEntry("ci0", "e", driver_opts={option: text}), EngineFacts())


def test_arguments() -> None:
    """The configuration stands first, so that a user's own --config wins."""
    files = {spec.CONFIG_FILE: b""}
    assert of(flags=("--debug",)).command == ("--debug",)
    assert of(flags=("--debug",), files=files).command == ("--config", "/etc/buildkit/buildkitd.toml", "--debug")
    assert of(files={"certs/r/ca.pem": b""}).command == ()


def test_variables_are_sorted_and_may_hold_anything() -> None:
    found = wanted(NodeEntry("ci0", "e", driver_opts={"env.b": "x=y,z", "env.A": "", "memory": "1g"}), EngineFacts())
    assert found.env == (("A", ""), ("b", "x=y,z"))


@pytest.mark.parametrize(
    ("facts", "options", "parent", "userns"),
    [
        (EngineFacts(), {}, "", ""),
        (EngineFacts(cgroupfs=True), {}, "/docker/buildx", ""),
        (EngineFacts(cgroupfs=True), {"cgroup-parent": "/mine"}, "/mine", ""),
        (EngineFacts(cgroupfs=True), {"cgroup-parent": ""}, "/docker/buildx", ""),
        (EngineFacts(userns=True), {}, "", "host"),
    ],
)
def test_what_the_engine_decides(facts: EngineFacts, options: dict[str, str], parent: str, userns: str) -> None:
    found = wanted(NodeEntry("ci0", "e", driver_opts=options), facts)
    assert (found.cgroup_parent, found.userns) == (parent, userns)


@pytest.mark.parametrize(
    ("info", "facts"),
    [
        ({"CgroupDriver": "cgroupfs"}, EngineFacts(cgroupfs=True)),
        ({"CgroupDriver": "systemd", "SecurityOptions": ["name=seccomp,profile=builtin"]}, EngineFacts()),
        ({"SecurityOptions": ["name=apparmor", "name=userns"]}, EngineFacts(userns=True)),
        ({"SecurityOptions": None}, EngineFacts()),
        ({}, EngineFacts()),
    ],
)
def test_facts_of_an_engine(info: dict[str, Any], facts: EngineFacts) -> None:
    assert engine_facts(info) == facts


def test_toml_counts_by_what_it_says() -> None:
    one = {"buildkitd.toml": b'debug = true\n[worker.oci]\nenabled = true # yes\nname = "x"\n'}
    other = {"buildkitd.toml": b"worker = { oci = { name = 'x', enabled = true } }\ndebug=true"}
    assert digests(one) == digests(other)
    assert digests(one) != digests({"buildkitd.toml": b"debug = false\n"})


@pytest.mark.parametrize("content", [b"no toml [", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_what_is_no_toml_differs_from_whatever_is(content: bytes) -> None:
    """Somebody wrote it into the container; looking must not fail."""
    [(path, digest)] = digests({"buildkitd.toml": content})
    assert path == "buildkitd.toml"
    assert digest != digests({"buildkitd.toml": b""})[0][1]


def test_other_files_count_byte_for_byte_and_in_order() -> None:
    found = digests({"certs/r/b.pem": b"x ", "certs/r/a.pem": b"x"})
    assert [path for path, _digest in found] == ["certs/r/a.pem", "certs/r/b.pem"]
    assert found[0][1] != found[1][1]


def test_a_container_that_is_set_aside_can_be_no_nodes_own() -> None:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.names import node_name

    assert node_name(spec.previous_name("ci0")) is None
