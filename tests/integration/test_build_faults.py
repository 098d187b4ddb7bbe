# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What dies in the middle of a build: the daemon, the module, the store; the next build works."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"
WAYS = {"direct": (), "exec": ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")}
"""In a pid namespace of its own a module cannot prove whose the engine's pids are, and takes an exec."""


@pytest.mark.parametrize("way", WAYS)
def test_daemon_is_killed(bench: Bench, context: Callable[..., Path], way: str, mark: str, temporary: Path) -> None:
    """A build whose daemon is killed fails within seconds and says so, leaves nothing, and the next one boots it."""
    bench.builder()
    bench.prefix, bench.environment["TMPDIR"] = WAYS[way], str(temporary)
    path = context(f"{BASE}RUN echo begun; sleep {mark}\n")
    build = bench.begin("buildx_build", builder=bench.name, path=str(path), name=bench.image())
    bench.wait("the step runs", lambda: bench.runs("sleep", mark))

    killed = time.monotonic()
    bench.docker("kill", bench.container)
    result = bench.finish(build)

    assert time.monotonic() - killed < 10
    assert result["failed"]
    assert result["error"]["kind"] == "buildkit"
    assert "connection to the daemon broke" in result["msg"]
    assert "container runs" in result["msg"]
    assert any(line.endswith(" begun") for line in result["log_tail"])
    assert list(temporary.iterdir()) == []
    bench.wait("the step is gone", lambda: not bench.runs("sleep", mark))
    assert bench.row()["Nodes"][0]["Status"] == "stopped"

    name = bench.image()
    again = bench.build(context(f"{BASE}RUN echo works\n"), name=name)
    assert again["changed"]
    assert again["log_tail"][0] == "#1 [internal] booting buildkit"
    assert [step["step"] for step in again["steps"]] == ["start"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
def test_module_is_killed(ready: Bench, context: Callable[..., Path], way: str, mark: str, temporary: Path) -> None:
    """A build whose module is killed is stopped by the daemon within seconds; nothing is loaded."""
    ready.prefix, ready.environment["TMPDIR"] = WAYS[way], str(temporary)
    name = ready.image()
    path = context(f"{BASE}RUN sleep {mark}\n")
    build = ready.begin("buildx_build", builder=ready.name, path=str(path), name=name)
    ready.wait("the step runs", lambda: ready.runs("sleep", mark))

    build.kill()
    build.communicate()

    ready.wait("the daemon has stopped the step", lambda: not ready.runs("sleep", mark), 15)
    ready.wait("the tunnels are gone", lambda: not _tunnels(ready), 15)
    assert ready.docker("images", "-q", name) == ""
    ready.prefix = ()
    assert ready.build(context(f"{BASE}RUN echo works\n"), name=name)["changed"]


def test_builder_is_removed_meanwhile(bench: Bench, context: Callable[..., Path], mark: str) -> None:
    """A build whose builder is removed with everything fails as clearly."""
    bench.builder()
    build = bench.begin("buildx_build", builder=bench.name, path=str(context(f"{BASE}RUN sleep {mark}\n")))
    bench.wait("the step runs", lambda: bench.runs("sleep", mark))

    bench.builder(state="absent")
    result = bench.finish(build)

    assert result["failed"]
    assert "connection to the daemon broke" in result["msg"]
    gone = bench.failed_build(context(BASE))
    assert "default" in gone["msg"]
    assert bench.name in gone["msg"]


def test_store_that_cannot_be_written(ready: Bench, context: Callable[..., Path]) -> None:
    """A store that is read-only is named, before the build; nothing of it is half written."""
    before = sorted(ready.store.rglob("*"))
    ready.prefix = (
        *("unshare", "--mount", "sh", "-c"),
        f'mount --bind {ready.store} {ready.store} && mount -o remount,ro,bind {ready.store} && exec "$@"',
        "sh",
    )

    result = ready.failed_build(context(BASE))

    assert result["error"]["kind"] == "store"
    assert str(ready.store) in result["msg"]
    assert sorted(ready.store.rglob("*")) == before


def test_long_name_of_the_temporary_directory(ready: Bench, context: Callable[..., Path], temporary: Path) -> None:
    """A temporary directory whose name is longer than that of a socket may be does not matter."""
    deep = temporary / ("long" * 20) / ("name" * 20)
    deep.mkdir(parents=True)
    ready.environment["TMPDIR"] = str(deep)

    ready.build(context(f"{BASE}LABEL l={uuid.uuid4()}\n"), builder="default", name=ready.image())

    assert list(deep.iterdir()) == []


def _tunnels(bench: Bench) -> int:
    return bench.docker("top", bench.container, "-eo", "pid,args").count("dial-stdio")
