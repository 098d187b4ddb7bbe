# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows with the keys of `docker buildx ls --format json` (buildx.md §4.1). What fails is a row, never a failure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import listing
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.masking import MASK
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Probe, Workers
from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import MissingLibrary
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, ConfigError, StoreError

RULE = {"all": True, "filter": None, "keepDuration": 0, "reservedSpace": 1, "maxUsedSpace": 2, "minFreeSpace": 3}
WORKERS = Workers("v0.34.2", ["b", "a"], ["linux/amd64", "linux/386"], [RULE], {"org.mobyproject.x": "y"})
PLAIN = NodeEntry("ci0", "unix:///var/run/docker.sock")
FULL = dataclasses.replace(
    PLAIN,
    platforms=({"architecture": "arm64", "os": "linux"}, {"architecture": "amd64", "os": "linux"}),
    driver_opts={"memory": "1g", "env.TOKEN": "t0p"},
    flags=("--debug",),
    files={"buildkitd.toml": b"debug = true\n"},
)


class Engines:
    """Engines by endpoint: each knows one container, or none, or cannot be reached."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self._state = state
        self.asked: list[str] = []

    def __call__(self, endpoint: str) -> Engine:
        self.asked.append(endpoint)
        if endpoint.startswith("bogus"):
            raise ConfigError(f"failed to parse endpoint {endpoint}")
        engine: Any = Engine(Target("unix:///nowhere"))
        engine._questions = self
        return engine  # type: ignore[no-any-return]

    def ask(self, what: str, method: str, path: str, body: object) -> tuple[int, bytes]:
        if self._state is None:
            return 404, b'{"message": "No such container"}'
        return 200, json.dumps({"Id": "c1", "Name": path.split("/")[-2], "State": self._state}).encode()


RUNNING = {"Status": "running", "Running": True}


def probing(answer: Workers | Exception) -> Any:
    def probe(engine: Engine) -> Probe:
        def ask(inspect: Mapping[str, Any], seconds: float) -> Workers:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    return probe


def row(
    *nodes: NodeEntry, state: dict[str, Any] | None = None, answer: Workers | Exception = WORKERS, **facts: Any
) -> dict[str, Any]:
    instance = Instance(facts.pop("name", "ci"), facts.pop("driver", "docker-container"), nodes)
    return listing.builder_row(
        instance,
        **{"current": False, "last_activity": None, **facts},
        engine=Engines(state),
        probe=probing(answer),
        remote=lambda node: probing(answer)(Engine(Target("")))({}, 1.0),
    )


def test_a_builder_that_runs() -> None:
    assert row(PLAIN, state=RUNNING, current=True, last_activity="2026-11-23T02:44:14Z") == {
        "Name": "ci",
        "Driver": "docker-container",
        "Dynamic": False,
        "Current": True,
        "LastActivity": "2026-11-23T02:44:14Z",
        "Nodes": [
            {
                "Name": "ci0",
                "Endpoint": "unix:///var/run/docker.sock",
                "Status": "running",
                "Version": "v0.34.2",
                "IDs": ["b", "a"],
                "Platforms": ["linux/amd64", "linux/386"],
                "GCPolicy": [RULE],
                "Labels": {"org.mobyproject.x": "y"},
            }
        ],
    }


@pytest.mark.parametrize(
    ("state", "word"),
    [(None, "inactive"), ({"Status": "exited", "Running": False}, "stopped"), ({"Status": "created"}, "stopped")],
)
def test_a_builder_that_does_not_run_is_not_asked(state: dict[str, Any] | None, word: str) -> None:
    found = row(PLAIN, state=state, answer=AssertionError("it was asked"))
    assert found["Nodes"] == [{"Name": "ci0", "Endpoint": PLAIN.endpoint, "Status": word}]
    assert found["LastActivity"] == "0001-01-01T00:00:00Z"
    assert "Err" not in found


def test_what_the_store_says_is_masked() -> None:
    [node] = row(FULL)["Nodes"]
    assert node["DriverOpts"] == {"env.TOKEN": MASK, "memory": "1g"}
    assert node["Files"] == {"buildkitd.toml": "sha256:" + hashlib.sha256(b"debug = true\n").hexdigest()}
    assert node["Flags"] == ["--debug"]
    assert node["Platforms"] == ["linux/arm64", "linux/amd64"]


def test_fixed_platforms_come_first_and_once() -> None:
    [node] = row(FULL, state=RUNNING)["Nodes"]
    assert node["Platforms"] == ["linux/arm64", "linux/amd64", "linux/386"]


def test_a_daemon_that_does_not_answer_is_a_row() -> None:
    [node] = row(FULL, state=RUNNING, answer=BuildkitError("connection refused"))["Nodes"]
    assert (node["Status"], node["Err"]) == ("error", "connection refused")
    assert node["DriverOpts"]["memory"] == "1g"
    assert "Version" not in node


def test_one_node_that_cannot_be_reached_does_not_hide_the_others() -> None:
    other = NodeEntry("ci1", "bogus://x")
    first, second = row(PLAIN, other, state=RUNNING)["Nodes"]
    assert first["Status"] == "running"
    assert (second["Status"], second["Err"]) == ("error", "failed to parse endpoint bogus://x")


def test_a_remote_builder() -> None:
    """As `ls` has it: who does not answer is inactive, whatever the reason. A wrong entry is an error."""
    node = NodeEntry("far0", "tcp://far:1234", driver_opts={"cacert": "/ca.pem"})
    [found] = row(node, driver="remote")["Nodes"]
    assert (found["Status"], found["Version"], found["Endpoint"]) == ("running", WORKERS.version, "tcp://far:1234")
    [found] = row(node, driver="remote", answer=BuildkitError("no connection"))["Nodes"]
    assert found == {
        "Name": "far0",
        "Endpoint": "tcp://far:1234",
        "DriverOpts": {"cacert": "/ca.pem"},
        "Status": "inactive",
    }
    [found] = row(node, driver="remote", answer=ConfigError("missing keys"))["Nodes"]
    assert (found["Status"], found["Err"]) == ("error", "missing keys")
    with pytest.raises(MissingLibrary):
        row(node, driver="remote", answer=MissingLibrary("grpcio", "No module named 'grpc'"))


@pytest.mark.parametrize("driver", ["kubernetes", "cloud", ""])
def test_other_drivers_are_listed_and_left_alone(driver: str) -> None:
    engines = Engines(RUNNING)
    found = listing.builder_row(
        Instance("k", driver, (NodeEntry("k0", "kubernetes:///k"),)),
        current=False,
        last_activity=None,
        engine=engines,
        probe=probing(AssertionError("it was asked")),
        remote=lambda node: probing(AssertionError("it was asked"))(Engine(Target("")))({}, 1.0),
    )
    assert found["Driver"] == driver
    assert found["Nodes"][0]["Status"] == "error"
    assert "is not managed by this collection" in found["Nodes"][0]["Err"]
    assert engines.asked == []


def test_a_builder_without_nodes() -> None:
    assert row()["Nodes"] == []


def test_a_daemon_that_says_little() -> None:
    [node] = row(PLAIN, state=RUNNING, answer=Workers("", [], [], [], {}))["Nodes"]
    assert node == {"Name": "ci0", "Endpoint": PLAIN.endpoint, "Status": "running"}


def test_the_builder_inside_an_engine() -> None:
    found = listing.context_row("prod", current=True, last_activity=None, workers=lambda: WORKERS)
    assert (found["Name"], found["Driver"], found["Current"]) == ("prod", "docker", True)
    assert found["Nodes"][0]["Endpoint"] == "prod"
    assert found["Nodes"][0]["Version"] == "v0.34.2"
    assert "Err" not in found


def test_an_engine_that_does_not_answer_is_a_row() -> None:
    def fail() -> Workers:
        raise BuildkitError("no engine answers")

    found = listing.context_row("prod", current=False, last_activity="2026-11-23T02:44:14Z", workers=fail)
    assert (found["Driver"], found["Err"]) == ("", "no engine answers")
    assert found["LastActivity"] == "2026-11-23T02:44:14Z"
    assert found["Nodes"] == [{"Name": "", "Endpoint": ""}]


def test_an_entry_that_cannot_be_read_is_a_row() -> None:
    found = listing.broken_row("ci", StoreError("the store's file x is corrupt"))
    assert (found["Name"], found["Err"], found["Nodes"]) == ("ci", "the store's file x is corrupt", [])
    assert set(found) == {*row(PLAIN), "Err"}
