# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan, pure: for anything that may be found and anything that may be wished, one run is enough.

The model below says what each step does to a node; that the engine does so is proven against a real one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import runner
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.plan import (
    BUILDS,
    CACHE,
    NONE,
    RUNNING,
    NodeObservation,
    Step,
    Wish,
    entry_differences,
    plan,
    runs_afterwards,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.spec import ContainerSpec, NodeState
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError

GIB = 1 << 30
CONFIG = (("buildkitd.toml", "one"),)
WANTED = ContainerSpec(
    image="moby/buildkit:v2",
    command=("--config", "/etc/buildkit/buildkitd.toml"),
    env=(("A", "1"),),
    files=CONFIG,
    mount="buildx_buildkit_ci0_state",
    memory=GIB,
)
ENTRY = NodeEntry("ci0", "unix:///var/run/docker.sock")
OLD = Instance("ci", "docker-container", (ENTRY,))
NEW = dataclasses.replace(OLD, nodes=(dataclasses.replace(ENTRY, driver_opts={"memory": "1g"}),))


def state(status: str = "running", **changes: Any) -> NodeState:
    return NodeState(dataclasses.replace(WANTED, **changes), status, "c1", "sha256:1")


def node(found: NodeState | None = None, **facts: Any) -> NodeObservation:
    return NodeObservation(ENTRY, WANTED, found, **{"volume": found is not None, "has_image": True, **facts})


def wish(*nodes: NodeObservation, state: str = "started", **facts: Any) -> Wish:
    given_facts = {"stored": OLD, "desired": None if state == "absent" else OLD, **facts}
    return Wish(state=state, nodes=nodes, **given_facts)


def verbs(wanted: Wish) -> list[str]:
    return [step.verb for step in plan(wanted)]


# One run is enough.

LIMITS = st.sampled_from([0, GIB, 2 * GIB])
WORDS = st.sampled_from(["", "0", "0-1"])
FILES = st.sampled_from([(), CONFIG, (("buildkitd.toml", "two"),), (*CONFIG, ("certs/r/ca.pem", "x"))])
SPECS = st.builds(
    ContainerSpec,
    image=st.sampled_from(["moby/buildkit:v1", "moby/buildkit:v2", "docker.io/moby/buildkit:v2"]),
    command=st.sampled_from([(), ("--debug",), WANTED.command]),
    env=st.sampled_from([(), (("A", "1"),)]),
    files=FILES,
    mount=st.just(WANTED.mount),
    network=st.sampled_from(["", "host"]),
    memory=LIMITS,
    memory_swap=st.sampled_from([0, -1, 3 * GIB]),
    cpu_shares=st.sampled_from([0, 512]),
    cpuset_cpus=WORDS,
    restart_policy=st.sampled_from([("unless-stopped", 0), ("always", 0)]),
    privileged=st.booleans(),
)
STATES = st.builds(
    NodeState,
    SPECS,
    st.sampled_from(["created", "running", "restarting", "paused", "exited", "dead", "removing"]),
    st.just("c1"),
    st.just("sha256:1"),
)


@st.composite
def nodes(draw: st.DrawFn, number: int) -> NodeObservation:
    found = draw(st.none() | STATES)
    aside = found is not None and draw(st.booleans())
    return NodeObservation(
        entry=NodeEntry(f"ci{number}", "e"),
        wanted=draw(SPECS),
        found=found,
        aside=aside,
        previous=not aside and found is not None and draw(st.booleans()),
        volume=draw(st.booleans()),
        has_image=draw(st.booleans()),
        newer=found is not None and draw(st.booleans()),
        owner=draw(st.sampled_from([None, None, "other"])),
    )


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    wanted_state = draw(st.sampled_from(["started", "present", "stopped", "absent"]))
    return Wish(
        state=wanted_state,
        stored=draw(st.sampled_from([None, OLD])),
        desired=None if wanted_state == "absent" else draw(st.sampled_from([OLD, NEW])),
        pull=draw(st.sampled_from(["auto", "always", "missing", "never"])),
        select=draw(st.booleans()),
        selected=draw(st.booleans()),
        repair=draw(st.booleans()),
        nodes=tuple(draw(nodes(number)) for number in range(draw(st.integers(1, 2)))),
    )


def applied(wanted: Wish, step: Step) -> Wish:
    """The world after one step."""
    if step.verb == "register":
        return dataclasses.replace(wanted, stored=wanted.desired)
    if step.verb == "unregister":
        return dataclasses.replace(wanted, stored=None)
    if step.verb == "use":
        return dataclasses.replace(wanted, selected=True)
    changed = tuple(one if one.entry.name != step.node else _changed(wanted, one, step) for one in wanted.nodes)
    return dataclasses.replace(wanted, nodes=changed)


def _changed(wanted: Wish, one: NodeObservation, step: Step) -> NodeObservation:
    fresh = NodeState(one.wanted, "created", "c2", "sha256:2")
    effects: dict[str, Callable[[], dict[str, Any]]] = {
        "pull": lambda: {"has_image": True},
        "create": lambda: {"found": fresh, "volume": True},
        "recreate": lambda: {
            "found": dataclasses.replace(fresh, status="running" if runs_afterwards(wanted, one) else "created"),
            "newer": False,
            "volume": True,
        },
        "configure": lambda: _found(one, files=tuple(sorted({**_dict(one), **dict(one.wanted.files)}.items()))),
        "update": lambda: _found(one, **{name: getattr(one.wanted, name) for name in step.why}),
        "start": lambda: _status(one, "running", ("created", "exited")),
        "restart": lambda: _status(one, "running", RUNNING),
        "unpause": lambda: _status(one, "running", ("paused",)),
        "stop": lambda: _status(one, "exited", RUNNING),
        "restore": lambda: _no_more(one, "aside"),
        "discard": lambda: {**_no_more(one, "aside"), "found": None} if one.aside else _no_more(one, "previous"),
        "remove": lambda: {"found": None} if not one.aside else pytest.fail("nothing has that name"),
        "remove_volume": lambda: _no_more(one, "volume"),
    }
    return dataclasses.replace(one, **effects[step.verb]())


def _dict(one: NodeObservation) -> dict[str, str]:
    return dict(one.found.spec.files) if one.found else {}


def _found(one: NodeObservation, **changes: Any) -> dict[str, Any]:
    assert one.found is not None
    assert not one.aside, "its name is another one"
    return {"found": dataclasses.replace(one.found, spec=dataclasses.replace(one.found.spec, **changes))}


def _status(one: NodeObservation, status: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    assert one.found is not None
    assert not one.aside
    assert one.found.status in allowed, f"{status} after {one.found.status}"
    return {"found": dataclasses.replace(one.found, status=status)}


def _no_more(one: NodeObservation, fact: str) -> dict[str, Any]:
    assert getattr(one, fact), f"there is no {fact}"
    return {fact: False}


@given(wishes())
@settings(deadline=None, max_examples=250)
def test_one_run_is_enough(wanted: Wish) -> None:
    try:
        steps = plan(wanted)
    except BuilderError:
        assert wanted.pull == "never"
        assert any(not one.has_image for one in wanted.nodes)
        return
    after = wanted
    for step in steps:
        after = applied(after, step)
    assert plan(after) == []
    for before, one in zip(wanted.nodes, after.nodes):
        _as_wished(wanted, before, one)
    assert (after.stored is None) == (wanted.state == "absent")


def _as_wished(wanted: Wish, before: NodeObservation, one: NodeObservation) -> None:
    """What DESIGN §5 says of each state."""
    running = one.found is not None and one.found.status in RUNNING
    if wanted.state == "absent":
        assert (one == before) if before.owner else (one.found, one.previous, one.volume) == (None, False, False)
    elif wanted.state == "started":
        assert running
        assert one.found is None or one.found.status != "paused"
    elif wanted.state == "stopped":
        assert not running
    elif before.found is not None:
        assert running == (before.found.status in RUNNING)
    if wanted.state in ("present", "stopped") and before.found is None:
        assert one.found is None, "a missing one is not created"
    assert one.volume or not before.volume or wanted.state == "absent", "the cache survives"


@given(wishes())
@settings(deadline=None, max_examples=100)
def test_a_step_says_what_it_costs(wanted: Wish) -> None:
    try:
        steps = plan(wanted)
    except BuilderError:
        return
    known = {one.entry.name: one for one in wanted.nodes}
    for step in steps:
        assert step.verb in runner.VERBS
        assert step.why
        assert (step.disruption == CACHE) == (step.verb == "remove_volume")
        if step.disruption == BUILDS:
            found = known[step.node].found
            assert found is not None
            assert found.status in RUNNING
        assert set(step.to_result()) == {"step", "node", "reasons", "disruption"}
    cut_off = {step.node for step in steps if step.disruption == BUILDS}
    for step in steps:
        if step.verb in ("stop", "restart"):
            assert step.node in cut_off


# What each state does with what is found.


@pytest.mark.parametrize(
    ("wanted_state", "found", "expected"),
    [
        ("started", None, ["pull", "create", "start"]),
        ("started", "created", ["start"]),
        ("started", "exited", ["start"]),
        ("started", "running", []),
        ("started", "restarting", []),
        ("started", "paused", ["unpause"]),
        ("started", "dead", ["pull", "recreate"]),
        ("started", "removing", ["pull", "recreate"]),
        ("present", None, []),
        ("present", "created", []),
        ("present", "exited", []),
        ("present", "running", []),
        ("present", "paused", []),
        ("present", "dead", ["pull", "recreate"]),
        ("stopped", None, []),
        ("stopped", "created", []),
        ("stopped", "exited", []),
        ("stopped", "running", ["stop"]),
        ("stopped", "restarting", ["stop"]),
        ("stopped", "paused", ["stop"]),
        ("absent", None, ["unregister"]),
        ("absent", "exited", ["remove", "remove_volume", "unregister"]),
        ("absent", "running", ["remove", "remove_volume", "unregister"]),
        ("absent", "dead", ["remove", "remove_volume", "unregister"]),
    ],
)
def test_a_node_without_drift(wanted_state: str, found: str | None, expected: list[str]) -> None:
    assert verbs(wish(node(state(found) if found else None), state=wanted_state)) == expected


@pytest.mark.parametrize(
    ("changes", "running", "stopped"),
    [
        ({"memory": 2 * GIB}, ["update"], ["update"]),
        ({"memory": 0}, ["update"], ["update"]),
        ({"cpu_shares": 7}, ["pull", "recreate"], ["pull", "recreate"]),
        ({"restart_policy": ("always", 0)}, ["update"], ["update"]),
        ({"files": (("buildkitd.toml", "two"),)}, ["configure", "restart"], ["configure"]),
        ({"files": ()}, ["configure", "restart"], ["configure"]),
        ({"files": (), "command": ()}, ["pull", "recreate"], ["pull", "recreate"]),
        ({"files": (*CONFIG, ("certs/r/ca.pem", "x"))}, ["pull", "recreate"], ["pull", "recreate"]),
        ({"image": "moby/buildkit:v1"}, ["pull", "recreate"], ["pull", "recreate"]),
        ({"env": ()}, ["pull", "recreate"], ["pull", "recreate"]),
        (
            {"memory": 2 * GIB, "files": (("buildkitd.toml", "two"),)},
            ["update", "configure", "restart"],
            ["update", "configure"],
        ),
        ({"memory": 2 * GIB, "image": "moby/buildkit:v1"}, ["pull", "recreate"], ["pull", "recreate"]),
    ],
)
def test_the_smallest_steps(changes: dict[str, Any], running: list[str], stopped: list[str]) -> None:
    """Under `present` a running node is kept running and a stopped one left stopped."""
    for wanted_state in ("started", "present"):
        assert verbs(wish(node(state("running", **changes)), state=wanted_state)) == running
    assert verbs(wish(node(state("exited", **changes)), state="present")) == stopped
    assert verbs(wish(node(state("exited", **changes)), state="stopped")) == stopped
    assert verbs(wish(node(state("running", **changes)), state="stopped")) == ["stop", *stopped]
    started = stopped if "recreate" in stopped else [*stopped, "start"]
    assert verbs(wish(node(state("exited", **changes)), state="started")) == started


def test_taking_a_limit_away_needs_a_new_container() -> None:
    free = dataclasses.replace(node(state(memory=GIB)), wanted=dataclasses.replace(WANTED, memory=0))
    assert verbs(wish(free)) == ["pull", "recreate"]


def test_the_first_and_the_last_configuration_change_the_arguments() -> None:
    bare = dataclasses.replace(WANTED, files=(), command=())
    first = node(NodeState(bare, "running", "c", "i"))
    last = NodeObservation(ENTRY, bare, state(), has_image=True)
    for one in (first, last):
        assert verbs(wish(one)) == ["pull", "recreate"]
        assert set(plan(wish(one))[-1].why) == {"command", "files"}


def test_every_difference_is_named() -> None:
    [_pull, step] = plan(wish(node(state(image="moby/buildkit:v1", env=(), memory=0))))
    assert (step.verb, step.why, step.disruption) == ("recreate", ("image", "env", "memory"), BUILDS)
    update, configure, restart = plan(wish(node(state(memory=0, files=()))))
    assert (update.why, configure.why, restart.why) == (("memory",), ("files",), ("files",))
    assert (update.disruption, configure.disruption, restart.disruption) == (NONE, NONE, BUILDS)


def test_a_stopped_node_costs_nobody_anything() -> None:
    assert {step.disruption for step in plan(wish(node(state("exited", image="x"))))} == {NONE}
    assert [step.disruption for step in plan(wish(node(state(image="x")), state="stopped"))] == [BUILDS, NONE, NONE]


def test_a_build_boots_what_is_there_and_repairs_nothing() -> None:
    old = state("exited", image="moby/buildkit:v1", env=())
    assert verbs(wish(node(old), repair=False)) == ["start"]
    assert verbs(wish(node(state("running", env=())), repair=False)) == []
    assert verbs(wish(node(), repair=False)) == ["pull", "create", "start"]


# What an interrupted re-creation left.


@pytest.mark.parametrize(
    ("wanted_state", "expected"),
    [
        ("started", ["restore", "start"]),
        ("present", ["restore"]),
        ("stopped", ["restore"]),
        ("absent", ["discard", "remove_volume", "unregister"]),
    ],
)
def test_a_container_that_was_set_aside_is_what_the_builder_has(wanted_state: str, expected: list[str]) -> None:
    assert verbs(wish(node(state("exited"), aside=True), state=wanted_state)) == expected


def test_a_container_that_was_set_aside_is_looked_at_after_it_is_back() -> None:
    found = state("exited", image="moby/buildkit:v1")
    assert verbs(wish(node(found, aside=True))) == ["restore", "pull", "recreate"]


@pytest.mark.parametrize(
    ("wanted_state", "expected"),
    [
        ("started", ["discard", "start"]),
        ("present", ["discard"]),
        ("stopped", ["discard"]),
        ("absent", ["remove", "discard", "remove_volume", "unregister"]),
    ],
)
def test_what_is_left_beside_a_new_container_goes(wanted_state: str, expected: list[str]) -> None:
    assert verbs(wish(node(state("created"), previous=True), state=wanted_state)) == expected


# Pull.


@pytest.mark.parametrize(
    ("pull", "has_image", "newer", "missing", "running", "drifted"),
    [
        ("auto", False, False, True, False, True),
        ("auto", True, False, True, False, True),
        ("always", True, False, True, False, True),
        ("always", True, True, True, True, True),
        ("always", False, False, True, False, True),
        ("missing", False, False, True, False, True),
        ("missing", True, False, False, False, False),
        ("never", True, False, False, False, False),
    ],
)  # fmt: skip
def test_when_the_image_is_pulled(
    pull: str, has_image: bool, newer: bool, missing: bool, running: bool, drifted: bool
) -> None:
    """For a missing node, one without drift, and one that is re-created."""
    facts: dict[str, Any] = {"has_image": has_image}
    assert ("pull" in verbs(wish(node(**facts), pull=pull))) is missing
    assert ("pull" in verbs(wish(node(state(), newer=newer, **facts), pull=pull))) is running
    assert ("pull" in verbs(wish(node(state(env=()), newer=newer, **facts), pull=pull))) is drifted


def test_a_newer_image_is_a_reason_to_re_create() -> None:
    pull, recreate = plan(wish(node(state(), newer=True), pull="always"))
    assert (pull.verb, pull.why) == ("pull", ("newer image",))
    assert (recreate.verb, recreate.why) == ("recreate", ("image_id",))


@pytest.mark.parametrize("found", [None, state(env=()), state("dead")])
def test_never_and_no_image_is_refused_before_anything_is_done(found: NodeState | None) -> None:
    with pytest.raises(
        BuilderError, match=r"the engine has no image moby/buildkit:v2 for the node ci0, and pull is never"
    ):
        plan(wish(node(found, has_image=False), pull="never"))


@pytest.mark.parametrize("wanted_state", ["present", "stopped", "absent"])
def test_where_no_container_is_made_the_image_does_not_matter(wanted_state: str) -> None:
    plan(wish(node(has_image=False), pull="never", state=wanted_state))
    plan(wish(node(state(), has_image=False), pull="never", state=wanted_state))


# The store.


def test_a_new_builder_is_known_before_it_is_made() -> None:
    """So that what is half made is listed, and removed with it; an image that cannot be had is found out before."""
    assert verbs(wish(node(), stored=None)) == ["pull", "register", "create", "start"]
    assert verbs(wish(node(has_image=True), stored=None, pull="missing")) == ["register", "create", "start"]
    assert verbs(wish(node(), stored=None, state="present")) == ["register"]


def test_new_words_are_written_when_the_container_has_them() -> None:
    """A repair that fails leaves the old words beside the old container."""
    assert verbs(wish(node(state(env=())), desired=NEW)) == ["pull", "recreate", "register"]
    assert plan(wish(node(state()), desired=NEW)) == [Step("register", "", ("driver_opts",))]


def test_selecting_comes_last_and_once() -> None:
    assert verbs(wish(node(), stored=None, select=True))[-1] == "use"
    assert verbs(wish(node(state()), select=True, selected=True)) == []
    assert verbs(wish(node(state()), select=False, selected=False)) == []


def test_a_builder_that_is_not_there_needs_no_removal() -> None:
    assert plan(wish(node(), stored=None, state="absent")) == []


def test_the_cache_alone_is_removed_too() -> None:
    """A volume that an earlier removal kept; the CLI never finds it again."""
    assert verbs(wish(node(volume=True), stored=None, state="absent")) == ["remove_volume"]


def test_what_another_builder_has_too_is_left_alone() -> None:
    shared = node(state(), owner="other", previous=True)
    assert verbs(wish(shared, state="absent")) == ["unregister"]
    assert verbs(wish(shared, node(state()), state="absent")) == ["remove", "remove_volume", "unregister"]


def test_each_node_has_its_own_steps() -> None:
    second = dataclasses.replace(node(state("exited")), entry=NodeEntry("ci1", "e"))
    steps = plan(wish(node(state(env=())), second))
    assert [(step.verb, step.node) for step in steps] == [("pull", "ci0"), ("recreate", "ci0"), ("start", "ci1")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"driver_opts": {"memory": "1g"}}, ("driver_opts",)),
        ({"flags": ("--debug",), "files": {"a": b""}}, ("files", "flags")),
        ({"platforms": ()}, ("platforms",)),
    ],
)
def test_the_words_of_the_entry_that_differ(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    other = dataclasses.replace(OLD, nodes=(dataclasses.replace(ENTRY, **changes),))
    assert entry_differences(OLD, other) == words
    assert entry_differences(None, other) == ("missing",)
    assert entry_differences(dataclasses.replace(OLD, nodes=()), OLD) == ("nodes",)
