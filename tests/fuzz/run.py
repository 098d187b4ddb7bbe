# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many random inputs: `make fuzz`.

BUILDX_FUZZ_EXAMPLES (1000) contexts are built by both clients, twice each, and every property of the unit tests is
tried with as many examples. BUILDX_FUZZ_SEED begins with that context in place of new ones.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[0] = str(CHECKOUT)

from tests.run import CORES, UNITS, Count, Tests  # noqa: E402

EXAMPLES = 1000
AT_ONCE = 200
"""Contexts of one run of pytest, whose time is limited."""


def main() -> int:
    examples = int(os.environ.get("BUILDX_FUZZ_EXAMPLES") or EXAMPLES)
    first = int(os.environ.get("BUILDX_FUZZ_SEED") or time.time_ns() // 10**9 % 10**8 * 100)
    total = Count()
    with tempfile.TemporaryDirectory(prefix="buildx-fuzz-") as scratch:
        tests = Tests(Path(scratch))
        print(f"=== properties, {examples} examples each", flush=True)
        more = {"BUILDX_FUZZ_EXAMPLES": str(examples)}
        total.add(tests.pytest("fuzz-units", tests.python("dev"), "-n", CORES, UNITS, env=more))
        for seed in range(first, first + examples, AT_ONCE):
            part = min(AT_ONCE, first + examples - seed)
            print(f"=== contexts from seed {seed}, {part} of them", flush=True)
            env = {
                **tests.lab_variables("dev"),
                "BUILDX_FUZZ_SEED": str(seed),
                "BUILDX_FUZZ_EXAMPLES": str(part),
            }
            file = "tests/integration/test_context_fuzz.py"
            total.add(tests.pytest("fuzz-contexts", tests.python("dev"), "-n", CORES, file, env=env))
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
