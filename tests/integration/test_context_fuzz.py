# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random contexts, ignore files and Dockerfiles: the same image as the real CLI makes of them on another builder.

`make test` takes the same few each time, `make fuzz` new ones, BUILDX_FUZZ_EXAMPLES of them. A difference is
told with its seed: BUILDX_FUZZ_SEED=<seed> BUILDX_FUZZ_EXAMPLES=1 builds that case alone.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.builds import Ours, Result, Theirs, listing, only_lost
from tests.fuzz.cases import Case

if TYPE_CHECKING:
    from conftest import Bench

FEW = 10
PART = 25
"""Cases after which builders are made anew, so that their state stays small."""
EXAMPLES = int(os.environ.get("BUILDX_FUZZ_EXAMPLES") or FEW)
FIRST = int(os.environ.get("BUILDX_FUZZ_SEED") or 0)
PARTS = [range(first, min(first + PART, FIRST + EXAMPLES)) for first in range(FIRST, FIRST + EXAMPLES, PART)]


@pytest.fixture
def ours(bench: Bench) -> Iterator[Ours]:
    bench.builder()
    made = Ours(bench.inspect())
    yield made
    made.close()


@pytest.fixture
def theirs(bench: Bench) -> Theirs:
    name = f"{bench.name}cli"
    bench.buildx("create", "--name", name, "--driver", "docker-container", "--bootstrap")
    return Theirs(name, bench.environment)


@pytest.mark.parametrize("seeds", PARTS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_the_same_image_as_the_cli(bench: Bench, ours: Ours, theirs: Theirs, tmp_path: Path, seeds: range) -> None:
    """Each case twice: as it was made, and after changes that go to daemons which know the first state."""
    made = both_failed = 0
    differences = []
    for seed in seeds:
        directory = tmp_path / f"{seed}-{uuid.uuid4().hex[:8]}"
        case = Case(seed, directory)
        for turn in ("new", "changed"):
            mine, other = ours.build(case.inputs), theirs.build(case.inputs)
            if mine.image != other.image:
                told = explained(bench, case, mine, other)
                differences += [f"seed {seed}, {turn}\n{told}"] if told else []
            elif mine.error:
                both_failed += 1
            else:
                made += 1
            case.change()
        subprocess.run(["rm", "-rf", str(directory)], check=True)  # quicker than Python, and takes any name

    assert not differences, "\n\n".join(differences)
    assert made > both_failed or len(seeds) < FEW, f"{made} images, {both_failed} builds failed on both sides"


def explained(bench: Bench, case: Case, mine: Result, other: Result) -> str:
    """A difference with all that is needed to understand it; "" for what the CLI is known to lose."""
    parts = []
    if mine.image and other.image:
        theirs, ours = (
            listing(container, image, bench.environment)
            for container, image in ((f"buildx_buildkit_{bench.name}cli0", other.image), (bench.container, mine.image))
        )
        if only_lost(theirs, ours):
            return ""
        lines = [list(map(str, entries)) for entries in (theirs, ours)]
        parts += difflib.unified_diff(*lines, "theirs", "ours", lineterm="", n=0)
    else:
        parts += [f"ours: {mine.error or 'an image'}", f"theirs: {other.error or 'an image'}"]
    context = Path(case.inputs.context)
    file = Path(case.inputs.dockerfile or context / "Dockerfile")
    for each in (file, file.with_name(file.name + ".dockerignore"), context / ".dockerignore"):
        if each.is_file():
            parts.append(f"{each.name}: {each.read_bytes()[:2000]!r}")
    return "\n".join(parts)
