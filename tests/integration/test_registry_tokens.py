# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry that wants tokens, as the large ones do: who fetches them, and how often (buildkit-wire.md §9)."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Bench

OURS = "buildfleet-buildx"


class TokenRegistry:
    """A registry and its token server, which run until `close`."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        """directory: one that the lab's machine sees as /run/lab/<its name>."""
        directory.mkdir()
        self._requests = directory / "requests"
        inside = f"/run/lab/{directory.name}"
        program = str(Path(__file__).with_name("token_server.py"))
        python = bench.environment["BUILDX_LAB_PYTHON"]
        self._processes = [
            subprocess.Popen(
                [*bench.prefix, python, program, str(directory), inside], stdout=subprocess.PIPE, text=True
            )
        ]
        assert self._processes[0].stdout is not None
        self.host = f"127.0.0.1:{self._processes[0].stdout.readline().strip()}"
        lab = bench.prefix[:-1]
        log = (directory / "log").open("w")
        with log:
            command = [*lab, "exec", "docker-registry", "serve", f"{inside}/config.yml"]
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        probe = [*bench.prefix, "curl", "-s", "-o", "/dev/null", f"http://{self.host}/v2/"]
        bench.wait("the registry", lambda: subprocess.run(probe, check=False).returncode == 0)

    def asked(self) -> list[dict[str, Any]]:
        """The requests to the token server since the last call."""
        lines = self._requests.read_text().splitlines()
        self._requests.write_text("")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10)
        if self._processes[0].stdout is not None:
            self._processes[0].stdout.close()


@pytest.fixture
def tokens(there: Bench) -> Iterator[TokenRegistry]:
    """The registry, with a login to it in docker's configuration."""
    run_directory = Path(there.environment["DOCKER_HOST"].removeprefix("unix://")).parent
    made = TokenRegistry(there, run_directory / f"tokens-{there.image().rpartition('/')[2]}")
    log_in(there, made, "right")
    yield made
    made.close()


def log_in(bench: Bench, registry: TokenRegistry, password: str) -> None:
    login = base64.b64encode(f"lab:{password}".encode()).decode()
    bench.docker_config(auths={registry.host: {"auth": login}})


def test_push_and_pull(there: Bench, context: Callable[..., Path], tokens: TokenRegistry) -> None:
    """Tokens are fetched by the module; the daemon, which gets no password, uses them as long as they last."""
    name = f"{tokens.host}/{there.image()}"
    path = context("FROM scratch\nADD root.tar /\n")
    over = context(f"FROM {name}\nRUN echo over\n", directory="over")

    pushed = [there.build(path, name=name, push=True)["changed"] for _time in range(2)]
    asked = tokens.asked()
    built = there.build(over)

    assert pushed == [True, False]
    assert {request["who"] for request in asked} == {OURS}
    assert {request["grant_type"] for request in asked} == {"password"}
    assert {request["client_id"] for request in asked} == {"buildkit-client"}
    assert "[2/2] RUN echo over" in built["executed"]


def test_one_token_for_equal_credentials(there: Bench, context: Callable[..., Path], tokens: TokenRegistry) -> None:
    """The daemon takes the token of an earlier session, the CLI's even, once both have proven to know the same."""
    name = f"{tokens.host}/{there.image()}"
    there.build(context("FROM scratch\nADD root.tar /\n"), name=name, push=True)
    tokens.asked()
    seed = Path(there.environment["DOCKER_CONFIG"]) / ".token_seed"
    seed.unlink()
    over = context(f"FROM {name}\n", directory="over")
    cli = [*there.prefix, "docker", "buildx", "build", "--builder", there.name, str(over)]

    there.run(*cli)
    by_cli = tokens.asked()
    there.build(over)
    with_proof = tokens.asked()
    seed.unlink()
    there.build(over)
    without = tokens.asked()
    there.run(*cli)
    by_cli_again = tokens.asked()

    assert [request["who"] == OURS for request in by_cli] == [False]
    assert with_proof == []
    assert [request["who"] for request in without] == [OURS]
    assert by_cli_again == []
    assert oct(seed.stat().st_mode & 0o777) == "0o600"


def test_tokens_by_the_daemon(there: Bench, context: Callable[..., Path], tokens: TokenRegistry) -> None:
    """With the CLI's variable the daemon gets the password and fetches its tokens itself."""
    there.environment["BUILDKIT_NO_CLIENT_TOKEN"] = "1"
    name = f"{tokens.host}/{there.image()}"

    there.build(context("FROM scratch\nADD root.tar /\n"), name=name, push=True)
    there.build(context(f"FROM {name}\n", directory="over"))

    by_the_daemon = [request for request in tokens.asked() if request["who"] != OURS]
    assert by_the_daemon
    assert all(request["granted"] for request in by_the_daemon)


def test_refused(there: Bench, context: Callable[..., Path], tokens: TokenRegistry) -> None:
    log_in(there, tokens, "not-the-password")

    failed = there.failed_build(context(f"FROM {tokens.host}/{there.image()}\n"))

    assert tokens.host in failed["msg"]
    assert "failed to fetch a token from 127.0.0.1: 401: no" in failed["msg"]
    assert "not-the-password" not in json.dumps(failed)
