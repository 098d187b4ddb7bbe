# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log of a build, next to what the real CLI prints of the same build with `--progress=plain`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench

DOCKERFILE = """FROM scratch as base
ADD root.tar /
RUN echo {word}; printf 'no line feed'
FROM base AS side
RUN echo {word} at the side > /side
FROM base
COPY --from=side /side /side
COPY file /file
RUN for i in 1 2 3; do echo line $i >&2; done
CMD cat /side
"""


def said(lines: Iterable[str]) -> dict[str, set[str]]:
    """Name of a step → what was said of it, without what depends on the moment: numbers, seconds, halves of work."""
    names: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for line in lines:
        match = re.match(r"#(\d+) (.*)$", line)
        if not match or match[1] == "0" or match[2] == "...":
            continue
        number, text = match.groups()
        if number not in names:
            names[number] = text
            found[text] = set()
        elif text != names[number]:
            text = re.sub(r"^\d+\.\d+ ", "SECONDS ", text)
            text = re.sub(r" \d+\.\d+s( done)?$", r"\1", text)
            text = re.sub(r"^DONE .*", "DONE", text)
            if text.startswith(("DONE", "CACHED", "ERROR", "WARN", "SECONDS")) or text.endswith(" done"):
                found[names[number]].add(text)
    return found


def test_plain_form(ready: Bench, context: Callable[..., Path]) -> None:
    """Steps, their output, warnings and ends are those of the CLI, of a build that runs and of one from the cache."""
    word = uuid.uuid4().hex
    path, name = context(DOCKERFILE.format(word=word), file=word), ready.image()
    command = ("build", "--builder", ready.name, "--progress=plain", "--load", "-t", name, str(path))

    ran = said(ready.build(path, name=name, nocache=True)["log_tail"])
    cli_ran = said(ready.buildx(*command, "--no-cache").splitlines())
    cached = said(ready.build(path, name=name)["log_tail"])
    cli_cached = said(ready.buildx(*command).splitlines())

    assert "SECONDS no line feed" in ran[f"[base 2/2] RUN echo {word}; printf 'no line feed'"]
    # An image that the engine has is not sent again; the CLI does.
    assert "DONE" in ran.pop("importing to docker")
    assert cached.pop("importing to docker") == {"CACHED"}
    del cli_ran["importing to docker"], cli_cached["importing to docker"]
    for ours, theirs in ((ran, cli_ran), (cached, cli_cached)):
        assert set(ours) == set(theirs)
        for step in theirs:
            missed, more = (
                comparable(theirs[step]) - comparable(ours[step]),
                comparable(ours[step]) - comparable(theirs[step]),
            )
            assert not missed, step
            # The CLI loses a warning that comes after the end of its step.
            assert all(text.startswith("WARN: ") for text in more), (step, more)
    warnings = {text.split(":")[1] for texts in ran.values() for text in texts if text.startswith("WARN: ")}
    assert warnings == (set() if ready.older_than(15) else {" FromAsCasing", " JSONArgsRecommended"})


def comparable(texts: set[str]) -> set[str]:
    """Without the digests of another run, and without the layers' progress in the engine, which is not shown here."""
    shown = {text for text in texts if not text.startswith("loading layer ")}
    return {re.sub(r"[\d.]+k?MB", "SIZE", re.sub("sha256:.*", "", text)) for text in shown}


def test_boot_is_part_of_the_log(bench: Bench, context: Callable[..., Path]) -> None:
    """The boot of the builder is the first step, told as the CLI tells it."""
    path = context("FROM scratch\nCOPY file /\n", file="x")
    bench.buildx("create", "--name", f"{bench.name}-cli")
    bench.builder(state="present")

    result = bench.build(path)

    theirs = bench.buildx("build", "--builder", f"{bench.name}-cli", "--progress=plain", str(path))
    theirs = theirs.replace(f"{bench.name}-cli", bench.name)
    step = "[internal] booting buildkit"
    assert result["log_tail"][0] == f"#1 {step}"
    booted, cli = said(result["log_tail"])[step], said(theirs.splitlines())[step]
    # The CLI counts the start of a new container to its creation.
    assert booted - cli == {f"starting container {bench.container} done"}
    assert cli <= booted
    assert "create" in [item["step"] for item in result["steps"]]


def test_long_log_keeps_its_end(ready: Bench, context: Callable[..., Path]) -> None:
    """Of much output the end is kept, without the colours and the overwritten states of progress bars."""
    noise = "printf 'progress 1\\rprogress 2\\n\\033[31mred\\033[0m\\n'"
    path = context(f"FROM scratch\nADD root.tar /\nRUN seq 1 20000; {noise}; echo {uuid.uuid4()} the last\n")

    result = ready.build(path)

    assert len(result["log_tail"]) <= 400
    assert sum(map(len, result["log_tail"])) < 64_000
    for end in (" the last", " 20000", " progress 2", " red"):
        assert any(line.endswith(end) for line in result["log_tail"]), end
