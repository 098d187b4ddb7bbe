# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that measures works; how fast anything is, is no test."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench

PROGRAM = Path(__file__).resolve().parents[1] / "bench" / "run.py"


def test_figures_of_a_row(bench: Bench) -> None:
    """A row is measured on both ways next to the CLI and written to a page; the builder is removed."""
    page = bench.directory / "performance.md"

    arguments = ("--quick", "--only", "load-changed", "--output", str(page))
    printed = bench.run(sys.executable, str(PROGRAM), *arguments).stdout

    assert printed.strip() in page.read_text(encoding="utf-8")
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")][2:]
    assert [line[1] for line in lines] == ["direct", "exec"]
    for _title, _way, *numbers, _goal, _verdict, peaks in lines:
        assert all(re.fullmatch(r"-?\d+\.\d\d", number) for number in numbers), lines
        assert re.fullmatch(r"\d+ / \d+ \|", peaks)
    assert "bench-" not in bench.docker("ps", "-a", "--format", "{{.Names}}")
