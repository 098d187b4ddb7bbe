# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/client.md: the example is run as it stands there, against a real daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "client.md"
SOCKET, OUT = "/run/buildkit/buildkitd.sock", "/tmp/out"  # noqa: S108 - what stands in the document


def test_ten_lines(ready: Bench, context: Callable[..., Path], tmp_path: Path) -> None:
    """Only the two paths are others: the daemon's socket is in a container, the result goes to the test's directory."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert SOCKET in example
    assert OUT in example
    root = f"/proc/{ready.inspect()['State']['Pid']}/root"
    program = example.replace(SOCKET, root + SOCKET).replace(OUT, str(tmp_path / "out"))
    path = context("FROM scratch\nCOPY word /deep/er/word\n", word="told")

    said = [run(program, path), run(program, path)]

    assert (tmp_path / "out/deep/er/word").read_text() == "told"
    assert "#1 [internal] load build definition from Dockerfile" in said[0]
    assert said[0].endswith("files: 1 changed: True\n")
    assert said[1].endswith("files: 1 changed: False\n")


def run(program: str, directory: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.environ["BUILDX_TEST_COLLECTIONS"]}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
