# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Diff mode: before and after, from the values that the plan was made of, and no secret among them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.diff import difference
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.masking import MASK
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.plan import NodeObservation, Wish, plan
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.spec import (
    EngineFacts,
    NodeState,
    wanted,
)

ENTRY = NodeEntry(
    "ci0",
    "unix:///var/run/docker.sock",
    driver_opts={
        "image": "moby/buildkit:v2",
        "env.TOKEN": "t0p",
        "env.HTTP_PROXY": "http://u:pw@proxy",
        "memory": "1g",
    },
    files={"buildkitd.toml": b"debug = true\n", "certs/r/key.pem": b"PRIVATE KEY"},
)
SECRETS = ("t0p", "u:pw", "PRIVATE KEY", "debug = true")
SPEC = wanted(ENTRY, EngineFacts())
CI = Instance("ci", "docker-container", (ENTRY,))


def observed(status: str | None = "running", entry: NodeEntry = ENTRY, **changes: Any) -> NodeObservation:
    spec = dataclasses.replace(SPEC, **changes)
    found = None if status is None else NodeState(spec, status, "c", "i")
    return NodeObservation(entry, wanted(entry, EngineFacts()), found, volume=status is not None, has_image=True)


def shown(node: NodeObservation, state: str = "started", **facts: Any) -> tuple[Any, Any]:
    given_facts = {"stored": CI, "desired": None if state == "absent" else CI, **facts}
    wish = Wish(state=state, nodes=(node,), **given_facts)
    diff = difference(wish, plan(wish))
    text = json.dumps(diff)
    assert not [secret for secret in SECRETS if secret in text]
    return diff["before"], diff["after"]


def test_nothing_to_do_is_nothing_to_show() -> None:
    assert shown(observed()) == ({}, {})
    assert difference(Wish("started", CI, CI, nodes=(observed(env=()),)), []) == {"before": {}, "after": {}}


def test_only_what_differs_is_shown() -> None:
    before, after = shown(observed(image="moby/buildkit:v1", memory=0))
    assert before["ci0"] == {"status": "running", "image": "moby/buildkit:v1", "memory": 0}
    assert after["ci0"] == {"status": "running", "image": "moby/buildkit:v2", "memory": 1 << 30}
    assert before["builder"] == after["builder"]


def test_variables_and_files_without_their_secrets() -> None:
    before, after = shown(observed(env=(("TOKEN", "old"), ("A", "1")), files=()))
    assert before["ci0"]["env"] == {"TOKEN": MASK, "A": "1"}
    assert after["ci0"]["env"] == {"TOKEN": MASK, "HTTP_PROXY": f"http://{MASK}@proxy"}
    assert before["ci0"]["files"] == {}
    assert set(after["ci0"]["files"]) == {"buildkitd.toml", "certs/r/key.pem"}
    assert all(digest.startswith("sha256:") for digest in after["ci0"]["files"].values())


def test_words_of_the_cli_for_what_is_two_things() -> None:
    before, after = shown(observed(restart_policy=("on-failure", 3), command=("--debug",)))
    assert before["ci0"]["restart_policy"] == "on-failure:3"
    assert after["ci0"]["restart_policy"] == "unless-stopped"
    assert before["ci0"]["command"] == ["--debug"]


def test_a_newer_image_under_the_same_name() -> None:
    before, after = shown(dataclasses.replace(observed(), newer=True), pull="always")
    assert before["ci0"] == {"status": "running", "image_id": "i"}
    assert after["ci0"] == {"status": "running", "image_id": "what the registry has as moby/buildkit:v2"}


@pytest.mark.parametrize("aside", [True, False])
def test_what_an_interrupted_run_set_aside(aside: bool) -> None:
    node = dataclasses.replace(observed("exited"), aside=aside, previous=not aside)
    before, after = shown(node, "present")
    assert before["ci0"] == {"status": "exited", "set_aside": "buildx_previous_ci0"}
    assert after["ci0"] == {"status": "exited"}
    assert shown(node, "absent")[0]["ci0"]["set_aside"] == "buildx_previous_ci0"


def test_a_new_builder() -> None:
    before, after = shown(observed(None), stored=None)
    assert (before["builder"], before["ci0"]) == (None, None)
    assert after["builder"]["name"] == "ci"
    assert after["builder"]["nodes"][0]["DriverOpts"]["env.TOKEN"] == MASK
    assert after["ci0"]["status"] == "running"
    assert after["ci0"]["image"] == "moby/buildkit:v2"
    assert "userns" not in after["ci0"], "what has no value is left out"


def test_a_builder_that_is_only_declared() -> None:
    before, after = shown(observed(None), "present", stored=None)
    assert (before["ci0"], after["ci0"]) == (None, None)
    assert after["builder"] is not None


@pytest.mark.parametrize(
    ("state", "status", "changes", "after"),
    [
        ("started", "exited", {}, "running"),
        ("started", "paused", {}, "running"),
        ("stopped", "running", {}, "stopped"),
        ("stopped", "paused", {}, "stopped"),
        ("present", "exited", {"image": "x"}, "exited"),
        ("present", "running", {"image": "x"}, "running"),
        ("started", "running", {"image": "x"}, "running"),
    ],
)
def test_the_status(state: str, status: str, changes: dict[str, Any], after: str) -> None:
    before_, after_ = shown(observed(status, **changes), state)
    assert (before_["ci0"]["status"], after_["ci0"]["status"]) == (status, after)


def test_a_removal() -> None:
    before, after = shown(observed(), "absent")
    assert before["ci0"] == {"status": "running", "volume": "buildx_buildkit_ci0_state"}
    assert after["ci0"] is None
    assert before["builder"]["name"] == "ci"
    assert after["builder"] is None


def test_what_another_builder_has_too_stays() -> None:
    shared = dataclasses.replace(observed(), owner="other")
    before, after = shown(shared, "absent")
    assert before["ci0"] == after["ci0"] == {"status": "running", "volume": "buildx_buildkit_ci0_state"}


def test_only_a_volume_is_left() -> None:
    before, after = shown(dataclasses.replace(observed(None), volume=True), "absent", stored=None)
    assert (before["ci0"], after["ci0"]) == ({"volume": "buildx_buildkit_ci0_state"}, None)


def test_the_entry_alone() -> None:
    """Words that the container does not see, such as `default-load`."""
    other = dataclasses.replace(ENTRY, driver_opts={**ENTRY.driver_opts, "default-load": "true"})
    before, after = shown(observed(entry=other), desired=Instance("ci", "docker-container", (other,)))
    assert before["ci0"] == after["ci0"] == {"status": "running"}
    assert "default-load" not in before["builder"]["nodes"][0]["DriverOpts"]
    assert after["builder"]["nodes"][0]["DriverOpts"]["default-load"] == "true"


def test_the_selection() -> None:
    before, after = shown(observed(), select=True)
    assert (before["current"], after["current"]) == (False, True)
    before, after = shown(observed(env=()))
    assert "current" not in {**before, **after}
