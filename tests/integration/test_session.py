# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The session under load: long silence, long headers, several at once, an error as large as its Dockerfile."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In a pid namespace of its own a module cannot prove whose the engine's pids are, and takes an exec."""
SILENCE = 40
"""Seconds; the daemon asks for health every 5 and gives a dead session up after two failures (wire §2.4)."""


@pytest.mark.parametrize("letters", ["a", "é"], ids=["plain", "encoded"])
def test_thousands_of_patterns(ready: Bench, tmp_path: Path, letters: str) -> None:
    """Patterns of .dockerignore that fill a header list of hundreds of KB all reach the filter."""
    count = 4000
    files = [f"{letters * 30}-{number}" for number in (0, count // 2, count - 1, count)]
    for name in files:
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text(
        "".join(f"{letters * 30}-{number}\n" for number in range(count)) + "docker\n"
    )
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    assert (tmp_path / ".dockerignore").stat().st_size > 100_000
    ours, theirs = ready.image(), ready.image()

    result = ready.build(tmp_path, name=ours)

    ready.buildx("build", "--builder", ready.name, "--load", "-t", theirs, str(tmp_path))
    assert ready.inspect(theirs)["RootFS"]["Layers"] == result["image"]["RootFS"]["Layers"]
    assert ready.files(ours) == {"Dockerfile", ".dockerignore", files[-1]}


def test_three_at_once(ready: Bench, context: Callable[..., Path]) -> None:
    """Builds that run at once on one builder keep their contexts and results apart."""
    words = [uuid.uuid4().hex for _word in range(3)]
    started = []
    for number, word in enumerate(words):
        path = context(
            f"{BASE}COPY word /\nRUN sleep 1; cat /word > /said\nCMD cat /said\n", directory=f"c{number}", word=word
        )
        name = ready.image()
        started.append((name, word, ready.begin("buildx_build", builder=ready.name, path=str(path), name=name)))

    for name, word, process in started:
        result = ready.finish(process)

        assert not result.get("failed"), result
        assert ready.docker("run", "--rm", name) == word


@pytest.mark.parametrize(
    ("filler", "end", "words"),
    [
        ("# {0}\n", "COPPY a b\n", "unknown instruction: COPPY"),
        ("# {0}\n", "RUN exit 9\n", "did not complete successfully: exit code: 9"),
        ("ENV l{0}=\n", "COPY nothing /\n", '"/nothing": not found'),
    ],
    ids=["syntax", "step", "instructions"],
)
def test_error_of_a_large_dockerfile(
    ready: Bench, context: Callable[..., Path], filler: str, end: str, words: str
) -> None:
    """The error carries the whole Dockerfile in one trailer; of 300 KB and more it is still the real error."""
    line = filler.format("x" * 60)
    text = f"{BASE}{line * (300_000 // len(line) + 1)}{end}"
    assert len(text) > 300_000
    path = context(text)

    result = ready.failed_build(path)

    assert words in result["msg"]
    number = text.count("\n")
    assert result["excerpt"][0] == f"Dockerfile:{number}"
    assert f"{number} | >>> {end.strip()}" in result["msg"]
    assert len(result["msg"]) < 10_000


def test_sessions_leave_nothing(ready: Bench, context: Callable[..., Path]) -> None:
    """After a build neither files nor processes are left, in the builder and here."""
    temporary = ready.directory / "tmp"
    temporary.mkdir()
    ready.environment["TMPDIR"] = str(temporary)
    before = _tunnels(ready)
    for prefix in ((), OWN_PIDS):
        ready.prefix = prefix
        ready.build(context("FROM scratch\nCOPY file /\n", file=str(prefix)), name=ready.image())

    assert list(temporary.iterdir()) == []
    ready.wait("the tunnel's processes are gone", lambda: _tunnels(ready) <= before)


def test_silence(ready: Bench, context: Callable[..., Path]) -> None:
    """A long step without a word ends no session and no connection on any way: the image comes over it afterwards."""
    builds = []
    for way, builder, prefix in (
        ("direct", ready.name, ()),
        ("exec", ready.name, OWN_PIDS),
        ("the engine's own", "default", ()),
    ):
        ready.prefix = prefix
        steps = f"RUN : {uuid.uuid4()}; sleep {SILENCE}\nRUN echo after > /after\n"
        path, name = context(BASE + steps, directory=way.replace("'", "")), ready.image()
        # A short timeout of the API must not cut off a stream that is only quiet.
        build = ready.begin("buildx_build", builder=builder, path=str(path), name=name, timeout=5)
        builds.append((way, name, build))

    for way, name, build in builds:
        result = ready.finish(build)

        assert not result.get("failed"), (way, result)
        assert ready.docker("run", "--rm", name, "cat", "/after") == "after\n"


def _tunnels(bench: Bench) -> int:
    return bench.docker("top", bench.container, "-eo", "pid,args").count("dial-stdio")
