# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An entry of the store, byte for byte as the CLI writes it (buildx.md §1.3)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import (
    Instance,
    NodeEntry,
    decode,
    encode,
    go_json,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import StoreError

WRITTEN_BY_THE_CLI = (
    '{"Name":"container","Driver":"docker-container","Nodes":[{"Name":"container0",'
    '"Endpoint":"unix:///var/run/docker.sock","Platforms":null,"DriverOpts":null,'
    '"Flags":["--allow-insecure-entitlement=network.host"],"Files":null}],"Dynamic":false}'
)
FULL = (
    '{"Name":"RSX-Case","Driver":"docker-container","Nodes":[{"Name":"rsx-case0","Endpoint":"prod",'
    '"Platforms":[{"architecture":"arm","os":"linux","variant":"v7"},{"architecture":"amd64","os":"windows",'
    '"os.version":"10.0.20348","os.features":["win32k"]}],'
    '"DriverOpts":{"env.B":"x,y","image":"moby/buildkit:v0.34.2"},'
    '"Flags":["--debug"],"Files":{"buildkitd.toml":"ZGVidWcgPSB0cnVlCg==","certs/r/ca.pem":""}},'
    '{"Name":"rsx-case1","Endpoint":"tcp://10.0.0.2:2375","Platforms":[],"DriverOpts":null,"Flags":null,'
    '"Files":null}],"Dynamic":false}'
)


@pytest.mark.parametrize("text", [WRITTEN_BY_THE_CLI, FULL])
def test_what_the_cli_wrote_is_written_back_unchanged(text: str) -> None:
    assert encode(decode(text, "x")) == text


def test_what_an_entry_says() -> None:
    instance = decode(FULL, "x")
    assert (instance.name, instance.driver, instance.dynamic) == ("RSX-Case", "docker-container", False)
    first, second = instance.nodes
    assert first == NodeEntry(
        name="rsx-case0",
        endpoint="prod",
        platforms=(
            {"architecture": "arm", "os": "linux", "variant": "v7"},
            {"architecture": "amd64", "os": "windows", "os.version": "10.0.20348", "os.features": ["win32k"]},
        ),
        driver_opts={"env.B": "x,y", "image": "moby/buildkit:v0.34.2"},
        flags=("--debug",),
        files={"buildkitd.toml": b"debug = true\n", "certs/r/ca.pem": b""},
    )
    assert (second.platforms, second.driver_opts, second.flags, second.files) == ((), {}, None, {})


def test_a_private_key_is_not_printed() -> None:
    assert "debug = true" not in repr(decode(FULL, "x"))


@pytest.mark.parametrize("absent", ["null", "missing", "empty"])
def test_null_missing_and_empty_mean_the_same(absent: str) -> None:
    empty: dict[str, Any] = {"Platforms": [], "DriverOpts": {}, "Flags": [], "Files": {}}
    node: dict[str, Any] = {"Name": "b0", "Endpoint": "e"}
    if absent != "missing":
        node.update({key: None if absent == "null" else value for key, value in empty.items()})
    found = decode(json.dumps({"Name": "b", "Driver": "docker-container", "Nodes": [node]}), "x").nodes[0]
    assert (found.platforms or (), found.driver_opts, found.flags or (), found.files) == ((), {}, (), {})


def test_the_least_that_is_an_entry() -> None:
    assert decode('{"Name":"b"}', "x") == Instance("b", "", ())
    assert decode('{"Name":"b","Nodes":null,"Dynamic":null}', "x") == Instance("b", "", ())


def test_unknown_keys_are_ignored_and_dropped() -> None:
    text = WRITTEN_BY_THE_CLI.replace('"Driver"', '"Future":{"a":1},"Driver"')
    assert encode(decode(text, "x")) == WRITTEN_BY_THE_CLI


def test_keys_of_maps_are_sorted() -> None:
    node = NodeEntry("b0", "e", driver_opts={"memory": "1g", "env.Z": "1", "env.a": "2"}, files={"b": b"", "a": b""})
    text = encode(Instance("b", "docker-container", (node,)))
    assert '"DriverOpts":{"env.Z":"1","env.a":"2","memory":"1g"},"Flags":null,"Files":{"a":"","b":""}' in text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", "null", "[]", '"x"', "3", "{}", '{"Name":null}', '{"Name":""}', '{"Name":3}',
        '{"Name":"b","Nodes":{}}', '{"Name":"b","Nodes":"x"}', '{"Name":"b","Nodes":[3]}',
        '{"Name":"b","Nodes":[{}]}', '{"Name":"b","Nodes":[{"Name":["x"]}]}', '{"Name":"b","Driver":7}',
        '{"Name":"b","Nodes":[{"Name":"n","Endpoint":1}]}',
        '{"Name":"b","Nodes":[{"Name":"n","Flags":"--debug"}]}', '{"Name":"b","Nodes":[{"Name":"n","Flags":[1]}]}',
        '{"Name":"b","Nodes":[{"Name":"n","DriverOpts":["a=b"]}]}',
        '{"Name":"b","Nodes":[{"Name":"n","DriverOpts":{"memory":1}}]}',
        '{"Name":"b","Nodes":[{"Name":"n","Platforms":["linux/amd64"]}]}',
        '{"Name":"b","Nodes":[{"Name":"n","Files":{"a":"no base64!"}}]}',
        '{"Name":"b","Nodes":[{"Name":"n","Files":{"a":"YQ"}}]}',
        '{"Name":"b","Nodes":[{"Name":"n","Files":{"a":[]}}]}',
        WRITTEN_BY_THE_CLI[:-1], WRITTEN_BY_THE_CLI + "}", "[" * 100_000,
    ],
)  # fmt: skip
def test_a_corrupt_file_is_named_and_left_alone(text: str) -> None:
    with pytest.raises(StoreError, match=r"the store's file /s/instances/b is corrupt") as caught:
        decode(text, "/s/instances/b")
    assert caught.value.hint is not None
    assert "Nothing was changed" in caught.value.hint


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLATFORM = st.fixed_dictionaries(
    {"architecture": st.sampled_from(["amd64", "arm64", "arm"]), "os": st.just("linux")},
    optional={"variant": st.just("v7")},
)
NODE = st.fixed_dictionaries(
    {
        "Name": TEXT,
        "Endpoint": TEXT,
        "Platforms": st.none() | st.lists(PLATFORM, max_size=2),
        "DriverOpts": st.none() | st.dictionaries(TEXT, TEXT, min_size=1, max_size=4),
        "Flags": st.none() | st.lists(TEXT, max_size=3),
        "Files": st.none()
        | st.dictionaries(TEXT, st.binary(max_size=9).map(lambda raw: base64.b64encode(raw).decode()), min_size=1),
    }
)
NODE_FIELDS = ("Name", "Endpoint", "Platforms", "DriverOpts", "Flags", "Files")
DOCUMENT = st.fixed_dictionaries(
    {
        "Name": TEXT.filter(bool),
        "Driver": TEXT,
        "Nodes": st.lists(NODE, max_size=3),
        "Dynamic": st.booleans(),
    }
)


def by_go(document: dict[str, Any]) -> str:
    """Go's encoder: compact, fields in their order, keys of maps sorted by their bytes, five characters escaped."""
    nodes = [{key: node[key] for key in NODE_FIELDS} for node in document["Nodes"]]
    for node in nodes:
        node["Platforms"] = node["Platforms"] and [dict(sorted(item.items())) for item in node["Platforms"]]
        for key in ("DriverOpts", "Files"):
            node[key] = node[key] and dict(sorted(node[key].items(), key=lambda item: str(item[0]).encode()))
    ordered = {"Name": document["Name"], "Driver": document["Driver"], "Nodes": nodes, "Dynamic": document["Dynamic"]}
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    return "".join(f"\\u{ord(char):04x}" if char in "<>&\u2028\u2029" else char for char in text)


@given(DOCUMENT)
@settings(deadline=None, max_examples=60)
def test_any_document_of_the_cli_comes_back(document: dict[str, Any]) -> None:
    text = by_go(document)
    assert encode(decode(text, "x")) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Name", "Driver", "Nodes", "Flags", "Files", "DriverOpts", "x"]), inner)
    ),
    max_leaves=12,
)


@given(JSON.map(json.dumps) | st.text(max_size=20))
@settings(deadline=None, max_examples=100)
def test_no_file_makes_the_reader_fail_otherwise(text: str) -> None:
    try:
        instance = decode(text, "x")
    except StoreError:
        return
    assert decode(encode(instance), "x") == instance


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("<a href='x'>&</a>", r'"\u003ca href=' + "'x'" + r'\u003e\u0026\u003c/a\u003e"'),
        ("a\u2028b\u2029", r'"a\u2028b\u2029"'),
        ("tab\tnew\nline\rb\bf\f", r'"tab\tnew\nline\rb\bf\f"'),
        ("\x00\x1f\x7f", '"\\u0000\\u001f\x7f"'),
        ("ü€😀", '"ü€😀"'),
        ('"\\/', r'"\"\\/"'),
        # A path that is not UTF-8: Go writes the replacement for each byte.
        ("a\udcff\udc80b", r'"a\ufffd\ufffdb"'),
        ({"b": 1, "a": [True, None]}, '{"b":1,"a":[true,null]}'),
    ],
)
def test_json_as_go_writes_it(value: object, text: str) -> None:
    assert go_json(value) == text
    assert go_json(value).encode("utf-8")


@pytest.mark.parametrize(
    ("options", "loads"),
    [({"default-load": text}, True) for text in ("1", "t", "T", "true", "True", "TRUE")]
    + [({"default-load": text}, False) for text in ("", "0", "false", "yes", "tRUE")]
    + [({}, False)],
)
def test_whether_results_are_loaded_by_default(options: dict[str, str], loads: bool) -> None:
    """A Go bool."""
    assert NodeEntry("n", "e", driver_opts=options).default_load is loads
