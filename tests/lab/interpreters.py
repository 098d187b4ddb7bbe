# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Python interpreters of this machine, found by running them.

A name on the PATH proves nothing: shims of version managers answer "command not found", and Debian's
interpreter may come without the module that venvs are made with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, int]

_QUESTION = """
import importlib.util, json, sys
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "final": sys.version_info.releaselevel == "final",
    "executable": getattr(sys, "_base_executable", sys.executable),
    "venvs": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
}))
"""
_NAMES = ("python3", *(f"python3.{minor}" for minor in range(8, 16)))


@dataclass(frozen=True)
class Interpreter:
    """One that answered; `executable` is the real one, also when a venv or a shim was asked."""

    executable: Path
    version: Version
    makes_venvs: bool


def find(oldest: Version, newest: Version, *, prefer_newest: bool) -> Interpreter | None:
    """The best interpreter of a range: one that can make venvs goes before one that cannot."""
    fitting = {found.executable: found for found in _all() if oldest <= found.version <= newest}
    if not fitting:
        return None

    def rank(found: Interpreter) -> tuple[bool, int]:
        return found.makes_venvs, found.version[1] if prefer_newest else -found.version[1]

    return max(fitting.values(), key=rank)


def _all() -> Iterator[Interpreter]:
    """Asked side by side: a shim takes half a second to say that it has nothing behind it."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        yield from (found for found in pool.map(_ask, dict.fromkeys(_candidates())) if found)


def _candidates() -> Iterator[str]:
    for name in _NAMES:
        if found := shutil.which(name):
            yield found
    yield from (str(path) for path in sorted(Path("/usr/bin").glob("python3*")) if path.name in _NAMES)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(path) for path in sorted(pyenv.glob("versions/*/bin/python3")))


def _ask(candidate: str) -> Interpreter | None:
    try:
        done = subprocess.run([candidate, "-I", "-c", _QUESTION], capture_output=True, timeout=20, check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if not answer or not answer["final"]:
        return None
    major, minor = answer["version"]
    return Interpreter(Path(answer["executable"]).resolve(), (major, minor), answer["venvs"])
