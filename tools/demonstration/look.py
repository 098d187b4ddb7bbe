# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking before anything is made: which engine there is, whether it may be used, and what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tests.lab import apt
from tests.lab.buildkit import BUILDKIT_VERSION
from tests.lab.cache import Cache
from tests.lab.errors import LabError
from tests.lab.gobuild import buildkit_program, program_path
from tests.lab.interpreters import find
from tests.lab.places import Places
from tests.lab.venvs import ENVIRONMENTS

from . import names
from .engine import Engine, EngineError

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_PYTHON = (3, 11)
OLDEST_GO = (1, 26)
# Compilers' caches, a Debian root, an environment: what an empty machine needs, with some air.
COLD_BYTES = 4 << 30
# Every Debian has them, but a container may not, and after a plain `su` the PATH lacks /usr/sbin.
_PROGRAMS = ("apt-get", "apt-config", "dpkg", "mount", "nsenter", "pivot_root", "setsid", "unshare")

NOT_PRIVILEGED = "engine: it cannot run a privileged container; the demo starts one of its own"

Say = Callable[[str], None]


class RefusalError(Exception):
    """The demo does not start; the message says why and what to do."""


@dataclass(frozen=True)
class Found:
    """engine: one that can run builders, None: one has to be made. has_image: whether it has BuildKit's image."""

    engine: Engine | None
    has_image: bool = False

    @property
    def needs_nothing_made(self) -> bool:
        return self.engine is not None and self.has_image


def look(say: Say, undo: ExitStack) -> Found:
    """Find the engine. What is pulled to try it is removed by `undo`. Raises RefusalError."""
    host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    engine = Engine(host)
    try:
        if not engine.is_spoken:
            raise EngineError("the demo speaks to unix:// and, without TLS, to tcp:// only")
        version = engine.version()
    except EngineError as error:
        say(f"engine: {host} is not used ({error}); the demo starts one of its own")
        return Found(None)
    say(f"engine: {host} answers, version {version}")
    refuse_taken_names(engine)
    if not pull(engine, names.BUILDKIT_IMAGE, say, undo):
        return Found(engine)
    if not runs_privileged(engine):
        say(NOT_PRIVILEGED)
        return Found(None)
    return Found(engine, has_image=True)


def refuse_taken_names(engine: Engine) -> None:
    """Raise RefusalError when something on the engine has a name that the demo would use, and in the end remove."""
    taken = [
        *(f"container {name}" for name in names.containers() if engine.has_container(name)),
        *(f"volume {name}" for name in names.volumes() if engine.has_volume(name)),
        *(f"image {name}" for name in names.images() if engine.has_image(name)),
    ]
    if taken:
        raise RefusalError(
            f"the engine {engine.host} already has: {', '.join(taken)}\n"
            "The demo uses these names and removes them in the end, so it does not start. Remove them if nobody needs\n"
            "them, or let the demo start an engine of its own: DOCKER_HOST=unix:///nowhere make demo"
        )


def runs_privileged(engine: Engine) -> bool:
    """Whether a container runs as a builder's does; it prints BuildKit's version and ends."""
    try:
        return engine.run_privileged(names.BUILDKIT_IMAGE, ["--version"]) == 0
    except EngineError:
        return False


def pull(engine: Engine, image: str, say: Say, undo: ExitStack) -> bool:
    """Whether the engine has an image, now or after a pull, which `undo` takes back."""
    if engine.has_image(image):
        return True
    say(f"pulling {image}")
    undo.callback(remove, engine.remove_image, image, say)
    try:
        engine.pull(image)
    except EngineError as error:
        say(f"{image} cannot be pulled: {error}")
        return False
    return True


def remove(how: Callable[[str], None], name: str, say: Say) -> None:
    """Remove something in the end, when a failure is worth a word and no more."""
    try:
        how(name)
    except EngineError as error:
        say(f"{name} is left behind: {error}")


def missing(found: Found, places: Places) -> list[str]:
    """Everything that this machine lacks for the demo, a line each; [] when it can begin."""
    lacks = [*_python()]
    if not found.needs_nothing_made:
        lacks += [*_root_and_debian(), *_go(places), *_space(places)]
    return lacks


def _python() -> Iterator[str]:
    if sys.version_info < OLDEST_PYTHON:
        yield (
            f"Python {_dotted(OLDEST_PYTHON)} or newer as python3, which is {_dotted(sys.version_info[:2])}; "
            "another one is named with make demo PYTHON=python3.13"
        )
    wanted = ENVIRONMENTS["dev"]
    found = find(wanted.oldest, wanted.newest, prefer_newest=wanted.prefer_newest)
    if found is None:
        yield f"a Python from {_dotted(wanted.oldest)} to {_dotted(wanted.newest)} for the virtual environment"
    elif not found.makes_venvs and (os.geteuid() != 0 or not shutil.which("apt-get")):
        yield f"the module venv of {found.executable}; on Debian the package python{_dotted(found.version)}-venv"


def _root_and_debian() -> Iterator[str]:
    if os.geteuid() != 0:
        yield "root, to make and run an engine or an image (an engine that already has or pulls the image needs none)"
    lacks = [program for program in _PROGRAMS if not shutil.which(program)]
    if lacks:
        yield f"on the PATH {', '.join(lacks)}: Debian 12 has them, in /usr/bin and /usr/sbin"
    try:
        apt.debian_source()
    except (LabError, OSError) as error:
        yield f"a Debian mirror: {error}"


def _go(places: Places) -> Iterator[str]:
    cache = Cache(places.cache)
    programs = [buildkit_program(name, BUILDKIT_VERSION) for name in ("buildkitd", "buildctl")]
    if all(program_path(program, cache).exists() for program in programs):
        return
    wanted = f"Go {_dotted(OLDEST_GO)} or newer, to compile BuildKit"
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if not go:
        yield f"{wanted}: there is none on the PATH or in /usr/local/go"
        return
    answer = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"go(\d+)\.(\d+)", answer)
    if not version or (int(version[1]), int(version[2])) < OLDEST_GO:
        yield f"{wanted}: {go} says {answer.strip() or 'nothing'}"


def _space(places: Places) -> Iterator[str]:
    """Only while the cache is empty; afterwards little is added."""
    if (places.cache / "roots").exists() and (places.cache / "go").exists():
        return
    directory = places.cache
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < COLD_BYTES:
        yield f"{COLD_BYTES >> 30} GiB of free space below {directory}; there are {free / (1 << 30):.1f}"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
