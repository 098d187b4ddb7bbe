# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The border to Ansible: what a result looks like, and that only text goes over it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

pytest.importorskip("ansible.module_utils.basic", reason="a target has no ansible-core of its own")

from ansible_collections.buildfleet.buildx.plugins.module_utils import _module as border
from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import MissingLibrary
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError, EngineError

VARIABLES = ("DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "BUILDX_BUILDER", "HOME")


class Ended(Exception):  # noqa: N818 - the end of a module's process, not an error
    def __init__(self, failed: bool, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.failed = failed
        self.result = result


class Module:
    """The part of AnsibleModule that the border uses."""

    def __init__(self, **params: Any) -> None:
        self.params = {"buildx_config": None, **params}
        self.debugged: list[str] = []

    def debug(self, text: str) -> None:
        self.debugged.append(text)

    def fail_json(self, msg: str, **facts: Any) -> NoReturn:
        raise Ended(True, {"msg": msg, **facts})

    def exit_json(self, **facts: Any) -> NoReturn:
        raise Ended(False, facts)


def run(body: Any, module: Any = None) -> Ended:
    with pytest.raises(Ended) as caught:
        border.run_module(module or Module(), body)
    json.dumps(caught.value.result, ensure_ascii=False).encode("utf-8")  # it can be carried
    return caught.value


def raising(error: BaseException) -> Any:
    def body(module: object) -> Mapping[str, object]:
        raise error

    return body


def test_a_result_is_handed_over() -> None:
    ended = run(lambda module: {"changed": True, "steps": [{"step": "create"}]})
    assert not ended.failed
    assert ended.result == {"changed": True, "steps": [{"step": "create"}]}


def test_an_error_becomes_a_failed_task_with_kind_and_hint() -> None:
    ended = run(raising(BuilderError("the daemon does not answer", hint="See its log.")))
    assert ended.failed
    assert ended.result == {
        "msg": "the daemon does not answer. See its log.",
        "error": {"kind": "builder", "hint": "See its log."},
        "changed": False,
    }


@pytest.mark.parametrize(("message", "expected"), [("no", "no. Do."), ("no.", "no. Do."), ("no...", "no. Do.")])
def test_message_and_hint_are_two_sentences(message: str, expected: str) -> None:
    assert run(raising(BuildxError(message, hint="Do."))).result["msg"] == expected


def test_a_failure_shows_how_far_it_came() -> None:
    ended = run(raising(EngineError("no", status=500, steps=[{"step": "pull"}], changed=True)))
    assert ended.result["changed"] is True
    assert ended.result["steps"] == [{"step": "pull"}]
    assert ended.result["status"] == 500


def test_the_traceback_of_an_expected_error_is_for_those_who_debug() -> None:
    module = Module()
    ended = run(raising(BuildxError("no")), module)
    assert "Traceback" not in json.dumps(ended.result)
    assert "Traceback" in module.debugged[0]


def test_a_missing_library_is_told_in_ansibles_words() -> None:
    ended = run(raising(MissingLibrary("grpcio", "No module named 'grpc'")))
    assert "grpcio" in ended.result["msg"]
    assert "Failed to import the required Python library" in ended.result["msg"]
    assert ended.result["error"]["kind"] == "missing_library"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        border.run_module(Module(), lambda module: {"changed": 1 / 0})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unwinds_the_body(number: signal.Signals) -> None:
    """What a body holds is given back, a second signal does not disturb that, and the process' own handlers return."""
    before, released = signal.getsignal(number), []

    def body(module: object) -> Mapping[str, object]:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)
            released.append(True)
        return {}

    ended = run(body)
    assert ended.failed
    assert ended.result["msg"] == f"the task was ended from outside, by {number.name}"
    assert ended.result["error"] == {"kind": "interrupted", "hint": None}
    assert released == [True]
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ended = run(lambda module: {"handler": str(os.kill(os.getpid(), signal.SIGHUP))})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not ended.failed


@pytest.mark.parametrize("text", ["\udc80", "a\ud800b", "fine", "ü\udcff"])
def test_what_is_no_text_does_not_lose_the_whole_result(text: str) -> None:
    """Names of files may hold any bytes; Python carries them as lone surrogates, JSON and Ansible do not."""
    ended = run(lambda module: {"changed": False, "log": [text, {text: (text, 1, None)}]})
    assert ended.result["log"][1] == {border.printable(text): [border.printable(text), 1, None]}
    assert border.printable(text).encode("utf-8")
    ended = run(raising(BuildxError(f"cannot read {text}", log_tail=[text])))
    assert ended.result["log_tail"] == [border.printable(text)]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "option", "docker_config", "store"),
    [
        ({"HOME": "/home/u"}, None, "/home/u/.docker", "/home/u/.docker/buildx"),
        ({}, None, "/root/.docker", "/root/.docker/buildx"),
        ({"HOME": "/home/u", "DOCKER_CONFIG": "/etc/dc"}, None, "/etc/dc", "/etc/dc/buildx"),
        ({"HOME": "/home/u", "DOCKER_CONFIG": ""}, None, "/home/u/.docker", "/home/u/.docker/buildx"),
        ({"HOME": "/home/u", "DOCKER_CONFIG": "/etc/dc"}, "/srv/store", "/etc/dc", "/srv/store"),
    ],
)
def test_where_the_store_is(
    environment: pytest.MonkeyPatch, variables: dict[str, str], option: Any, docker_config: str, store: str
) -> None:
    """The steps of buildx.md §1.1; $BUILDX_CONFIG comes in as the fall-back of the option."""
    for name, value in variables.items():
        environment.setenv(name, value)
    found = border.surroundings(Module(buildx_config=option))
    assert (found.docker_config, found.store) == (docker_config, store)
    assert (found.cert_path, found.context, found.builder) == (None, None, None)


def test_what_else_is_taken_from_the_process(environment: pytest.MonkeyPatch) -> None:
    for name, value in {"DOCKER_CERT_PATH": "/c", "DOCKER_CONTEXT": "x", "BUILDX_BUILDER": "ci"}.items():
        environment.setenv(name, value)
    found = border.surroundings(Module())
    assert (found.cert_path, found.context, found.builder) == ("/c", "x", "ci")


def test_empty_variables_are_as_if_not_set(environment: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        environment.setenv(name, "")
    found = border.surroundings(Module())
    assert found[:5] == ("/root/.docker", "/root/.docker/buildx", None, None, None)


def test_paths_of_users(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths inside of options are read as Ansible reads those that are options."""
    environment.setenv("HOME", "/home/ci")
    environment.setenv("SITE", "www")
    environment.chdir(tmp_path)
    absolute = border.surroundings(Module()).absolute
    assert absolute("~/out") == "/home/ci/out"
    assert absolute("/srv/$SITE/../x") == "/srv/x"
    assert absolute("a/b") == str(tmp_path / "a/b")


def test_other_variables(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TOKEN", "t")
    environment.delenv("NOTHING", raising=False)
    variable = border.surroundings(Module()).variable
    assert (variable("TOKEN"), variable("NOTHING")) == ("t", None)
