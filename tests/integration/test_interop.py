# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One store and one engine for the modules and the real CLI: each finds the other's builders as it would make them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

CONFIG = """\
# A comment is lost, the order is not kept, and 'quotes' are others.
insecure-entitlements = ["security.insecure"]
debug = true
[worker.oci]
  max-parallelism = 4
  gc = true
  [[worker.oci.gcpolicy]]
    keepDuration = "48h"
    filters = ["type==source.local", "type==exec.cachemount"]
[registry."docker.io"]
  mirrors = ["mirror.example:5000"]
[registry."my_reg.io:5000"]
  http = true
"""
CONFIG_AS_DICT: dict[str, Any] = {
    "insecure-entitlements": ["security.insecure"],
    "debug": True,
    "worker": {
        "oci": {
            "max-parallelism": 4,
            "gc": True,
            "gcpolicy": [{"keepDuration": "48h", "filters": ["type==source.local", "type==exec.cachemount"]}],
        }
    },
    "registry": {"docker.io": {"mirrors": ["mirror.example:5000"]}, "my_reg.io:5000": {"http": True}},
}
CERTIFICATES = """\
[registry."reg.example:5000"]
  ca = ["{0}/ca.pem"]
  [[registry."reg.example:5000".keypair]]
    key = "{0}/key.pem"
    cert = "{0}/cert.pem"
"""


@dataclass
class Setting:
    """The same builder in the words of the CLI and of the module; `config` is the file for --buildkitd-config.

    In config and options, {0} stands for the directory of the test.
    """

    arguments: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    config: str = ""


SETTINGS = {
    "plain": Setting(),
    "memory": Setting(["--driver-opt", "memory=512m"], {"memory": "512m"}),
    "image": Setting(["--driver-opt", "image=busybox:latest"], {"image": "busybox:latest"}),
    "env": Setting(
        ["--driver-opt", 'env.A=b,"env.LIST=x,y"', "--driver-opt", '"env.ODD=<&>="" \'é\u2028\\"'],
        {"env": {"A": "b", "LIST": "x,y", "ODD": "<&>=\" 'é\u2028\\"}},
    ),
    "flags": Setting(
        ["--buildkitd-flags", "--debug --oci-worker-labels 'a=b c'"],
        {"buildkitd_flags": ["--debug", "--oci-worker-labels", "a=b c"]},
    ),
    "flags as text": Setting(
        ["--buildkitd-flags", "--debug '--oci-worker-labels' \"a=b c\" # rest"],
        {"buildkitd_flags": "--debug '--oci-worker-labels' \"a=b c\" # rest"},
    ),
    "entitlements": Setting(
        ["--buildkitd-flags", "--allow-insecure-entitlement security.insecure --debug"],
        {"buildkitd_flags": ["--allow-insecure-entitlement", "security.insecure", "--debug"]},
    ),
    "entitlements behind another flag": Setting(
        ["--buildkitd-flags", "--debug --allow-insecure-entitlement=security.insecure"],
        {"buildkitd_flags": "--debug --allow-insecure-entitlement=security.insecure"},
    ),
    "no arguments at all": Setting(
        [],
        {"buildkitd_config": {"insecure-entitlements": ["network.host"]}},
        config='insecure-entitlements = ["network.host"]\n',
    ),
    "configuration": Setting([], {"buildkitd_config": CONFIG_AS_DICT}, config=CONFIG),
    "certificates": Setting(
        [],
        {
            "buildkitd_config": {
                "registry": {
                    "reg.example:5000": {
                        "ca": ["{0}/ca.pem"],
                        "keypair": [{"key": "{0}/key.pem", "cert": "{0}/cert.pem"}],
                    }
                }
            }
        },
        config=CERTIFICATES,
    ),
    "everything": Setting(
        [
            *("--driver-opt", "memory=600m", "--driver-opt", "env.A=b", "--driver-opt", "env.B=c"),
            *("--buildkitd-flags", "--debug"),
        ],
        {
            "memory": "600m",
            "env": {"B": "c", "A": "b"},
            "buildkitd_flags": ["--debug"],
            "buildkitd_config": CONFIG_AS_DICT,
        },
        config=CONFIG,
    ),
}


def words(bench: Bench, setting: Setting) -> tuple[list[str], dict[str, Any]]:
    """The arguments and the options of a setting, with the files that they name."""
    directory = str(bench.directory)
    arguments = list(setting.arguments)
    if setting.config:
        for name in ("ca", "key", "cert"):  # of the lab's registry: what is no pair would be refused
            shutil.copyfile(
                f"{os.path.dirname(os.environ['BUILDX_LAB_PRIVATE_CA'])}/{name}.pem", bench.directory / f"{name}.pem"
            )
        config = bench.directory / "given.toml"
        config.write_text(setting.config.replace("{0}", directory), encoding="utf-8")
        arguments += ["--buildkitd-config", str(config)]
    options: dict[str, Any] = json.loads(json.dumps(setting.options).replace("{0}", directory))
    return arguments, options


def create(bench: Bench, *arguments: str) -> None:
    bench.buildx("create", "--name", bench.name, "--driver", "docker-container", *arguments)


@pytest.mark.parametrize("what", SETTINGS)
def test_entries_are_the_same_bytes(bench: Bench, what: str) -> None:
    """The entry that the module writes is byte for byte the CLI's, and the module finds nothing to do on the CLI's."""
    arguments, options = words(bench, SETTINGS[what])
    cli = bench.directory / "cli"
    create_in(bench, cli, *arguments)

    bench.builder(state="present", **options)

    ours = bench.entry
    theirs = cli / "instances" / bench.name
    assert ours.read_bytes() == theirs.read_bytes()
    assert oct(ours.stat().st_mode) == oct(theirs.stat().st_mode)
    for again in ({}, options):
        result = bench.builder(state="present", buildx_config=str(cli), **again)
        assert (result["changed"], result["steps"]) == (False, [])
    activity = [(store / "activity" / bench.name).read_bytes() for store in (bench.store, cli)]
    assert len(activity[0]) == len(activity[1])
    assert activity[0][-1:] == activity[1][-1:] == b"Z"


def create_in(bench: Bench, store: Path, *arguments: str) -> None:
    """`docker buildx create` in another store than the test's."""
    bench.environment["BUILDX_CONFIG"] = str(store)
    try:
        create(bench, *arguments)
    finally:
        del bench.environment["BUILDX_CONFIG"]


@pytest.mark.parametrize("named", [False, True])
def test_default_configuration(bench: Bench, *, named: bool) -> None:
    """The user's default configuration is taken as the CLI takes it, and not when one is given."""
    cli = bench.directory / "cli"
    for store in (bench.store, cli):
        store.mkdir()
        (store / "buildkitd.default.toml").write_text(CONFIG, encoding="utf-8")
    arguments, options = words(bench, SETTINGS["no arguments at all"] if named else SETTINGS["plain"])
    create_in(bench, cli, *arguments)

    bench.builder(state="present", **options)

    assert bench.entry.read_bytes() == (cli / "instances" / bench.name).read_bytes()
    assert bench.builder(state="present", buildx_config=str(cli))["changed"] is False


def test_endpoint_of_a_context(bench: Bench) -> None:
    """A builder in a named context has the context's name for its endpoint, as the CLI's has."""
    context = f"{bench.name}-context"
    bench.docker("context", "create", context, "--docker", f"host={bench.environment['DOCKER_HOST']}")
    cli = bench.directory / "cli"
    create_in(bench, cli, context)

    bench.builder(state="present", endpoint=context)

    assert bench.entry.read_bytes() == (cli / "instances" / bench.name).read_bytes()


def container(bench: Bench) -> dict[str, Any]:
    """All of a container that its maker decides, and the files that it was given."""
    found = bench.inspect()
    del found["Config"]["Hostname"]  # the beginning of its id
    found["Config"]["Env"].sort()  # the CLI's order changes from run to run
    parts = {key: found[key] for key in ("Path", "Args", "Image", "Config", "HostConfig", "Mounts")}
    volume = json.loads(bench.docker("volume", "inspect", bench.volume))[0]
    del volume["CreatedAt"]
    return {**parts, "volume": volume, "files": files(bench), "networks": sorted(found["NetworkSettings"]["Networks"])}


def files(bench: Bench) -> dict[str, tuple[Any, ...]]:
    """Everything in the directory of the configuration, with owners, modes, times and contents."""
    command = ["docker", "cp", f"{bench.container}:/etc/buildkit", "-"]
    done = subprocess.run(command, env=bench.environment, capture_output=True, timeout=60, check=False)
    if done.returncode:
        return {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {
            entry.name: (entry.type, entry.mode, entry.uid, entry.gid, entry.mtime, read(archive, entry))
            for entry in archive
        }


def read(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(entry)
    return stream.read() if stream else b""


@pytest.mark.parametrize("what", ["plain", "no arguments at all", "certificates", "everything"])
def test_containers_are_the_same(bench: Bench, what: str) -> None:
    """Booted by the CLI or by the module, containers, volumes and their files differ in nothing but their ids."""
    arguments, options = words(bench, SETTINGS[what])
    create(bench, *arguments, "--bootstrap")
    theirs, entry = container(bench), bench.entry.read_bytes()
    for again in ({}, options):
        result = bench.builder(**again)
        assert (result["changed"], result["steps"]) == (False, [])
    bench.buildx("rm", bench.name)

    bench.builder(**options)

    assert container(bench) == theirs
    assert bench.entry.read_bytes() == entry


def test_what_only_the_cli_can_set(bench: Bench) -> None:
    """Options that the module has no name for are kept, found as they are, and put into a container that it makes."""
    create(
        bench,
        *("--driver-opt", "cpu-shares=512,cpu-quota=50000,cpu-period=100000,cpuset-cpus=0,cpuset-mems=0"),
        *("--driver-opt", "memory=512m,memory-swap=1g,network=host,restart-policy=on-failure:3"),
        *("--driver-opt", "cgroup-parent=/docker/buildx/deeper,default-load=true,provenance-add-gha=false"),
        *("--platform", "linux/amd64,linux/arm64", "--bootstrap"),
    )
    theirs, entry = container(bench), bench.entry.read_bytes()
    assert theirs["HostConfig"]["NetworkMode"] == "host"
    assert bench.builder()["changed"] is False
    bench.docker("rm", "-f", bench.container)

    assert [step["step"] for step in bench.builder()["steps"]] == ["pull", "create", "start"]

    assert container(bench) == theirs
    assert bench.entry.read_bytes() == entry
    assert [step["step"] for step in bench.builder(memory="600m")["steps"]] == ["update", "register"]
    changed = bench.inspect()["HostConfig"]
    assert (changed["Memory"], changed["MemorySwap"], changed["CpuShares"]) == (600 << 20, 1 << 30, 512)
    kept = {**json.loads(entry)["Nodes"][0]["DriverOpts"], "memory": "600m"}
    assert bench.stored()["DriverOpts"] == kept


def test_the_cli_lists_inspects_builds_and_removes(bench: Bench) -> None:
    """A builder that the module made is the CLI's: to list, to inspect, to build with, to stop and to remove."""
    bench.builder(memory="1g", buildkitd_config={"debug": True})
    assert f" \\_ {bench.name}0" in bench.buildx("ls")
    inspected = bench.buildx("inspect", bench.name)
    for line in ("Status:", "running", 'memory="1g"', "File#buildkitd.toml:", " > debug = true"):
        assert line in inspected
    path = bench.directory / "scratch"
    path.mkdir()
    (path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n", encoding="utf-8")

    bench.buildx("build", "--builder", bench.name, "--load", "--tag", f"{bench.name}:cli", str(path))

    assert bench.docker("images", "-q", f"{bench.name}:cli")
    assert bench.builder()["changed"] is False
    bench.buildx("stop", bench.name)
    assert bench.row()["Nodes"][0]["Status"] == "stopped"
    assert [step["step"] for step in bench.builder()["steps"]] == ["start"]
    bench.buildx("rm", bench.name)
    assert not bench.entry.exists()
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.container}") == ""
    assert bench.docker("volume", "ls", "-q", "--filter", f"name={bench.volume}") == ""
    assert bench.builder(state="absent")["changed"] is False


def test_the_cli_boots_what_the_module_declared(bench: Bench) -> None:
    """A builder that was only declared is booted by the CLI, and then as the module wants it."""
    bench.builder(state="present", env={"A": "b"}, buildkitd_config={"debug": True})

    bench.buildx("inspect", "--bootstrap", bench.name)

    result = bench.builder()
    assert (result["changed"], result["steps"]) == (False, [])


def test_the_module_removes_what_the_cli_made(bench: Bench) -> None:
    """Absence of a builder that the CLI made, with two nodes, leaves nothing of either."""
    context = f"{bench.name}-context"
    bench.docker("context", "create", context, "--docker", f"host={bench.environment['DOCKER_HOST']}")
    create(bench)
    bench.buildx("create", "--append", "--name", bench.name, context, "--bootstrap")
    assert bench.builder()["changed"] is False

    removed = bench.builder(state="absent")

    assert [(step["step"], step["node"]) for step in removed["steps"]] == [
        ("remove", f"{bench.name}0"),
        ("remove_volume", f"{bench.name}0"),
        ("remove", f"{bench.name}1"),
        ("remove_volume", f"{bench.name}1"),
        ("unregister", ""),
    ]
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.name}") == ""
    assert not list((bench.store / "instances").iterdir())


def test_state_that_the_cli_kept(bench: Bench) -> None:
    """A cache that was kept when the CLI removed the builder is the cache of the new one of that name."""
    create(bench, "--bootstrap")
    bench.in_container("echo kept > /var/lib/buildkit/marker")
    bench.buildx("rm", "--keep-state", bench.name)

    bench.builder()

    assert bench.in_container("cat /var/lib/buildkit/marker") == "kept\n"
