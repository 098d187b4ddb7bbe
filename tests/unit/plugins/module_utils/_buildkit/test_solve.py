# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The dance of a solve: session, Solve and Status, ended in the right order whatever happens.

The daemon is a server of grpcio in this process, so that the session is met by grpc's own implementation too. What
a real daemon answers is proven by the integration tests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import session as sessions
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import solve
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import UnixDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control, rpc
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import (
    BuildkitError,
    DeadlineError,
    SolveError,
)

SECONDS = 10.0


class Daemon(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # grpc itself takes none
    """Control, as far as a solve needs it. solve, status: what the test lets it do."""

    def __init__(self, path: str) -> None:
        self.solve: Callable[[Any, Any], Any] = lambda request, context: control.SolveResponse()
        self.status: Callable[[Any, Any], Iterator[Any]] = lambda request, context: iter(())
        self.session_open, self.session_over = threading.Event(), threading.Event()
        self.metadata: list[tuple[str, str]] = []
        self.log: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        if method == "Solve":
            return grpc.unary_unary_rpc_method_handler(
                self._solve, control.SolveRequest.FromString, control.SolveResponse.SerializeToString
            )
        if method == "Status":
            return grpc.unary_stream_rpc_method_handler(
                self._status,
                control.StatusRequest.FromString,
                control.StatusResponse.SerializeToString,
            )
        return grpc.stream_stream_rpc_method_handler(self._session)

    def _status(self, request: Any, context: Any) -> Iterator[Any]:
        return self.status(request, context)

    def _solve(self, request: Any, context: Any) -> Any:
        self.log.append("solve")
        assert self.session_open.wait(SECONDS), "a daemon waits for the session"
        answer = self.solve(request, context)
        self.log.append("solved")
        return answer

    def _session(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.metadata = list(context.invocation_metadata())
        self.log.append("session")
        self.session_open.set()
        # The daemon's half of the inner connection: enough for our side to be content.
        yield b"\x0a\x21PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        for message in messages:
            assert message, "never an empty message"
        self.log.append("session ended")
        self.session_over.set()


class Bench:
    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "buildkitd.sock")
        self.daemon = Daemon(self._path)
        self.progress = Progress()
        self.session: Session | None = None

    def run(self, seconds: float | None = 30) -> dict[str, str]:
        dialer = UnixDialer(self._path)
        self.session = Session(dialer, "s" * 25, "key", [Health()])
        with Client(dialer) as client:
            request = control.SolveRequest(Ref="r" * 25, Session=self.session.id)
            return dict(solve.run(client, self.session, request, self.progress, Deadline(seconds)))

    def over(self) -> None:
        """The daemon has seen the end of the session, and nothing of it is left here."""
        assert self.daemon.session_over.wait(SECONDS)
        assert self.session is not None
        assert not self.session._thread.is_alive()
        assert [thread.name for thread in threading.enumerate() if thread.name == "status"] == []


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(solve, "QUIET_SECONDS", 0.6)
    monkeypatch.setattr(solve, "UNHEARD_SECONDS", 0.3)
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.5)
    made = Bench(tmp_path)
    yield made
    made.daemon.stop()


def vertex(digest: str, name: str, **fields: Any) -> Any:
    response = control.StatusResponse()
    one = response.vertexes.add(digest=digest, name=name, **fields)
    one.started.seconds = 1
    one.completed.seconds = 2
    return response


def test_a_solve(bench: Bench) -> None:
    requests = []

    def solved(request: Any, context: Any) -> Any:
        requests.append(request)
        return control.SolveResponse(ExporterResponse={"containerimage.digest": "sha256:1"})

    bench.daemon.solve = solved
    bench.daemon.status = lambda request, context: iter([vertex("sha256:a", "[1/2] FROM busybox")])
    assert bench.run() == {"containerimage.digest": "sha256:1"}
    bench.over()
    assert (requests[0].Ref, requests[0].Session) == ("r" * 25, "s" * 25)
    assert any("FROM busybox" in line for line in bench.progress.lines())


def test_the_session_is_open_first_and_ended_last(bench: Bench) -> None:
    bench.run()
    bench.over()
    log = bench.daemon.log
    assert log.index("solved") < log.index("session ended")
    metadata = dict(bench.daemon.metadata)
    assert metadata["x-docker-expose-session-uuid"] == "s" * 25
    assert metadata["x-docker-expose-session-sharedkey"] == "key"
    announced = [value for key, value in bench.daemon.metadata if key == "x-docker-expose-session-grpc-method"]
    assert announced == ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]


def test_the_whole_status_is_heard_after_the_solve(bench: Bench) -> None:
    """It comes a little later than the answer, and has the log of what failed."""

    def status(request: Any, context: Any) -> Iterator[Any]:
        for number in range(5):
            yield vertex(f"sha256:{number}", f"step {number}")
            time.sleep(0.15)

    bench.daemon.status = status
    bench.run()
    lines = "\n".join(bench.progress.lines())
    assert all(f"step {number}" in lines for number in range(5))


@pytest.mark.parametrize("heard", [True, False])
def test_a_status_without_an_end_is_given_up(bench: Bench, heard: bool) -> None:
    cancelled = threading.Event()

    def status(request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        if heard:
            yield vertex("sha256:a", "step")
        cancelled.wait(SECONDS)

    bench.daemon.status = status
    began = time.monotonic()
    bench.run()
    assert time.monotonic() - began < 5
    assert cancelled.wait(SECONDS)
    bench.over()


def test_a_solve_that_fails_has_its_words_and_its_log(bench: Bench) -> None:
    def fail(request: Any, context: Any) -> Any:
        details = rpc.Status(
            code=2, message='failed to solve: process "/bin/sh -c false" did not complete'
        ).SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        time.sleep(0.1)
        context.abort(grpc.StatusCode.UNKNOWN, 'process "/bin/sh -c false" did not complete successfully: exit code: 1')

    bench.daemon.solve = fail
    bench.daemon.status = lambda request, context: iter([vertex("sha256:a", "[2/2] RUN false", error="exit code: 1")])
    with pytest.raises(SolveError, match="did not complete"):
        bench.run()
    bench.over()
    assert any("RUN false" in line for line in bench.progress.lines())


def test_a_build_that_takes_too_long_is_cut_off(bench: Bench) -> None:
    cancelled = threading.Event()

    def endless(request: Any, context: Any) -> Any:
        context.add_callback(cancelled.set)
        cancelled.wait(SECONDS)
        return control.SolveResponse()

    bench.daemon.solve = endless
    with pytest.raises(DeadlineError, match=r"it took longer than 0\.5 s") as caught:
        bench.run(0.5)
    assert cancelled.is_set(), "the daemon stops building"
    assert caught.value.hint is not None
    assert "build_timeout" in caught.value.hint
    bench.over()


def test_a_daemon_that_dies(bench: Bench) -> None:
    def die(request: Any, context: Any) -> Any:
        threading.Thread(target=bench.daemon.stop).start()
        time.sleep(SECONDS)
        return control.SolveResponse()

    bench.daemon.solve = die
    with pytest.raises(BuildkitError) as caught:
        bench.run()
    assert not isinstance(caught.value, SolveError)
    assert caught.value.hint is not None


def test_a_daemon_that_is_not_there(bench: Bench) -> None:
    bench.daemon.stop()
    with pytest.raises(BuildkitError, match="no BuildKit daemon listens at"):
        bench.run()
    assert bench.session is not None
    assert bench.session._woken == -1, "what was opened is closed"


def test_an_interruption_cancels_the_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()

    def endless(request: Any, context: Any) -> Any:
        context.add_callback(cancelled.set)
        cancelled.wait(SECONDS)
        return control.SolveResponse()

    bench.daemon.solve = endless
    deadline = Deadline(30)

    def interrupt() -> float:
        while "solve" not in bench.daemon.log:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(deadline, "left", interrupt)
    dialer = UnixDialer(bench._path)
    bench.session = Session(dialer, "s" * 25, "key", [Health()])
    with Client(dialer) as client, pytest.raises(KeyboardInterrupt):
        solve.run(client, bench.session, control.SolveRequest(Ref="r"), bench.progress, deadline)
    assert cancelled.wait(SECONDS)
    bench.over()


def test_a_daemon_that_falls_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one here never asks for the session's health; an end of the wait must not need its help."""
    monkeypatch.setattr(sessions, "SILENCE_SECONDS", 0.5)
    cancelled = threading.Event()

    def endless(request: Any, context: Any) -> Any:
        context.add_callback(cancelled.set)
        cancelled.wait(SECONDS)
        return control.SolveResponse()

    bench.daemon.solve = endless
    with pytest.raises(
        BuildkitError, match=r"broke during the build: nothing was heard of the daemon for 0\.5 s"
    ) as caught:
        bench.run(None)
    assert caught.value.hint is not None
    assert "paused" in caught.value.hint
    assert cancelled.wait(SECONDS), "a daemon that lives after all stops building"
