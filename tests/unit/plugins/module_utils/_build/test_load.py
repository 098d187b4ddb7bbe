# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A result on its way into an engine: nothing counts as loaded that was cut off, refused or not found afterwards.

What moves and how is a function of the test; what real engines do with it is proven by the integration tests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import load, transfer
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.load import EngineLoad, Loaded, LoadSink, Wish
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallStatus, Code
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, EngineError

CONFIG = "exporter-md-containerimage.config.digest"
DIGEST = "exporter-md-containerimage.digest"
NAMES = "exporter-md-image.name"
ENGINE = Engine(Target("unix:///run/some.sock", timeout=7))
CLIENT: Any = None


class Step:
    def __init__(self) -> None:
        self.log_: list[str] = []

    def log(self, text: str) -> None:
        self.log_.append(text)

    def done(self, *, cached: bool = False) -> None:
        self.log_.append("cached" if cached else "done")

    def error(self, text: str) -> None:
        self.log_.append(text)


class Bench:
    """The other sides of a load. has: what the engine has; move: how an image gets there that it has not."""

    def __init__(self) -> None:
        self.content = b""
        self.step = Step()
        self.woken = 0
        self.has: Callable[[str], str | None] = lambda name: None
        self.move: Callable[[Any], Loaded] = self._read
        self.go_on = threading.Event()
        self.go_on.set()

    def transfer(self, wish: Wish, metadata: object, client: Client, source: Any) -> Any:
        class Transfer:
            @staticmethod
            def run(log: Callable[[str], None]) -> Loaded:
                return self.move(source)

        return Transfer()

    def _read(self, source: Any) -> Loaded:
        for chunk in source.stream():
            self.go_on.wait(10)
            self.content += chunk
        return Loaded("pipe", len(self.content), None)

    def wake(self) -> None:
        self.woken += 1

    def open(self, metadata: dict[str, tuple[str, ...]] | None = None, *, containerd: bool = False) -> EngineLoad:
        sink = LoadSink(ENGINE, CLIENT, lambda: self.step, containerd=containerd)
        return sink(metadata or {}, self.wake)

    @staticmethod
    def over(made: EngineLoad) -> None:
        made._thread.join(10)
        assert not made._thread.is_alive()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(transfer, "Transfer", made.transfer)
    monkeypatch.setattr(Wish, "held", lambda wish, name: made.has(name))
    return made


def test_a_result_that_is_read_goes_on_as_it_comes(bench: Bench) -> None:
    made = bench.open()
    for part in (b"one", b"two", b"three"):
        made.write(part)
    made.end()
    bench.over(made)
    assert bench.content == b"onetwothree"
    assert made.outcome() is True
    assert made.held() == 0
    assert bench.step.log_ == ["done"]
    assert bench.woken >= 4, "after each part, and at the end"


def test_the_engine_is_given_its_time() -> None:
    """It says nothing while it unpacks a large layer."""
    assert transfer.QUIET_SECONDS >= 3600


def test_what_waits_is_counted(bench: Bench) -> None:
    bench.go_on.clear()
    made = bench.open()
    for _time in range(4):
        made.write(b"x" * 1000)
    assert made.held() == 4000
    assert made.outcome() is False
    bench.go_on.set()
    made.end()
    bench.over(made)
    assert made.held() == 0


def test_a_failure_is_told_at_once(bench: Bench) -> None:
    def move(source: Any) -> Loaded:
        raise EngineError("no space left on device")

    bench.move = move
    made = bench.open()
    bench.over(made)
    for act in (made.outcome, lambda: made.write(b"more")):
        with pytest.raises(EngineError, match="no space left on device"):
            act()
    assert bench.step.log_ == ["no space left on device"]
    assert bench.woken >= 1


def test_half_a_result_is_never_the_end_of_one(bench: Bench) -> None:
    """Neither of the stream nor of what is read elsewhere: the engine would take what came for all of it."""
    made = bench.open()
    made.write(b"half")
    made.abort()
    bench.over(made)
    for act in (made.outcome, made.check):
        with pytest.raises(BuildxError, match="the load was given up"):
            act()


def test_giving_up_after_the_end_is_nothing(bench: Bench) -> None:
    made = bench.open()
    made.write(b"all")
    made.end()
    bench.over(made)
    made.abort()
    assert made.outcome() is True
    assert bench.content == b"all"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_no_success(bench: Bench) -> None:
    def move(source: Any) -> Loaded:
        raise ZeroDivisionError("oops")

    bench.move = move
    made = bench.open()
    bench.over(made)
    with pytest.raises(EngineError, match=r"ZeroDivisionError\('oops'\)"):
        made.outcome()


def test_the_call_does_not_wait(bench: Bench) -> None:
    """The engine takes its time to say what it has; the session goes on meanwhile."""
    answer = threading.Event()

    def slow(name: str) -> str:
        answer.wait(10)
        return "sha256:1"

    bench.has = slow
    made = bench.open({CONFIG: ("sha256:1",), NAMES: ("docker.io/library/app:1",)})
    made.write(b"some")
    assert made.outcome() is False
    answer.set()
    bench.over(made)
    with pytest.raises(CallStatus):
        made.outcome()


@pytest.mark.parametrize("way", ["tagged", "missing", "all"])
def test_what_did_not_come_from_the_stream_ends_the_call(bench: Bench, way: str) -> None:
    """ALREADY_EXISTS is success to the daemon, and not before all is done: until then it keeps the layers."""
    go_on = threading.Event()

    def move(source: Any) -> Loaded:
        go_on.wait(10)
        return Loaded(way, 5, 1)

    bench.move = move
    made = bench.open()
    made.write(b"never read")
    assert made.outcome() is False
    go_on.set()
    bench.over(made)
    with pytest.raises(CallStatus) as ended:
        made.outcome()
    assert ended.value.code == Code.ALREADY_EXISTS
    assert (bench.content, bench.step.log_) == (b"", ["done"])
    assert made.loaded == Loaded(way, 5, 1)


# Whether anything has to move.

LIBRARY = "docker.io/library/"


@pytest.mark.parametrize(
    ("containerd", "names", "has"),
    [
        (False, f"{LIBRARY}app:1", {"app:1"}),
        (False, f"{LIBRARY}app:1,registry.lab:5000/a/b:2", {"app:1", "registry.lab:5000/a/b:2"}),
        (True, f"{LIBRARY}app:1,{LIBRARY}b:latest", {"app:1", "b:latest"}),
        (False, "", {"sha256:id"}),
        (True, "", {"moby-dangling@sha256:id"}),
    ],
)
def test_an_engine_that_has_the_image_is_left_alone(bench: Bench, containerd: bool, names: str, has: set[str]) -> None:
    """Under each of its names, in the form in which engines know them."""
    asked: set[str] = set()

    def found(name: str) -> str:
        asked.add(name)
        return "sha256:id"

    bench.has = found
    key, other = (DIGEST, CONFIG) if containerd else (CONFIG, DIGEST)
    made = bench.open({key: ("sha256:id",), other: ("sha256:another",), NAMES: (names,)}, containerd=containerd)
    bench.over(made)
    with pytest.raises(CallStatus) as ended:
        made.outcome()
    assert ended.value.code == Code.ALREADY_EXISTS
    assert made.loaded == Loaded("unchanged")
    assert bench.step.log_ == ["cached"]
    assert asked == has


@pytest.mark.parametrize(
    ("has", "metadata"),
    [
        ("sha256:2", {CONFIG: ("sha256:1",), NAMES: ("docker.io/library/app:1",)}),
        (None, {CONFIG: ("sha256:1",), NAMES: ("docker.io/library/app:1",)}),
        (None, {CONFIG: ("sha256:1",)}),
        ("sha256:1", {DIGEST: ("sha256:1",), NAMES: ("docker.io/library/app:1",)}),
        ("sha256:1", {NAMES: ("docker.io/library/app:1",)}),
        ("", {}),
    ],
)
def test_anything_else_is_loaded(bench: Bench, has: str | None, metadata: dict[str, tuple[str, ...]]) -> None:
    """Another image, none, or a daemon that does not say which it is."""
    bench.has = lambda name: has
    made = bench.open(metadata)
    made.end()
    bench.over(made)
    assert made.outcome() is True
    assert bench.step.log_ == ["done"]


def test_one_name_of_two_is_not_enough(bench: Bench) -> None:
    bench.has = {"a:1": "sha256:1"}.get
    made = bench.open({CONFIG: ("sha256:1",), NAMES: ("docker.io/library/a:1,docker.io/library/b:1",)})
    made.end()
    bench.over(made)
    assert made.loaded is not None
    assert made.loaded.way == "pipe"


def test_the_value_of_a_task() -> None:
    """What is not known is left out."""
    assert Loaded("missing", 3, 1).to_result() == {"way": "missing", "bytes": 3, "layers": 1}
    assert Loaded(load.PIPE, 3, None).to_result() == {"way": "pipe", "bytes": 3}
