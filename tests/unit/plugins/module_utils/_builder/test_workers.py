# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for a daemon, with a clock that only sleeping moves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Workers, status, wait_ready
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import (
    BuilderError,
    BuildkitError,
    EngineUnreachable,
)

WORKERS = Workers("v0.34.2", ["a"], ["linux/amd64"], [], {})
RUNNING = {"Status": "running", "Running": True}


class Bench:
    """A container that goes through states, a daemon that answers after a while, and time."""

    def __init__(self, *states: dict[str, Any] | None, silent: int = 0, log: bytes = b"") -> None:
        self.now = 0.0
        self._states = states
        self._looks = 0
        self.silent = silent
        self.log = log
        self.budgets: list[float] = []
        self.engine: Any = Engine(Target("unix:///nowhere"))
        self.engine._library()._api = self.engine._questions = self

    def close(self) -> None:
        """Nothing is held."""

    def ask(self, what: str, method: str, path: str, body: object) -> tuple[int, bytes]:
        assert (method, path) == ("GET", "/containers/buildx_buildkit_ci0/json")
        state = self._states[min(self._looks, len(self._states) - 1)]
        self._looks += 1
        if state is None:
            return 404, b'{"message": "No such container"}'
        return 200, json.dumps({"Id": "c", "State": state}).encode()

    def logs(self, name: str, **options: Any) -> bytes:
        return self.log

    def probe(self, inspect: Mapping[str, Any], seconds: float) -> Workers:
        self.budgets.append(seconds)
        if len(self.budgets) <= self.silent:
            raise BuildkitError("connection refused")
        return WORKERS

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float = 10) -> Workers:
        deadline = Deadline(seconds, lambda: self.now)
        return wait_ready(self.engine, "ci0", self.probe, deadline, self.sleep)


def test_a_daemon_that_answers_is_not_waited_for() -> None:
    bench = Bench(RUNNING)
    assert bench.wait() == WORKERS
    assert bench.now == 0


def test_a_daemon_is_asked_until_it_answers() -> None:
    bench = Bench({"Status": "created"}, RUNNING, silent=4)
    assert bench.wait() == WORKERS
    assert len(bench.budgets) == 5
    assert 0 < bench.now < 1, "a boot takes half a second; looking must not take longer"


def test_the_wait_is_bounded_and_says_why() -> None:
    bench = Bench(RUNNING, silent=10**6, log=b"could not lock\n")
    with pytest.raises(BuilderError, match=r"the node ci0 does not answer: no answer within 10 s: connection refused"):
        bench.wait()
    assert 10 <= bench.now < 11
    assert all(1 <= budget <= 5 for budget in bench.budgets)


def test_there_is_one_attempt_without_any_time() -> None:
    assert Bench(RUNNING).wait(0) == WORKERS


@pytest.mark.parametrize("ended", [{"Status": "exited", "ExitCode": 3}, {"Status": "dead", "ExitCode": 3}])
def test_a_daemon_that_ended_is_not_waited_for(ended: dict[str, Any]) -> None:
    bench = Bench(RUNNING, ended, silent=10**6, log=b"first\nfailed to read config\n")
    with pytest.raises(BuilderError, match="its container ended with exit code 3") as caught:
        bench.wait(100)
    assert bench.now < 1
    assert "Its last words:\nfirst\nfailed to read config" in str(caught.value)
    assert caught.value.details["daemon_log"] == ["first", "failed to read config"]
    assert caught.value.hint is not None


def test_a_container_that_is_gone() -> None:
    with pytest.raises(BuilderError, match="it is gone"):
        Bench(RUNNING, None, silent=10**6).wait()


def test_a_daemon_that_crashes_again_and_again_is_given_its_time() -> None:
    """Running and Restarting at once is what the engine says of it."""
    crashing = {"Status": "restarting", "Running": True, "Restarting": True, "ExitCode": 1}
    with pytest.raises(BuilderError, match=r"within 10 s: its container restarts again and again \(exit code 1\)"):
        Bench(crashing).wait()
    assert Bench(crashing, crashing, RUNNING).wait() == WORKERS


def test_last_words_are_few_and_said_once() -> None:
    log = b"".join(b"line %d\n\nsame\n" % number for number in range(40))
    with pytest.raises(BuilderError) as caught:
        Bench({"Status": "exited", "ExitCode": 1}, log=log).wait()
    words = str(caught.value).partition("Its last words:\n")[2].splitlines()
    assert len(words) == 15
    assert words[-1] == "line 39"
    assert words.count("same") <= 1


def test_without_a_log_there_are_no_last_words() -> None:
    with pytest.raises(BuilderError) as caught:
        Bench({"Status": "exited", "ExitCode": 1}).wait()
    assert "last words" not in str(caught.value)
    assert caught.value.hint is None


def test_an_engine_that_does_not_answer_is_its_own_error() -> None:
    bench = Bench(RUNNING)
    bench.engine = Engine(Target("unix:///nowhere"))
    with pytest.raises(EngineUnreachable):
        bench.wait()


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (None, "inactive"),
        ({"Status": "created", "Running": False}, "stopped"),
        ({"Status": "exited", "Running": False}, "stopped"),
        ({"Status": "dead"}, "stopped"),
        ({"Status": "running", "Running": True}, "running"),
        ({"Status": "paused", "Running": True}, "running"),
        ({"Status": "restarting", "Running": True, "Restarting": True}, "running"),
    ],
)
def test_the_word_of_the_cli(state: dict[str, Any] | None, word: str) -> None:
    """buildx.md §3.7"""
    assert status(None if state is None else {"State": state}) == word
