# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files for builds, on a real file system: random, so that nothing is smaller than it looks."""

from __future__ import annotations

import os
from pathlib import Path

FILE_BYTES = 2048
FILES_IN_DIRECTORY = 100
CHUNK = 1 << 20


def small_files(root: Path, count: int) -> Path:
    """`count` files of 2 KiB, a hundred in each directory. A tree that is there is taken as it is."""
    if not root.exists():
        for number in range(count):
            directory = root / f"d{number // FILES_IN_DIRECTORY:04}"
            if number % FILES_IN_DIRECTORY == 0:
                directory.mkdir(parents=True)
            (directory / f"f{number:06}").write_bytes(os.urandom(FILE_BYTES))
    return root


def large_file(file: Path, size: int) -> None:
    """A file of `size` bytes without holes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        for done in range(0, size, CHUNK):
            stream.write(os.urandom(min(CHUNK, size - done)))


def count_files(root: Path) -> tuple[int, int]:
    """How many files a tree has, and their bytes."""
    found = [entry for entry in root.rglob("*") if entry.is_file()]
    return len(found), sum(entry.stat().st_size for entry in found)
