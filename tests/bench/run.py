# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the modules side by side with the reference CLI: `make bench`.

Each round of a row runs the CLI, the module on its direct way, the module through an exec, and a module that does
nothing, one after the other on the same builder; every second round backwards. The lab is raised first (tests/lab).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[0] = str(CHECKOUT)  # before anything installed that is called `tests` as well

from tests.bench.environment import environment, facts  # noqa: E402
from tests.bench.hands import WAYS, Build, Hands  # noqa: E402
from tests.bench.processes import MeasuringError, Sample  # noqa: E402
from tests.bench.report import Figure, insert, report  # noqa: E402
from tests.bench.works import QUICK, Sizes, Work, works  # noqa: E402
from tests.lab.errors import LabError  # noqa: E402
from tests.lab.places import Places  # noqa: E402

ROUNDS = 5
PAGE = CHECKOUT / "docs" / "performance.md"


def measure(work: Work, hands: Hands, rounds: int) -> list[Figure]:
    """The lines of one row. A side that fails, or does other work, leaves the row without figures."""
    samples: dict[str, list[Sample]] = {}

    def timed(side: str, run: Callable[[Build], Sample]) -> None:
        build = work.before(hands)
        sample = run(build)
        work.check(hands, sample)
        samples.setdefault(side, []).append(sample)
        say(f"{work.name}: {side} {sample.seconds:.2f} s, of CPU {sample.cpu:.2f} s, {sample.peak >> 20} MiB")

    sides: list[Callable[[], None]] = [lambda: timed("cli", hands.cli)]
    for way in WAYS:
        sides.append(lambda way=way: timed(way, lambda build: hands.module(build, way)))  # type: ignore[misc]
        sides.append(lambda way=way: samples.setdefault(f"empty {way}", []).append(hands.empty(way)))  # type: ignore[misc]
    note = "" if not work.option or hands.has_option(work.option) else f"not there yet: `{work.option}`"
    try:
        if not note:
            work.prepare(hands)
            for number in range(rounds):
                for side in reversed(sides) if number % 2 else sides:
                    side()
            work.clean(hands)
    except MeasuringError as exc:
        say(f"{work.name}: {exc}")
        note = "failed"
    return [
        Figure(work.title, way, goal, note=note)
        if note
        else Figure(work.title, way, goal, samples["cli"], samples[way], samples[f"empty {way}"])
        for way, goal in zip(WAYS, work.goals)
    ]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    names = [work.name for work in works(Sizes())]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"runs of each side, {ROUNDS} if not given")
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"some of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it works and no more")
    parser.add_argument("--output", type=Path, help=f"the page to write, {PAGE.name} if everything is measured")
    found = parser.parse_args()
    found.rounds = found.rounds or (1 if found.quick else ROUNDS)
    if found.output is None and not found.quick and not found.only:
        found.output = PAGE
    return found


def main() -> int:
    wanted = arguments()
    state = Places.of_this_checkout().state
    state.mkdir(exist_ok=True)
    # Below the checkout: a directory for temporary files may lie in memory.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=state) as directory:
        scratch = Path(directory)
        hands = Hands(environment(scratch), scratch, f"bench-{uuid.uuid4().hex[:8]}")
        with hands.running():
            hands.check_ways()
            chosen = [
                row for row in works(QUICK if wanted.quick else Sizes()) if not wanted.only or row.name in wanted.only
            ]
            figures = [figure for row in chosen for figure in measure(row, hands, wanted.rounds)]
            text = report(facts(hands), wanted.rounds, figures)
    print(text)
    if wanted.output:
        insert(wanted.output, text)
    return 1 if any(figure.note == "failed" for figure in figures) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, MeasuringError) as exc:
        sys.exit(f"tests/bench/run.py: {exc}")
