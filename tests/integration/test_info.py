# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""buildx_info says what `docker buildx ls --format json` says, key by key, and leaves no trace."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

MASK = "********"
UNREACHABLE = "tcp://127.0.0.1:1"
CONFIG = '# mine\n[worker.oci]\n  max-parallelism = 4\n[worker.oci.labels]\n  proof = "yes"\n'


def info(bench: Bench, **arguments: Any) -> dict[str, Any]:
    result = bench.module("buildx_info", **arguments)
    assert not result.get("failed"), result
    assert result["changed"] is False
    return result


def create(bench: Bench, name: str, *arguments: str) -> None:
    bench.buildx("create", "--name", name, "--driver", "docker-container", *arguments)


def listed(bench: Bench) -> list[dict[str, Any]]:
    """The rows of the CLI, with what is shown here in another form on purpose."""
    rows = [json.loads(line) for line in bench.docker("buildx", "ls", "--format", "json").splitlines()]
    for row in rows:
        for node in row["Nodes"]:
            for path, content in node.get("Files", {}).items():
                node["Files"][path] = f"sha256:{hashlib.sha256(base64.b64decode(content)).hexdigest()}"
            for option in node.get("DriverOpts", {}):
                if option == "env.MY_TOKEN":
                    node["DriverOpts"][option] = MASK
                elif option == "env.HTTP_PROXY":
                    node["DriverOpts"][option] = f"http://{MASK}@proxy:3128"
    return rows


def without_words(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with each `Err` reduced to its being there: the two programs are different speakers."""
    for row in rows:
        for part in (row, *row["Nodes"]):
            if "Err" in part:
                assert part["Err"]
                part["Err"] = "…"
    return rows


def test_nothing_but_the_engine(bench: Bench) -> None:
    """Without any builder there is the one inside the engine, with its version and platforms, and it is current."""
    found = info(bench)

    assert found["builders"] == listed(bench)
    assert [row["Name"] for row in found["builders"]] == ["default"]
    assert found["current"] == "default"
    assert found["builders"][0]["Nodes"][0]["Status"] == "running"


def test_all_kinds(bench: Bench) -> None:
    """Builders in every state and with every setting, and contexts that answer or not, are the CLI's rows."""
    here = bench.environment["DOCKER_HOST"]
    name = bench.name
    (bench.directory / "config.toml").write_text(CONFIG, encoding="utf-8")
    bench.docker("context", "create", f"{name}-same", "--docker", f"host={here}")
    bench.docker("context", "create", f"{name}-gone", "--docker", f"host={UNREACHABLE}")
    create(bench, f"{name}-z-inactive")
    create(bench, f"{name}-Mixed")
    create(bench, f"{name}-running", "--bootstrap", "--use")
    create(
        bench,
        f"{name}-all",
        *("--driver-opt", "memory=512m", "--driver-opt", "env.MY_TOKEN=hidden", "--driver-opt", "restart-policy=no"),
        *("--driver-opt", "env.HTTP_PROXY=http://user:word@proxy:3128", "--driver-opt", '"env.LIST=a,b"'),
        *("--buildkitd-config", str(bench.directory / "config.toml"), "--buildkitd-flags", "--debug"),
        *("--platform", "linux/arm64,linux/amd64,windows/amd64", "--bootstrap"),
    )
    create(bench, f"{name}-stopped", "--bootstrap")
    bench.buildx("stop", f"{name}-stopped")
    create(bench, f"{name}-two", "--platform", "linux/arm/v7")
    bench.buildx("create", "--append", "--name", f"{name}-two", f"{name}-same", "--bootstrap")
    far = {"Name": f"{name}-far", "Driver": "docker-container", "Nodes": [{"Name": "n", "Endpoint": UNREACHABLE}]}
    (bench.store / "instances" / f"{name}-far").write_text(json.dumps(far), encoding="utf-8")

    found = info(bench)

    expected = without_words(listed(bench))
    for row, other in zip(without_words(found["builders"]), expected):
        assert row == other
    assert len(found["builders"]) == len(expected)
    assert found["current"] == f"{name}-running"
    assert "hidden" not in str(found)
    assert "word" not in str(found)
    rows = {row["Name"]: row for row in found["builders"]}
    assert rows[f"{name}-far"]["Nodes"][0]["Status"] == "error"
    assert rows[f"{name}-all"]["Nodes"][0]["Labels"]["proof"] == "yes"
    assert [row["Name"] for row in found["builders"]][-1] == f"{name}-gone"
    some = info(bench, name=[f"{name}-two", f"{name}-MIXED", "default"])
    assert without_words(some["builders"]) == [rows[f"{name}-two"], rows[f"{name}-Mixed"], rows["default"]]


def test_the_engine_of_the_task_is_unreachable(bench: Bench) -> None:
    """Builders are still listed, each with what is known of it, when the engine does not answer."""
    create(bench, bench.name)
    bench.environment["DOCKER_HOST"] = UNREACHABLE

    found = info(bench)

    assert without_words(found["builders"]) == without_words(listed(bench))
    assert {row["Name"] for row in found["builders"]} == {bench.name, "default"}


def test_unknown_name(bench: Bench) -> None:
    """A name that does not exist fails the task, which names those that do."""
    create(bench, bench.name)

    result = bench.module("buildx_info", name=[bench.name, "nobody"])

    assert result["failed"]
    assert result["msg"] == f'no builder "nobody" found. There are: {bench.name}, default.'


@pytest.mark.parametrize("check", [False, True])
def test_nothing_is_changed(bench: Bench, check: bool) -> None:
    """The store is byte for byte as before, also what the CLI rewrites while it looks."""
    create(bench, bench.name, "--use")
    selected = {"Key": "tcp://elsewhere:2375", "Name": bench.name, "Global": False}
    (bench.store / "current").write_text(json.dumps(selected), encoding="utf-8")
    before = bench.tree(bench.directory)

    bench.module("buildx_info", check=check)
    bench.module("buildx_info", check=check, name=[bench.name])

    assert bench.tree(bench.directory) == before


def test_nothing_is_created(bench: Bench) -> None:
    """In an empty home nothing appears, neither a store nor a configuration."""
    home = bench.directory / "home"
    home.mkdir()
    del bench.environment["DOCKER_CONFIG"]
    bench.environment["HOME"] = str(home)

    found = info(bench)

    assert [row["Name"] for row in found["builders"]] == ["default"]
    assert bench.tree(home) == {}
