# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever ends or stands still in the middle of a build ends the other side within seconds, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from conftest import Bench, Mortal

BASE = "FROM scratch\nADD root.tar /\n"
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In a pid namespace of its own a module cannot prove whose the engine's pids are, and takes an exec."""
WAYS = {"direct": (), "exec": OWN_PIDS}
SECONDS = 15.0
"""What "within seconds" means on a machine that has much else to do."""


@pytest.fixture
def begun(context: Callable[..., Path], mark: str, temporary: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a build whose step sleeps, and wait until it does: `begun(bench, way, **arguments)`."""

    def begin(bench: Bench, way: str, **arguments: object) -> subprocess.Popen[str]:
        bench.prefix, bench.environment["TMPDIR"] = WAYS[way], str(temporary)
        path = context(f"{BASE}RUN echo begun; sleep {mark}\n")
        build = bench.begin("buildx_build", **{"builder": bench.name, "path": str(path), **arguments})
        bench.wait("the step runs", lambda: bench.runs("sleep", mark))
        return build

    return begin


@pytest.fixture
def nothing_left(mark: str, temporary: Path) -> Callable[[Bench], None]:
    """After a build that was ended: no step, no tunnel, no temporary file, and no build that the daemon thinks runs."""

    def check(bench: Bench) -> None:
        bench.prefix = ()
        bench.wait("the step is gone", lambda: not bench.runs("sleep", mark), SECONDS)
        assert list(temporary.iterdir()) == []
        bench.wait("the tunnels are gone", lambda: not tunnels(bench), SECONDS)
        bench.wait("the daemon has ended the build", lambda: "Running" not in history(bench), SECONDS)

    return check


def history(bench: Bench) -> list[str]:
    """The states of the builds that the daemon knows."""
    return bench.buildx("history", "ls", "--builder", bench.name, "--format", "{{.Status}}").split()


def tunnels(bench: Bench) -> list[int]:
    """Pids, as this machine has them, of the tunnels into a builder's container."""
    listed = bench.docker("top", bench.container, "-eo", "pid,args").splitlines()
    return [int(line.split()[0]) for line in listed if "dial-stdio" in line]


@pytest.mark.parametrize("way", WAYS)
def test_daemon_freezes(
    bench: Bench, begun: Callable[..., subprocess.Popen[str]], nothing_left: Callable[[Bench], None], way: str
) -> None:
    """A daemon that stands still fails the build, which nobody else would notice; when it goes on, it has none."""
    bench.builder()
    # A daemon asks for health every 5 s; nobody wants to wait for a minute here.
    session = "ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session"
    bench.first = f"import {session} as session; session.SILENCE_SECONDS = 8.0"
    build = begun(bench, way)

    bench.docker("pause", bench.container)
    result = bench.finish(build)

    assert result["error"]["kind"] == "buildkit"
    assert "nothing was heard of the daemon for 8 s" in result["msg"]
    assert "paused" in result["error"]["hint"]
    assert any(line.endswith(" begun") for line in result["log_tail"])
    bench.docker("unpause", bench.container)
    nothing_left(bench)


@pytest.mark.parametrize("way", WAYS)
def test_builder_is_stopped(
    bench: Bench, begun: Callable[..., subprocess.Popen[str]], temporary: Path, mark: str, way: str
) -> None:
    """A container that is stopped, in good order, ends the build as one that is killed does."""
    bench.builder()
    build = begun(bench, way)

    bench.docker("stop", "-t", "2", bench.container)
    result = bench.finish(build)

    assert result["failed"]
    assert result["error"]["kind"] in ("buildkit", "solve"), result
    assert list(temporary.iterdir()) == []
    bench.wait("the step is gone", lambda: not bench.runs("sleep", mark), SECONDS)


@pytest.mark.parametrize(
    ("way", "number"),
    [("direct", signal.SIGTERM), ("exec", signal.SIGTERM), ("direct", signal.SIGINT), ("exec", signal.SIGKILL)],
)
def test_module_is_ended(
    ready: Bench,
    begun: Callable[..., subprocess.Popen[str]],
    nothing_left: Callable[[Bench], None],
    way: str,
    number: signal.Signals,
) -> None:
    """A module that is told to end cancels its build and says so; one that is killed leaves nothing either."""
    build = begun(ready, way)
    # unshare does not pass signals on.
    pid = build.pid if way == "direct" else children(build.pid)[0]

    os.kill(pid, number)
    out, err = build.communicate(timeout=SECONDS)

    if number != signal.SIGKILL:
        assert f"the task was ended from outside, by {number.name}" in out
        assert "interrupted" in out
    assert "Traceback" not in out + err
    nothing_left(ready)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_tunnel_is_killed(
    bench: Bench, begun: Callable[..., subprocess.Popen[str]], nothing_left: Callable[[Bench], None]
) -> None:
    """A tunnel that ends, of whichever connection, ends the build."""
    bench.builder()
    for which in (0, 1):
        build = begun(bench, "exec")
        pids = sorted(tunnels(bench))
        assert len(pids) == 2, "one for grpcio, one for the session"
        killed = time.monotonic()

        os.kill(pids[which], signal.SIGKILL)
        result = bench.finish(build)

        assert time.monotonic() - killed < SECONDS
        assert result["failed"]
        assert result["error"]["kind"] in ("buildkit", "solve"), result
        assert any(line.endswith(" begun") for line in result["log_tail"])
        nothing_left(bench)


def test_time_is_up(
    ready: Bench, begun: Callable[..., subprocess.Popen[str]], nothing_left: Callable[[Bench], None]
) -> None:
    """build_timeout cancels the build in the daemon, which records it as cancelled."""
    build = begun(ready, "exec", build_timeout=6)

    result = ready.finish(build)

    assert result["error"]["kind"] == "timeout"
    nothing_left(ready)
    assert history(ready)[0] in ("Canceled", "Error"), history(ready)


@pytest.mark.parametrize("way", WAYS)
def test_engine_is_killed(
    bench: Bench,
    begun: Callable[..., subprocess.Popen[str]],
    mark: str,
    temporary: Path,
    mortal_engine: Mortal,
    way: str,
) -> None:
    """An engine that crashes takes the connections with it; a build that does not need it goes on.

    It leaves the ends of its tunnels in the containers behind, until it starts again.
    """
    bench.environment["DOCKER_HOST"] = mortal_engine.host
    bench.builder()
    build = begun(bench, way, load=False)

    mortal_engine.kill()
    try:
        if way == "direct":
            [step] = bench.processes("sleep", mark)
            os.kill(step, signal.SIGKILL)
        result = bench.finish(build)
    finally:
        mortal_engine.start()

    assert result["failed"]
    if way == "direct":
        assert result["exit_code"] == 137
    else:
        assert result["error"]["kind"] == "buildkit"
        assert "connection to the daemon broke" in result["msg"]
    assert list(temporary.iterdir()) == []
    bench.wait("the step is gone", lambda: not bench.runs("sleep", mark), SECONDS)
