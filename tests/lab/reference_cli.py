# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The CLI to compare with, `docker` and its buildx; used by tests and bench only, never by the modules."""

from __future__ import annotations

from pathlib import Path

from .cache import Cache
from .gobuild import compile_program, docker_buildx, docker_cli, program_path
from .places import Places
from .progress import Progress

BUILDX = docker_buildx("v0.38.2")
DOCKER = docker_cli("29.8.2")


def compile_both(cache: Cache, progress: Progress) -> None:
    """One after the other: they share most of their packages."""
    for program in (BUILDX, DOCKER):
        with progress.step(f"{program.command} {program.version}") as step:
            compile_program(program, cache, step)


def link(places: Places) -> None:
    """Into the state: `docker` for the PATH, buildx as its plugin in a configuration of the lab's own."""
    cache = Cache(places.cache)
    _link(places.programs / "docker", program_path(DOCKER, cache))
    _link(places.docker_config / "cli-plugins" / "docker-buildx", program_path(BUILDX, cache))
    configuration = places.docker_config / "config.json"
    if not configuration.exists():
        configuration.write_text("{}\n")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path.readlink() == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)
