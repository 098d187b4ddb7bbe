# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and options of a builder: what is refused, what is stored, which one is current, and two at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def registry(**table: Any) -> dict[str, Any]:
    return {"buildkitd_config": {"registry": {"reg.example": table}}}


BAD_NAME = "name needs to start with a letter"
BAD = [
    ({"name": "1abc"}, BAD_NAME),
    ({"name": "-abc"}, BAD_NAME),
    ({"name": "a b"}, BAD_NAME),
    ({"name": "a/../b"}, BAD_NAME),
    ({"name": "abc\n"}, BAD_NAME),
    ({"name": "größe"}, BAD_NAME),
    ({"name": ""}, BAD_NAME),
    ({"name": "default"}, "default is a reserved name"),
    ({"name": "Default"}, "default is a reserved name"),
    ({"driver": "kubernetes"}, "value of driver must be one of: docker-container"),
    ({"state": "gone"}, "value of state must be one of"),
    ({"pull": "sometimes"}, "value of pull must be one of"),
    ({"image": "UPPER/case"}, "image"),
    ({"image": "two words"}, "image"),
    ({"image": "name@sha256:short"}, "image"),
    ({"memory": "abc"}, "abc"),
    ({"memory": "12x"}, "x"),
    ({"memory": "-1g"}, "-1g"),
    ({"memory": "1.5.5g"}, "1.5.5g"),
    ({"env": {"": "x"}}, "env"),
    ({"env": {"A=B": "x"}}, "A=B"),
    ({"env": {"A": ["x"]}}, "A"),
    ({"env": {"A": {"b": "x"}}}, "A"),
    ({"env": {"A": "x\0y"}}, "A"),
    ({"env": "no dict"}, "env"),
    ({"buildkitd_flags": {"debug": True}}, "buildkitd_flags"),
    ({"buildkitd_flags": "--label 'open"}, "quote"),
    ({"buildkitd_flags": ["--debug", ["nested"]]}, "buildkitd_flags"),
    ({"buildkitd_flags": [None]}, "buildkitd_flags"),
    ({"buildkitd_config": {"list": [None]}}, "buildkitd_config"),
    ({"buildkitd_config": {"insecure-entitlements": "network.host"}}, "insecure-entitlements"),
    (registry(ca="/nonexistent/ca.pem"), "ca"),
    (registry(ca=["/nonexistent/ca.pem"]), "/nonexistent/ca.pem"),
    (registry(ca=[{"file": "x"}]), "ca"),
    (registry(keypair=[{"key": "/nonexistent/key.pem"}]), "keypair"),
    (registry(keypair={"key": "/nonexistent/key.pem"}), "keypair"),
    (registry(keypair=[{"key": "/nonexistent/key.pem", "cert": "/c.pem"}]), "/nonexistent/key.pem"),
    ({"endpoint": "gopher://there"}, "gopher://there"),
    ({"wait_timeout": 0}, "wait_timeout must be more than 0"),
    ({"wait_timeout": "soon"}, "wait_timeout"),
    ({"tls_hostname": "other"}, "tls_hostname"),
    ({"client_cert": "/c.pem", "tls": True}, "client_key"),
    ({"no_such_option": 1}, "no_such_option"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[json.dumps(options)[:60] for options, _words in BAD])
def test_bad_input(bench: Bench, options: dict[str, Any], words: str) -> None:
    """What cannot be meant is refused in words that name it, before anything is made."""
    before = bench.docker("ps", "-aq", "--filter", f"name={bench.name}")

    result = bench.module("buildx_builder", **{"name": bench.name, **options})

    assert result["failed"]
    assert words in result["msg"]
    assert "Traceback" not in str(result)
    assert not result.get("changed")
    assert not any((bench.store / "instances").glob("*"))
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.name}") == before


def test_spellings_of_a_name(bench: Bench) -> None:
    """A name is one builder however it is spelled, and is stored in lower case."""
    upper = bench.name.upper()

    assert verbs(bench.builder(name=upper, state="present")) == ["register"]

    assert [path.name for path in (bench.store / "instances").iterdir()] == [bench.name]
    assert [path.name for path in (bench.store / "activity").iterdir()] == [bench.name]
    assert bench.builder(name=upper.title(), state="present")["builder"]["Name"] == bench.name
    assert bench.row(upper)["Name"] == bench.name
    assert verbs(bench.builder(name=upper, state="absent")) == ["unregister"]


def test_a_name_that_the_cli_spelled(bench: Bench) -> None:
    """A builder whose entry the CLI wrote with capitals is found, selected once, and removed with all that is its."""
    spelled = f"{bench.name}-Mixed"
    bench.buildx("create", "--name", spelled, "--driver", "docker-container")
    assert (bench.store / "activity" / spelled).exists()

    assert verbs(bench.builder(name=spelled, state="present", use=True)) == ["use"]

    assert bench.builder(name=spelled.lower(), state="present", use=True)["changed"] is False
    assert bench.module("buildx_info", name=[spelled])["builders"][0]["Current"] is True
    assert verbs(bench.builder(name=spelled, state="present", memory="1g")) == ["register"]
    assert [path.name for path in (bench.store / "instances").iterdir()] == [spelled.lower()]
    assert verbs(bench.builder(name=spelled, state="absent")) == ["unregister"]
    assert not list((bench.store / "instances").iterdir())
    assert not list((bench.store / "activity").iterdir())


def test_name_of_a_context(bench: Bench) -> None:
    """The name of a docker context belongs to the builder inside its engine."""
    bench.docker("context", "create", bench.name, "--docker", f"host={bench.environment['DOCKER_HOST']}")

    result = bench.module("buildx_builder", name=bench.name)

    assert result["failed"]
    assert result["msg"].startswith(f'instance name "{bench.name}" already exists as context builder')
    assert not bench.entry.exists()


def test_endpoint(bench: Bench) -> None:
    """A builder lives where it was made: the same place by any of its words is fine, another one is refused."""
    here = bench.environment["DOCKER_HOST"]
    context = f"{bench.name}-context"
    bench.docker("context", "create", context, "--docker", f"host={here}")
    bench.builder(state="present")
    assert bench.stored()["Endpoint"] == here

    for same in (here, "default", ""):
        assert bench.builder(state="present", endpoint=same)["changed"] is False
    for other in ("tcp://192.0.2.1:2375", context, "unix:///other.sock"):
        result = bench.module("buildx_builder", name=bench.name, endpoint=other)
        assert result["failed"]
        assert f"it cannot be moved to {other}" in result["msg"]
        assert "state: absent" in result["msg"]
    assert bench.stored()["Endpoint"] == here
    there = bench.builder(name=f"{bench.name}-there", endpoint=context, env={"A": "b"})
    assert there["builder"]["Nodes"][0]["Endpoint"] == context
    assert there["builder"]["Nodes"][0]["Status"] == "running"


def test_options_not_given_stay(bench: Bench) -> None:
    """What an option does not say is left as it is stored, and {}, [] or '' reset what they are given for."""
    everything: dict[str, Any] = {
        "image": f"{bench.name}/buildkit:1",
        "memory": "1g",
        "env": {"A": "b"},
        "buildkitd_flags": ["--debug"],
        "buildkitd_config": {"debug": True},
    }
    bench.builder(state="present", **everything)
    entry = bench.entry.read_bytes()

    assert bench.builder(state="present")["changed"] is False
    assert bench.builder(state="present", **everything)["changed"] is False
    assert bench.entry.read_bytes() == entry
    bench.builder(state="present", image="", memory="", env={}, buildkitd_flags=[], buildkitd_config={})
    bench.builder(state="present", name=f"{bench.name}-plain")
    plain = (bench.store / "instances" / f"{bench.name}-plain").read_bytes()
    assert bench.entry.read_bytes() == plain.replace(b"-plain", b"")


def current(bench: Bench) -> str:
    """Which builder is current for the CLI."""
    rows = [json.loads(line) for line in bench.docker("buildx", "ls", "--format", "json").splitlines()]
    listed = [row["Name"] for row in rows if row["Current"]]
    assert len(listed) == 1
    return str(listed[0])


@pytest.mark.parametrize("context", [False, True], ids=["by host", "by context"])
def test_use(bench: Bench, context: bool) -> None:
    """A builder is made current for the CLI too, once; without the option the selection stays as it is."""
    default = "default"
    if context:
        default = f"{bench.name}-context"
        bench.docker("context", "create", default, "--docker", f"host={bench.environment.pop('DOCKER_HOST')}")
        bench.docker("context", "use", default)
    other = f"{bench.name}-other"
    assert verbs(bench.builder(state="present")) == ["register"]
    assert current(bench) == default

    predicted = bench.builder(state="present", use=True, check=True)
    assert verbs(predicted) == ["use"]
    assert current(bench) == default
    assert verbs(bench.builder(state="present", use=True)) == ["use"]
    assert current(bench) == bench.name
    assert f"{bench.name}*" in bench.buildx("ls")
    found = bench.module("buildx_info")
    assert found["current"] == bench.name
    assert [row["Name"] for row in found["builders"] if row["Current"]] == [bench.name]

    assert bench.builder(state="present", use=True)["changed"] is False
    assert bench.builder(state="present")["changed"] is False
    assert verbs(bench.builder(name=other, state="present", use=True)) == ["register", "use"]
    assert current(bench) == other
    # A default for the engine is found, and does not outlive another selection: the CLI removes it as well.
    bench.buildx("use", "--default", bench.name)
    assert bench.builder(state="present", use=True)["changed"] is False
    assert verbs(bench.builder(name=other, state="present", use=True)) == ["use"]
    assert not list((bench.store / "defaults").iterdir())
    bench.builder(name=other, state="absent")
    assert current(bench) == default


def test_two_at_once(bench: Bench) -> None:
    """Two runs for one new builder: one makes it while the other waits, and both succeed with the one builder."""
    runs = [bench.begin("buildx_builder", name=bench.name, memory="512m") for _run in range(2)]

    results = [bench.finish(run) for run in runs]

    assert [result.get("failed", False) for result in results] == [False, False], results
    assert sorted(verbs(result) for result in results) == [[], ["pull", "register", "create", "start"]]
    for result in results:
        assert result["builder"]["Nodes"][0]["Status"] == "running"
    assert len(bench.docker("ps", "-aq", "--filter", f"name={bench.name}").split()) == 1
    assert bench.builder(memory="512m")["changed"] is False


def test_several_with_other_wishes_at_once(bench: Bench) -> None:
    """Runs that want different things of one builder take turns: the result is the last one's, entry and container."""
    bench.builder()
    wishes: list[dict[str, Any]] = [{"memory": "512m"}, {"env": {"A": "b"}}, {"buildkitd_config": {"debug": True}}]

    results = [bench.finish(run) for run in [bench.begin("buildx_builder", name=bench.name, **wish) for wish in wishes]]

    assert not any(result.get("failed") for result in results), results
    assert all(result["changed"] for result in results)
    after = bench.builder(memory="512m", env={"A": "b"}, buildkitd_config={"debug": True})
    assert after["changed"] is False


def test_another_store(bench: Bench) -> None:
    """buildx_config names the store, which may be missing, and the one of the user stays untouched."""
    other = bench.directory / "deep" / "store"

    result = bench.builder(state="present", buildx_config=str(other))

    assert result["builder"]["Name"] == bench.name
    assert (other / "instances" / bench.name).exists()
    assert not bench.store.exists()
    assert oct(other.stat().st_mode & 0o777) == "0o700"
    bench.environment["BUILDX_CONFIG"] = str(other)
    assert bench.name in bench.buildx("ls")
    assert bench.builder(state="present")["changed"] is False
    assert bench.row()["Name"] == bench.name
