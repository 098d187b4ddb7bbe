# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A result on its way into an engine: nothing counts as loaded that was cut off or refused.

The engine's load call is a function of the test; what a real engine does with the bytes is proven by the integration
tests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import load
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.load import EngineImport, sink
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallStatus, Code
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, EngineError

CONFIG = "exporter-md-containerimage.config.digest"


class Step:
    def __init__(self) -> None:
        self.log: list[str] = []

    def done(self, *, cached: bool = False) -> None:
        self.log.append("cached" if cached else "done")

    def error(self, text: str) -> None:
        self.log.append(text)


class Bench:
    """The engine's side of a load. read: what it does with what comes."""

    def __init__(self) -> None:
        self.content = b""
        self.engines: list[Engine] = []
        self.step = Step()
        self.woken = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.read: Callable[[Iterable[bytes]], None] = self._read

    def load(self, engine: Engine, chunks: Iterable[bytes]) -> None:
        self.engines.append(engine)
        self.read(chunks)

    def _read(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            self.go_on.wait(10)
            self.content += chunk

    def wake(self) -> None:
        self.woken += 1

    def open(self) -> EngineImport:
        return EngineImport(Engine(Target("unix:///run/some.sock", timeout=7)), self.wake, self.step)

    @staticmethod
    def over(made: EngineImport) -> None:
        made._thread.join(10)
        assert not made._thread.is_alive()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(load, "images", SimpleNamespace(load=made.load, inspect=lambda engine, name: None))
    return made


def test_a_result_goes_to_the_engine_as_it_comes(bench: Bench) -> None:
    made = bench.open()
    for part in (b"one", b"two", b"three"):
        made.write(part)
    made.end()
    bench.over(made)
    assert bench.content == b"onetwothree"
    assert made.outcome() is True
    assert made.held() == 0
    assert bench.step.log == ["done"]
    assert bench.woken >= 4, "after each part, and at the end"


def test_the_engine_is_given_its_time() -> None:
    """It says nothing while it unpacks a large layer: a connection of its own, with a patience of its own."""
    assert load.QUIET_SECONDS >= 3600


def test_the_connection_is_another_one_than_the_tasks(bench: Bench) -> None:
    made = bench.open()
    made.end()
    bench.over(made)
    assert bench.engines[0].target == Target("unix:///run/some.sock", timeout=load.QUIET_SECONDS)


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


def test_it_is_done_when_the_engine_says_so(bench: Bench) -> None:
    """Not when the last byte was sent."""
    unpacked = threading.Event()

    def read(chunks: Iterable[bytes]) -> None:
        list(chunks)
        unpacked.wait(10)

    bench.read = read
    made = bench.open()
    made.end()
    time.sleep(0.05)
    assert made.outcome() is False
    woken = bench.woken
    unpacked.set()
    bench.over(made)
    assert made.outcome() is True
    assert bench.woken > woken


def test_an_engine_that_refuses(bench: Bench) -> None:
    def read(chunks: Iterable[bytes]) -> None:
        for _chunk in chunks:
            raise EngineError("no space left on device")

    bench.read = read
    made = bench.open()
    made.write(b"x")
    bench.over(made)
    for act in (made.outcome, lambda: made.write(b"more")):
        with pytest.raises(EngineError, match="no space left on device"):
            act()
    assert bench.step.log == ["no space left on device"]
    assert bench.woken >= 1


def test_half_a_result_is_never_the_end_of_one(bench: Bench) -> None:
    """The request must break off: the engine would take what came for all of it."""
    ended: list[str] = []

    def read(chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            bench.content += chunk
        ended.append("well")

    bench.read = read
    made = bench.open()
    made.write(b"half")
    made.abort()
    bench.over(made)
    assert ended == []
    with pytest.raises(BuildxError, match="the load was given up"):
        made.outcome()


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
    def read(chunks: Iterable[bytes]) -> None:
        raise ZeroDivisionError("oops")

    bench.read = read
    made = bench.open()
    bench.over(made)
    with pytest.raises(EngineError, match=r"ZeroDivisionError\('oops'\)"):
        made.outcome()


# Whether anything has to move.


def opened(found: dict[str, Any] | None, metadata: dict[str, tuple[str, ...]], name: str | None = "app:1") -> Any:
    asked: list[str] = []

    def inspect(engine: Engine, image: str) -> dict[str, Any] | None:
        asked.append(image)
        return found

    step = Step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "images", SimpleNamespace(load=lambda engine, chunks: list(chunks), inspect=inspect))
        try:
            made: Any = sink(Engine(Target("unix:///x")), name, lambda: step)(metadata, lambda: None)
            made.end()
            Bench.over(made)
        except CallStatus as status:
            made = status
    return made, step.log, asked


def test_an_engine_that_has_the_image_is_left_alone() -> None:
    """ALREADY_EXISTS is success to the daemon (load.md)."""
    made, log, asked = opened({"Id": "sha256:1"}, {CONFIG: ("sha256:1",)})
    assert isinstance(made, CallStatus)
    assert made.code == Code.ALREADY_EXISTS
    assert (log, asked) == (["cached"], ["app:1"])


@pytest.mark.parametrize(
    ("found", "metadata", "name"),
    [
        ({"Id": "sha256:2"}, {CONFIG: ("sha256:1",)}, "app:1"),
        (None, {CONFIG: ("sha256:1",)}, "app:1"),
        ({"Id": "sha256:1"}, {}, "app:1"),
        ({"Id": "sha256:1"}, {CONFIG: ("sha256:1",)}, None),
        ({"Id": "sha256:1"}, {"exporter-md-containerimage.digest": ("sha256:1",)}, "app:1"),
    ],
)
def test_anything_else_is_loaded(
    found: dict[str, Any] | None, metadata: dict[str, tuple[str, ...]], name: str | None
) -> None:
    """Another image, none, or a daemon that does not say which it is."""
    made, log, _asked = opened(found, metadata, name)
    assert isinstance(made, EngineImport)
    assert log == ["done"]
