# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store's entry overlaid with what a task says: None keeps, an empty value resets, other words are no drift."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.desired import desired
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.options import NodeOptions, from_params
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

HERE = "unix:///var/run/docker.sock"
ENTITLED = "--allow-insecure-entitlement=network.host"
INSECURE = "--allow-insecure-entitlement=security.insecure"
STORED = NodeEntry(
    name="ci0",
    endpoint=HERE,
    platforms=({"architecture": "arm64", "os": "linux"},),
    driver_opts={"image": "docker.io/moby/buildkit:v1", "memory": "1g", "env.A": "1", "env.B": "2", "network": "host"},
    flags=("--debug", ENTITLED),
    files={"buildkitd.toml": b"# by hand\ndebug=true\n"},
)


def entry(node: NodeEntry = STORED) -> Instance:
    return Instance("ci", "docker-container", (node,))


def node(stored: Instance | None, store: str = "/nowhere", endpoint: str = HERE, **options: Any) -> NodeEntry:
    return desired("ci", stored, NodeOptions(**options), endpoint, store).nodes[0]


def test_nothing_given_changes_nothing() -> None:
    assert desired("ci", entry(), NodeOptions(), "tcp://elsewhere:2375", "/nowhere") == entry()


def test_nothing_given_makes_what_the_cli_makes() -> None:
    made = desired("ci", None, NodeOptions(), HERE, "/nowhere")
    assert made == Instance("ci", "docker-container", (NodeEntry("ci0", HERE, flags=(ENTITLED,)),))


def opts(**changes: str | None) -> dict[str, str]:
    """The stored options with some others; None takes one away."""
    words = {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in {**STORED.driver_opts, **words}.items() if value is not None}


@pytest.mark.parametrize(
    ("given_options", "changed"),
    [
        ({"image": "moby/buildkit:v2"}, {"driver_opts": opts(image="moby/buildkit:v2")}),
        ({"image": ""}, {"driver_opts": opts(image=None)}),
        ({"memory": "2g"}, {"driver_opts": opts(memory="2g")}),
        ({"memory": ""}, {"driver_opts": opts(memory=None)}),
        ({"memory": "0"}, {"driver_opts": opts(memory=None)}),
        ({"env": {"C": "3"}}, {"driver_opts": opts(env__A=None, env__B=None, env__C="3")}),
        ({"env": {}}, {"driver_opts": opts(env__A=None, env__B=None)}),
        ({"flags": ["--root=/x"]}, {"flags": ("--root=/x", ENTITLED)}),
        ({"flags": []}, {"flags": (ENTITLED,)}),
        ({"config": {}}, {"files": {}}),
        ({"config": {"debug": False}}, {"files": {"buildkitd.toml": b"debug = false\n"}}),
    ],
)
def test_what_is_given_replaces_what_is_stored(given_options: dict[str, Any], changed: dict[str, Any]) -> None:
    assert node(entry(), **given_options) == dataclasses.replace(STORED, **changed)


@pytest.mark.parametrize(
    "given_options",
    [
        {"image": "moby/buildkit:v1"},
        {"memory": "1024m"},
        {"memory": "1GiB"},
        {"memory": "1073741824"},
        {"env": {"B": "2", "A": "1"}},
        {"flags": ["--debug", ENTITLED]},
        {"flags": ["--debug"]},
        {"config": {"debug": True}},
        {"endpoint": HERE},
    ],
)
def test_the_same_in_other_words_is_no_change(given_options: dict[str, Any]) -> None:
    """The stored words stay: they may be the CLI's, or written by hand."""
    assert node(entry(), **given_options) == STORED


@pytest.mark.parametrize(
    ("given_options", "driver_opts"),
    [
        ({"image": ""}, {}),
        ({"image": "moby/buildkit:buildx-stable-1"}, {}),
        ({"memory": ""}, {}),
        ({"memory": "0"}, {}),
        ({"env": {}}, {}),
    ],
)
def test_the_default_said_aloud_is_no_change(given_options: dict[str, Any], driver_opts: dict[str, str]) -> None:
    plain = NodeEntry("ci0", HERE, flags=(ENTITLED,))
    assert node(entry(plain), **given_options) == dataclasses.replace(plain, driver_opts=driver_opts)


def test_a_new_node_keeps_the_words_of_the_task() -> None:
    made = node(None, image="moby/buildkit:buildx-stable-1", memory="512m", env={"A": "1"}, flags=["--debug"])
    assert made.driver_opts == {"image": "moby/buildkit:buildx-stable-1", "memory": "512m", "env.A": "1"}
    assert made.flags == ("--debug", ENTITLED)


@pytest.mark.parametrize(
    ("flags", "driver_opts", "files", "expected"),
    [
        ([ENTITLED], {}, {}, (ENTITLED,)),
        ([INSECURE], {}, {}, (INSECURE,)),
        ([INSECURE], {"network": "host"}, {}, (INSECURE, ENTITLED)),
        ([], {}, {"buildkitd.toml": b'insecure-entitlements = ["network.host"]'}, None),
        (["--debug"], {}, {"buildkitd.toml": b'insecure-entitlements = ["network.host"]'}, ("--debug",)),
        (["--debug"], {}, {"buildkitd.toml": b"no toml ["}, ("--debug", ENTITLED)),
    ],
)  # fmt: skip
def test_the_entitlement_that_is_added(
    flags: list[str], driver_opts: dict[str, str], files: dict[str, bytes], expected: tuple[str, ...] | None
) -> None:
    stored = dataclasses.replace(STORED, driver_opts=driver_opts, files=files)
    assert node(entry(stored), flags=flags).flags == expected


def test_flags_are_kept_when_something_else_changes() -> None:
    """Not so the CLI, which throws them away with a change of the platforms."""
    assert node(entry(), image="x").flags == STORED.flags
    nothing = dataclasses.replace(STORED, flags=None)
    assert node(entry(nothing), image="x").flags is None


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with a default configuration."""
    (tmp_path / "buildkitd.default.toml").write_text('insecure-entitlements = ["network.host"]\n')
    return str(tmp_path)


def test_a_new_node_takes_the_default_configuration(store: str) -> None:
    made = node(None, store)
    assert made.files == {"buildkitd.toml": b"insecure-entitlements = ['network.host']\n"}
    assert made.flags is None


def test_a_configuration_that_is_given_replaces_the_default(store: str) -> None:
    assert node(None, store, config={"debug": True}).files == {"buildkitd.toml": b"debug = true\n"}
    made = node(None, store, config={})
    assert (made.files, made.flags) == ({}, (ENTITLED,))


def test_the_default_configuration_is_for_new_nodes(store: str) -> None:
    plain = NodeEntry("ci0", HERE)
    assert node(entry(plain), store) == plain


def test_a_default_configuration_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "buildkitd.default.toml").write_text("[")
    with pytest.raises(ConfigError, match=r"buildkitd\.default\.toml"):
        node(None, str(tmp_path))


def test_where_a_new_node_goes() -> None:
    assert node(None, endpoint="prod").endpoint == "prod"
    assert (
        desired("ci", None, NodeOptions(endpoint="tcp://h:2375"), HERE, "/nowhere").nodes[0].endpoint == "tcp://h:2375"
    )


def test_a_builder_is_not_moved() -> None:
    with pytest.raises(ConfigError, match=rf"the builder ci is at {HERE}; it cannot be moved to prod") as caught:
        desired("ci", entry(), NodeOptions(endpoint="prod"), HERE, "/nowhere")
    assert caught.value.hint is not None


def test_other_nodes_stay_as_they_are() -> None:
    second = NodeEntry("ci1", "tcp://other:2375", driver_opts={"image": "x"})
    made = desired("ci", Instance("CI", "docker-container", (STORED, second)), NodeOptions(memory="3g"), HERE, "/")
    assert made.name == "CI"
    assert made.nodes[0].driver_opts["memory"] == "3g"
    assert made.nodes[1] == second


def test_an_entry_without_nodes_gets_one() -> None:
    """Nobody makes such an entry on purpose; it must not end in a traceback."""
    made = desired("ci", Instance("CI", "docker-container", ()), NodeOptions(image="x"), HERE, "/nowhere")
    assert made.name == "CI"
    assert [(one.name, one.endpoint, one.driver_opts) for one in made.nodes] == [("ci0", HERE, {"image": "x"})]


OPTIONS = st.builds(
    NodeOptions,
    image=st.none() | st.sampled_from(["", "a:1", "docker.io/library/a:1"]),
    memory=st.none() | st.sampled_from(["", "0", "1g", "1024m"]),
    env=st.none() | st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["", "1"])),
    config=st.none() | st.sampled_from([{}, {"debug": True}, {"insecure-entitlements": ["network.host"]}]),
    flags=st.none() | st.sampled_from([[], ["--debug"], [ENTITLED], ["--allow-insecure-entitlement", "x"]]),
)


@given(first=OPTIONS, second=OPTIONS)
@settings(deadline=None, max_examples=100)
def test_one_task_is_enough(first: NodeOptions, second: NodeOptions) -> None:
    """Whatever was before: what a task made is what the same task wants."""
    before = desired("ci", None, first, HERE, "/nowhere")
    once = desired("ci", before, second, HERE, "/nowhere")
    assert desired("ci", once, second, HERE, "/nowhere") == once
    assert desired("ci", once, NodeOptions(), HERE, "/nowhere") == once


# What the options of a task mean.


def params(**given_params: Any) -> dict[str, Any]:
    names = ("image", "env", "memory", "buildkitd_config", "buildkitd_flags")
    return {**dict.fromkeys(names), **given_params}


def test_what_is_not_given_is_none() -> None:
    assert from_params(params(), None) == NodeOptions()
    assert from_params(params(), "prod") == NodeOptions(endpoint="prod")


@pytest.mark.parametrize(
    ("given_flags", "flags"),
    [
        ("--debug --root '/a b'", ["--debug", "--root", "/a b"]),
        ("", []),
        ([], []),
        (["--debug", 3], ["--debug", "3"]),
    ],
)
def test_flags_as_text_or_list(given_flags: Any, flags: list[str]) -> None:
    assert from_params(params(buildkitd_flags=given_flags), None).flags == flags


def test_values_of_variables_are_text() -> None:
    env = {"A": 1, "B": True, "C": False, "D": None, "E": 1.5, "F": "x=y"}
    assert from_params(params(env=env), None).env == {
        "A": "1", "B": "true", "C": "false", "D": "", "E": "1.5", "F": "x=y",
    }  # fmt: skip
    assert from_params(params(env={}), None).env == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"image": "UPPER"}, "invalid image 'UPPER'"),
        ({"memory": "lots"}, "memory: invalid size: 'lots'"),
        ({"env": {"": "x"}}, "cannot be the name of a variable"),
        ({"env": {"A=B": "x"}}, "cannot be the name of a variable"),
        ({"env": {1: "x"}}, "cannot be the name of a variable"),
        ({"buildkitd_flags": {"debug": True}}, "buildkitd_flags must be a string or a list"),
        ({"buildkitd_flags": "'open"}, "failed to parse buildkit flags"),
    ],
)
def test_what_is_refused_before_anything_is_done(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_params(params(**wrong), None)
