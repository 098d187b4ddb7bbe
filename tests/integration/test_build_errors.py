# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds that cannot be: what the failed task says, next to what the real CLI says of the same context."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"
NOT_ROOTS_POWER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Start a command as root that file modes apply to."""

FAILING = {
    "unknown instruction": "FROM scratch\n\nCOPPY a b\nRUN true\n",
    "first line": "FORM scratch\n",
    "bad flag": f"{BASE}RUN --mount=type=none true\nRUN true",
    "RUN": f"{BASE}\n# before it\nRUN echo told; echo twice; exit 7\n\nRUN true\n",
    "continued RUN": f"{BASE}RUN echo told; \\\n  # a remark\n  echo more; \\\n  false\nRUN true\nRUN true\n",
    "heredoc": f"{BASE}RUN <<EOF\necho in\nexit 3\nEOF\n",
    "RUN without output": f"{BASE}RUN exit 1\n",
    "missing program": f'{BASE}RUN ["/nothing"]\n',
    "COPY of a missing file": "FROM scratch\nCOPY missing /\n",
    "COPY from a missing stage": "FROM scratch\nCOPY --from=nobody.invalid/nothing /a /b\n",
    "no such stage": "FROM scratch AS one\nCOPY --from=one /nothing /\n",
    "unknown base": "FROM nobody.invalid/nothing\nRUN true\n",
}


def normal(text: str) -> str:
    """Without what differs from build to build: the seconds of a log line, and BuildKit's random names."""
    text = re.sub(r"(?m)^\d+\.\d+ ", "0.0 ", text)
    text = re.sub(r"udp [0-9.:>-]+", "udp PORTS", text)
    return re.sub(r"\b[a-z0-9]{25}(::[a-z0-9]{25})?\b", "REF", text)


def excerpt_of(printed: str) -> list[str]:
    """The lines of the Dockerfile that the CLI prints, with their frame."""
    found = re.search(r"(?m)^\S+:\d+\n-{20}\n(?:.*\n)*?-{20}$", printed)
    return found[0].split("\n") if found else []


@pytest.mark.parametrize("what", FAILING)
def test_failure_is_told_as_the_cli_tells_it(ready: Bench, context: Callable[..., Path], what: str) -> None:
    """Cause, place in the Dockerfile and end of the step's output are word for word those of the CLI."""
    path = context(FAILING[what], directory=what.replace(" ", "-"))

    result = ready.failed_build(path, name=ready.image())

    cli = normal(ready.buildx("build", "--builder", ready.name, "--progress=plain", str(path), check=False))
    told = normal(result["msg"])
    cause = re.search(r"(?m)^ERROR: failed to build: (.*)$", cli)
    assert cause
    assert f"{told}\n".startswith(f"{cause[1]}\n"), cli
    assert result.get("excerpt", []) == excerpt_of(cli)
    assert "\n".join(excerpt_of(cli)) in told
    assert not told.endswith("-")
    repeated = re.search(r"(?m)^------\n( > .*\n(?:.*\n)+?)------$", cli)
    if repeated and repeated[1].count("\n") > 1:
        assert repeated[0] in told
    assert result["error"]["kind"] == "solve"
    assert "#1 [internal] load build definition from Dockerfile" in result["log_tail"]
    code = re.search(r"did not complete successfully: exit code: (\d+)", cause[1])
    assert result.get("exit_code") == (int(code[1]) if code else None)
    failed = re.search(r"(?m)^#(\d+) ERROR: ", cli)
    name = re.search(rf"(?m)^#{failed[1]} (\[.*)$", cli) if failed else None
    assert result.get("step") == (name[1] if name else None)
    if failed:
        assert any(re.match(r"#\d+ ERROR: ", line) for line in result["log_tail"])


def test_failing_step_in_a_playbook(ready: Bench, context: Callable[..., Path]) -> None:
    """What a failed task returns can be tested in a playbook, and its message is readable where Ansible prints it."""
    path = context(f"{BASE}RUN echo told; exit 7\n")

    ready.play(f"""
    - buildfleet.buildx.buildx_build:
        builder: {ready.name}
        path: {path}
        load: false
      register: broken
      ignore_errors: true
    - ansible.builtin.assert:
        that:
          - broken is failed
          - broken is not changed
          - broken.exit_code == 7
          - broken.step == '[2/2] RUN echo told; exit 7'
          - broken.error.kind == 'solve'
          - broken.log_tail | select('search', '^#[0-9]+ [0-9.]+ told$') | list | length == 1
          - "'   3 | >>> RUN echo told; exit 7' in broken.excerpt"
    """)


def test_no_dockerfile(ready: Bench, tmp_path: Path) -> None:
    """Without a Dockerfile the message says where one was looked for, before anything is built."""
    (tmp_path / "empty").mkdir()
    for option, looked in ((None, "empty/Dockerfile"), ("Other", "empty/Other"), ("/no/such/file", "/no/such/file")):
        result = ready.failed_build(tmp_path / "empty", dockerfile=option)

        assert result["error"]["kind"] == "config"
        assert looked in result["msg"]
        assert "log_tail" not in result


@pytest.mark.parametrize("what", ["missing", "a file", "unreadable", "unreadable Dockerfile"])
def test_path_cannot_be_used(ready: Bench, context: Callable[..., Path], what: str) -> None:
    """A context or a Dockerfile that is not there or cannot be read is named, before anything is built."""
    path = context("FROM scratch\n")
    wrong = {"missing": path / "no", "a file": path / "Dockerfile", "unreadable Dockerfile": path / "Dockerfile"}
    named = wrong.get(what, path)
    if what.startswith("unreadable"):
        named.chmod(0)
        ready.prefix = NOT_ROOTS_POWER

    result = ready.failed_build(path if "unreadable" in what else named)

    assert result["error"]["kind"] == "config"
    assert str(named) in result["msg"]


def test_unreadable_file_in_the_context(ready: Bench, context: Callable[..., Path]) -> None:
    """A file that cannot be read fails the build and is named; it is not sent as an empty one."""
    path = context("FROM scratch\nCOPY . /\n", file="x")
    (path / "file").chmod(0)
    ready.prefix = NOT_ROOTS_POWER

    result = ready.failed_build(path)

    assert "file" in result["msg"]
    assert "ermission denied" in result["msg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Upper"}, "Upper"),
        ({"name": "a b"}, "a b"),
        ({"name": "a//b"}, "a//b"),
        ({"name": "-a"}, "-a"),
        ({"name": "a:b:c"}, "a:b:c"),
        ({"name": "a@sha256:" + "0" * 64}, "digest"),
        ({"name": "a" * 300}, "a" * 300),
        ({"name": "a", "tag": "b c"}, "b c"),
        ({"name": "a", "tag": ""}, "tag"),
        ({"name": "a", "tag": "x" * 129}, "x" * 129),
        ({"load": True}, "load needs a name"),
        ({"build_timeout": 0}, "build_timeout"),
        ({"platform": ["nonsense"]}, "nonsense"),
        ({"platform": ["linux/amd64/v8/x"]}, "linux/amd64/v8/x"),
        ({"builder": "bad name"}, "bad name"),
    ],
    ids=lambda value: "-".join(map(str, value.values()))[:20] if isinstance(value, dict) else "",
)
def test_bad_option(ready: Bench, context: Callable[..., Path], options: dict[str, object], words: str) -> None:
    """An option that cannot be is refused before anything is done, and the message holds it."""
    result = ready.failed_build(context("FROM scratch\nCOPY Dockerfile /\n"), **options)

    assert words in result["msg"]
    assert result["error"]["kind"] in ("config", "builder")
    assert not result["changed"]


def test_build_timeout(ready: Bench, context: Callable[..., Path]) -> None:
    """build_timeout cuts the build off: the task fails long before the step would end, and the daemon stops it."""
    mark = f"600.{uuid.uuid4().int % 10**6}"
    path = context(f"{BASE}RUN echo begun; sleep {mark}\n")

    build = ready.begin("buildx_build", builder=ready.name, path=str(path), build_timeout=15)
    ready.wait("the step runs", lambda: ready.runs("sleep", mark))
    result = ready.finish(build)

    assert result["error"]["kind"] == "timeout"
    assert "15 s" in result["msg"]
    assert any(line.endswith(" begun") for line in result["log_tail"])
    ready.wait("the step has ended", lambda: not ready.runs("sleep", mark), 10)
    assert any(re.fullmatch(r"#\d+ CANCELED", line) for line in result["log_tail"])
    assert '"Running"' not in ready.buildx("history", "ls", "--builder", ready.name, "--format", "json")


@pytest.mark.parametrize("library", ["docker", "grpc", "google.protobuf"])
def test_missing_library(ready: Bench, context: Callable[..., Path], library: str) -> None:
    """A library that the target lacks is named with Ansible's standard sentence."""
    ready.hide(library)

    result = ready.failed_build(context("FROM scratch\nCOPY Dockerfile /\n"))

    wanted = {"docker": "docker", "grpc": "grpcio", "google.protobuf": "protobuf"}[library]
    assert f"Failed to import the required Python library ({wanted}" in result["msg"]


def test_engine_does_not_answer(ready: Bench, context: Callable[..., Path]) -> None:
    """No engine at the address is said with the address and with what to look at."""
    for builder in ("default", ready.name):
        result = ready.failed_build(
            context("FROM scratch\n"), builder=builder, docker_host="unix:///no/such.sock", name=ready.image()
        )

        assert result["error"]["kind"] == "engine_unreachable"
        assert "unix:///no/such.sock" in result["msg"]
