# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls of docker-py, in client, containers and images: its errors become ours, once; what is absent is a value,
what could not be asked an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
from docker.auth import AuthConfig

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers, images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, EngineUnreachable


def refused(status: int, words: str = "no such thing") -> Exception:
    """What docker-py raises for an answer of the API."""
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps({"message": words}).encode()
    error: Exception = docker.errors.APIError("refused", response=response, explanation=words)
    return error


def raising(error: Exception) -> Callable[..., Any]:
    def call(*arguments: object, **options: object) -> None:
        raise error

    return call


def engine(**calls: Any) -> Engine:
    made = Engine(Target("unix:///run/some.sock", timeout=7))
    made._library()._api = SimpleNamespace(**calls)
    return made


def test_a_refusal_keeps_the_engines_words_and_status() -> None:
    with pytest.raises(EngineError, match=r"^could not pull x: no such thing$") as caught, engine().errors("pull x"):
        raise refused(404)
    assert caught.value.details == {"status": 404}
    assert not isinstance(caught.value, EngineUnreachable)
    assert caught.value.__cause__ is not None


def test_silence_is_told_apart_and_says_how_long() -> None:
    words = r"the engine at unix:///run/some\.sock gave no answer within 7 s"
    with pytest.raises(EngineUnreachable, match=words) as caught, engine().errors("start x"):
        raise requests.exceptions.ReadTimeout("Read timed out. (read timeout=7)")
    assert caught.value.hint is not None
    assert "timeout" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        OSError(2, "No such file or directory"),
        ConnectionRefusedError(111, "Connection refused"),
        docker.errors.DockerException("Error while fetching server API version"),
        requests.exceptions.ConnectionError("Connection aborted."),
    ],
)
def test_no_engine_there(error: Exception) -> None:
    words = r"no Docker engine answers at unix:///run/some\.sock: \w+"
    with pytest.raises(EngineUnreachable, match=words), engine().errors("ask"):
        raise error


def test_the_innermost_words_are_the_ones_that_help() -> None:
    inner = ConnectionRefusedError(111, "Connection refused")
    error = docker.errors.DockerException(f"Error while fetching: ('aborted', {inner!r})")
    with pytest.raises(EngineUnreachable, match=r": Connection refused$"), engine().errors("ask"):
        raise error from inner


def test_credentials_that_cannot_be_had_are_no_silent_engine() -> None:
    config = AuthConfig({"credsStore": "not-installed"})
    words = "could not pull x: the registry's credentials cannot be had: .*docker-credential-not-installed"
    with (
        pytest.raises(EngineError, match=words) as caught,
        pytest.warns(match="not installed"),
        engine().errors("pull x"),
    ):
        config.resolve_authconfig("registry.example.com")
    assert not isinstance(caught.value, EngineUnreachable)
    assert caught.value.hint is not None
    assert "credsStore" in caught.value.hint


def test_our_own_errors_pass() -> None:
    mine = EngineError("mine")
    with pytest.raises(EngineError) as caught, engine().errors("ask"):
        raise mine
    assert caught.value is mine


def test_a_bug_is_no_engine_error() -> None:
    with pytest.raises(ZeroDivisionError), engine().errors("ask"):
        raise ZeroDivisionError


def asked(answer: Callable[[str, str], tuple[int, bytes]]) -> Engine:
    """An engine whose questions are answered by `answer(method, path)`."""

    class Questions:
        def ask(self, what: str, method: str, path: str, body: object) -> tuple[int, bytes]:
            return answer(method, path)

    made = Engine(Target("unix:///run/some.sock", timeout=7))
    made._questions = Questions()  # type: ignore[assignment]
    return made


def test_settings_are_asked_once() -> None:
    paths: list[str] = []

    def answer(method: str, path: str) -> tuple[int, bytes]:
        paths.append(path)
        return 200, b'{"Name": "box"}'

    made = asked(answer)
    assert made.info() == made.info() == {"Name": "box"}
    assert paths == ["/info"]


def test_leaving_closes() -> None:
    closed: list[int] = []
    with engine(close=lambda: closed.append(1)) as made:
        pass
    made.close()
    assert closed == [1]


@pytest.mark.parametrize(
    ("look", "name", "path"),
    [
        (containers.inspect, "box", "/containers/box/json"),
        (containers.inspect_volume, "box_state", "/volumes/box_state"),
        (images.inspect, "host:5000/a/b:1", "/images/host:5000/a/b:1/json"),
        (images.inspect, "a@sha256:0", "/images/a@sha256:0/json"),
        (images.inspect, "a?b c", "/images/a%3Fb%20c/json"),
    ],
)
def test_absent_is_none_and_anything_else_an_error(look: Callable[[Engine, str], Any], name: str, path: str) -> None:
    assert look(asked(lambda method, path: (200, json.dumps({"Id": path}).encode())), name) == {"Id": path}
    assert look(asked(lambda method, path: (404, b'{"message":"no such thing"}')), name) is None
    for status in (500, 403):
        with pytest.raises(EngineError, match=r"could not inspect the .*: because") as caught:
            look(asked(lambda method, path, status=status: (status, b'{"message":"because"}')), name)  # type: ignore[misc]
        assert caught.value.details == {"status": status}


def test_an_engine_behind_ssh_is_asked_through_docker_py() -> None:
    """Each connection of our own would be a login."""
    calls: list[tuple[object, ...]] = []

    def request(*arguments: object, **options: object) -> object:
        calls.append((*arguments, options["json"]))
        return SimpleNamespace(status_code=404, content=b'{"message":"no such container"}')

    made = Engine(Target("ssh://user@host", api_version="1.43"))
    made._library()._api = SimpleNamespace(base_url="http+docker://ssh", request=request, close=lambda: None)

    assert containers.inspect(made, "box") is None
    assert calls == [("GET", "http+docker://ssh/v1.43/containers/box/json", None)]


@pytest.mark.parametrize(
    ("act", "call"), [(containers.remove, "remove_container"), (containers.remove_volume, "remove_volume")]
)
def test_what_is_gone_already_is_removed(act: Callable[[Engine, str], None], call: str) -> None:
    act(engine(**{call: raising(refused(404))}), "x")
    with pytest.raises(EngineError, match="volume is in use"):
        act(engine(**{call: raising(refused(409, "volume is in use"))}), "x")


def test_the_log_only_explains_and_never_fails() -> None:
    assert containers.logs(engine(logs=lambda name, **options: b"a\n\xff\n"), "x") == ["a", "�"]
    assert containers.logs(engine(logs=raising(refused(404))), "x") == []


def lines(*found: dict[str, Any]) -> Callable[..., Iterator[dict[str, Any]]]:
    return lambda *arguments, **options: iter(found)


def test_a_pull_fails_by_a_line_of_its_stream() -> None:
    images.pull(engine(pull=lines({"status": "Pulling"}, {"status": "Done"})), "busybox")
    with pytest.raises(EngineError, match="could not pull busybox: toomanyrequests"):
        images.pull(engine(pull=lines({"status": "x"}, {"error": "toomanyrequests"})), "busybox")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("busybox", ("busybox", "latest")),
        ("r:5000/a/b:1", ("r:5000/a/b", "1")),
        ("busybox@sha256:" + "0" * 64, ("busybox", "sha256:" + "0" * 64)),
    ],
)
def test_what_is_pulled(name: str, asked: tuple[str, str]) -> None:
    """Always one tag: without one the engine would pull all of them."""
    found = []

    def pull(repository: str, tag: str, **options: bool) -> Iterator[dict[str, str]]:
        found.append((repository, tag))
        return iter(())

    images.pull(engine(pull=pull), name)
    assert found == [asked]


@pytest.mark.parametrize(
    "line",
    [
        {"error": "unexpected EOF"},
        {"stream": "Error unpacking image x: failed to extract layer", "progress": 1},
    ],
)
def test_a_load_fails_by_a_line_of_its_stream(line: dict[str, Any]) -> None:
    """The containerd store reports it as plain progress (load.md)."""
    with pytest.raises(EngineError, match="could not load the image: "):
        images.load(engine(load_image=lines({"stream": "Loading"}, line)), [b"tar"])
    images.load(engine(load_image=lines({"stream": "Loaded image: x"}, {"status": "ok"})), [b"tar"])


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}, True),
        ({"DriverStatus": [["Backing Filesystem", "extfs"]]}, False),
        ({"DriverStatus": None}, False),
        ({}, False),
    ],
)
def test_which_store_an_engine_has(info: dict[str, Any], found: bool) -> None:
    assert images.has_containerd_store(info) is found


def test_digests_of_an_image() -> None:
    image = {"RepoDigests": ["moby/buildkit@sha256:aa", "mirror/buildkit@sha256:bb"]}
    assert images.has_digest(image, "sha256:bb")
    assert not images.has_digest(image, "sha256:b")
    assert not images.has_digest({"RepoDigests": None}, "sha256:aa")
    assert images.remote_digest(engine(inspect_distribution=lambda name: {"Descriptor": {"digest": "d"}}), "x") == "d"
