# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the figures are made of: steps that were run, medians, verdicts, and the place for them in a page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench import processes
from tests.bench.hands import executed_steps
from tests.bench.processes import MeasuringError, Sample
from tests.bench.report import BEGIN, END, Figure, insert

PLAIN = """\
#0 building with "b" instance using docker-container driver
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#5 [1/2] COPY a /
#5 CACHED
#6 [side 2/2] RUN echo "#5 CACHED"
#6 0.123 #5 CACHED
#6 DONE 0.2s
#7 [stage-1 1/1] COPY b /
#7 CACHED
"""


def samples(*seconds: float, peak: int = 50_000_000) -> list[Sample]:
    return [Sample(value, 0, peak, Path()) for value in seconds]


def test_steps_that_were_run() -> None:
    assert executed_steps(PLAIN.splitlines()) == {'[side 2/2] RUN echo "#5 CACHED"'}


@pytest.mark.parametrize(
    ("goal", "peak", "verdict"),
    [
        (0.5, 100_000_000, "met"),
        (0.49, 1, "**missed**"),
        (0.5, 100_000_001, "**memory missed**"),
        (None, 1, "-"),
        (None, 100_000_001, "**memory missed**"),
    ],
)
def test_verdict(goal: float | None, peak: int, verdict: str) -> None:
    """Medians count, and the empty module is taken off."""
    figure = Figure("work", "direct", goal, samples(4, 2, 9), samples(9, 3, 2, peak=peak), samples(1, 0, 5))

    assert figure.cells()[2:6] == ["4.00", "2.00", "1.00", "0.50"]
    assert figure.verdict() == verdict


def test_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"

    insert(page, "first\n")
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("Nothing yet.", "By hand."), encoding="utf-8")
    insert(page, "second\n")

    assert f"{BEGIN}\nfirst\n{END}" in text
    assert page.read_text(encoding="utf-8") == text.replace("first", "second").replace("Nothing yet.", "By hand.")


def test_page_without_a_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Something else\n", encoding="utf-8")

    with pytest.raises(ValueError, match="no place"):
        insert(page, "text\n")

    assert page.read_text(encoding="utf-8") == "# Something else\n"


def test_process(tmp_path: Path) -> None:
    """A process' memory and output are those of it and its children; one that fails is no figure."""
    child = "import sys; print(sys.stdin.read()); block = b'x' * (64 << 20)"
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    command = [sys.executable, "-c", parent]

    sample = processes.run([*command, child], {}, "given", tmp_path / "out")
    with pytest.raises(MeasuringError, match="ended with 3:\nwhy"):
        processes.run([*command, "import sys; sys.exit((print('why'), 3)[1])"], {}, "", tmp_path / "out")

    assert sample.peak > 64 << 20
    assert sample.seconds > 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "why\n"
