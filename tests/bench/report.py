# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table, and the page that holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Optional

from .hands import DIRECT
from .processes import Sample

NONE = "-"
MOST_MEMORY = 100_000_000
BEGIN, END = "<!-- figures: begin (written by make bench) -->", "<!-- figures: end -->"

PAGE = f"""# Performance

Builds with `buildx_build` next to `docker buildx build`, on one builder, in one run, by turns. `make bench` measures it
again; `python3 tests/bench/run.py --help` says how to measure a part.

{BEGIN}
{END}

## Misses explained

Nothing yet.
"""

EXPLANATION = """\
*CLI* and *module* are medians of the seconds from the start of a process to its end, the module's without the *empty
module*: a process of the same kind that does nothing, which is what Ansible itself costs. *Ratio* is the module's time
divided by the CLI's. The module goes *direct* to the daemon's socket, or through an *exec* as from another pid
namespace; the CLI always takes an exec. Peak memory is that of the largest process in any run; its goal is at most
100 MB. Every run is checked to have done the work of its row.
"""


@dataclass(frozen=True)
class Figure:
    """One line of the table. note: why there are no figures."""

    title: str
    way: str
    goal: Optional[float]
    cli: Sequence[Sample] = ()
    module: Sequence[Sample] = ()
    empty: Sequence[Sample] = ()
    note: str = ""

    @property
    def seconds(self) -> float:
        return _seconds(self.module) - _seconds(self.empty)

    @property
    def ratio(self) -> float:
        return self.seconds / _seconds(self.cli)

    @property
    def peak(self) -> int:
        return _peak(self.module)

    def verdict(self) -> str:
        """Whether the goals are met."""
        if self.goal is not None and self.ratio > self.goal:
            return "**missed**"
        if self.peak > MOST_MEMORY:
            return "**memory missed**"
        return "met" if self.goal is not None else NONE

    def cells(self) -> list[str]:
        name = self.title if self.way == DIRECT else ""
        goal = f"≤ {self.goal:g}" if self.goal is not None else NONE
        if self.note:
            return [name, self.way, "", "", "", "", goal, self.note, ""]
        times = [f"{seconds:.2f}" for seconds in (_seconds(self.cli), self.seconds, _seconds(self.empty), self.ratio)]
        return [
            name,
            self.way,
            *times,
            goal,
            self.verdict(),
            f"{_megabytes(self.peak)} / {_megabytes(_peak(self.cli))}",
        ]


HEADER = ["Work", "Way", "CLI s", "Module s", "Empty module s", "Ratio", "Goal", "", "Peak MB, module / CLI"]


def report(facts: Mapping[str, str], rounds: int, figures: Sequence[Figure]) -> str:
    """The part of the page that is measured, as Markdown."""
    known = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("date", "machine"))
    rows = [HEADER, ["---"] * len(HEADER), *(figure.cells() for figure in figures)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    runs = f"{rounds} runs of each" if rounds > 1 else "one run of each, which says little"
    return f"{facts['date']}, {runs}. {facts['machine']}; {known}.\n\n{table}\n\n{EXPLANATION}"


def insert(page: Path, text: str) -> None:
    """Put a report in its place in a page; what else it says stays. A page that is not there is begun."""
    old = page.read_text(encoding="utf-8") if page.exists() else PAGE
    before, begin, rest = old.partition(BEGIN)
    _measured, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: {BEGIN} … {END}")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def _seconds(samples: Sequence[Sample]) -> float:
    return median(sample.seconds for sample in samples)


def _peak(samples: Sequence[Sample]) -> int:
    return max(sample.peak for sample in samples)


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:.0f}"
