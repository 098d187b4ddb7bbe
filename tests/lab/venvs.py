# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments: one for each set of versions that the project is run with.

What is installed stands in `tests/requirements/NAME.txt`, pinned; a changed file makes a new
environment beside the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import apt
from .cache import Cache
from .errors import NotAvailableError
from .interpreters import Interpreter, Version, find
from .places import Places
from .progress import Progress, Step


@dataclass(frozen=True)
class Environment:
    """A range of interpreters, and which end of it is wanted."""

    oldest: Version
    newest: Version
    prefer_newest: bool
    purpose: str


ENVIRONMENTS = {
    "dev": Environment((3, 11), (3, 14), True, "the newest ansible-core that this machine's best Python allows"),
    "oldest": Environment((3, 11), (3, 13), False, "the oldest supported ansible-core"),
    "lint": Environment((3, 11), (3, 14), True, "ansible-lint and the antsibull tools"),
    "target39": Environment((3, 9), (3, 9), True, "a target with the oldest supported Python"),
    "floor": Environment((3, 9), (3, 11), False, "a target with the oldest supported libraries"),
}


def environment(name: str, places: Places, progress: Progress) -> Path:
    """The directory of an environment, made when missing."""
    with progress.step(f"environment {name}") as step:
        interpreter = _interpreter(name)
        if not interpreter.makes_venvs and not _entry(name, places, interpreter).exists():
            # Debian keeps the pip that goes into venvs in a package of its own.
            apt.install([f"python3.{interpreter.version[1]}-venv"], step)
        cache = Cache(places.cache)
        requirements = places.requirements / f"{name}.txt"
        return cache.obtain_in_place(
            "venvs", name, _ingredients(name, places, interpreter), step,
            lambda directory: _install(directory, interpreter, requirements, step),
        )  # fmt: skip


def environment_path(name: str, places: Places) -> Path:
    """Where an environment is or would be."""
    return _entry(name, places, _interpreter(name))


def _entry(name: str, places: Places, interpreter: Interpreter) -> Path:
    return Cache(places.cache).entry("venvs", name, _ingredients(name, places, interpreter))


def _interpreter(name: str) -> Interpreter:
    wanted = ENVIRONMENTS[name]
    interpreter = find(wanted.oldest, wanted.newest, prefer_newest=wanted.prefer_newest)
    if interpreter is None:
        low, high = (".".join(map(str, version)) for version in (wanted.oldest, wanted.newest))
        raise NotAvailableError(f"no Python from {low} to {high} on this machine for the environment {name}")
    return interpreter


def _ingredients(name: str, places: Places, interpreter: Interpreter) -> dict[str, object]:
    return {
        "python": str(interpreter.executable),
        "requirements": (places.requirements / f"{name}.txt").read_text(),
        "recipe": 1,
    }


def _install(directory: Path, interpreter: Interpreter, requirements: Path, step: Step) -> None:
    step.say(f"installing {requirements.name} with Python {'.'.join(map(str, interpreter.version))}")
    step.run([str(interpreter.executable), "-m", "venv", str(directory)])
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    step.run([*pip, "install", "--quiet", "--only-binary=:all:", "--requirement", str(requirements)])
