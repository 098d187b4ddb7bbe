# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `make lab` does: make what is missing side by side, then start what does not answer.

environment ─────────────────────────────────────────┐
engine root ──┬─ base image ──────────┬── engine, registry, push, proof
BuildKit root ┴─ buildkitd, buildctl ─┘              │
docker, buildx (the reference CLI) ──────────────────┘
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from . import apt, reference_cli
from .buildkit import BUILDKIT_VERSION, DEFAULT_TAG, base_image, buildkit_image
from .cache import Cache, exclusive
from .instance import Instance
from .layers import Image
from .places import Places
from .progress import Progress
from .roots import engine_root
from .venvs import environment


def bring_up(instance: Instance, progress: Progress) -> None:
    """Everything a shell or a test needs; what is there and answers is left as it is."""
    places = instance.places
    cache = Cache(places.cache)
    with progress.step("programs of this machine") as step:
        apt.require_program("mmdebstrap", "mmdebstrap", step)  # once, before threads would all want it
    with progress.heartbeat(), ThreadPoolExecutor(max_workers=8) as pool:
        root = pool.submit(_engine_root, cache, progress)
        buildkit = pool.submit(buildkit_image, BUILDKIT_VERSION, DEFAULT_TAG, cache, progress)
        others: list[Future[object]] = [
            pool.submit(reference_cli.compile_both, cache, progress),
            pool.submit(environment, "dev", places, progress),
        ]
        base = pool.submit(lambda: base_image(root.result(), cache, progress))
        started = pool.submit(lambda: _start(instance, root.result(), progress))
        started.result()
        _serve(instance, [buildkit.result(), base.result()], progress)
        for other in others:
            other.result()
    reference_cli.link(places)


def serve_buildkit(instance: Instance, version: str, progress: Progress) -> None:
    """Another version of BuildKit, in the registry as `moby/buildkit:VERSION`."""
    image = buildkit_image(version, version, Cache(instance.places.cache), progress)
    with changing(instance.places), progress.step("registry") as step:
        instance.fill_registry([image], step)


def changing(places: Places) -> AbstractContextManager[None]:
    """Two commands that change this checkout's lab go one after the other."""
    return exclusive(places.state / "lock")


def _engine_root(cache: Cache, progress: Progress) -> Path:
    with progress.step("engine root") as step:
        return engine_root(cache, step)


def _start(instance: Instance, root: Path, progress: Progress) -> None:
    with progress.step(f"engine {instance.name}") as step:
        instance.start(root, step)


def _serve(instance: Instance, images: list[Image], progress: Progress) -> None:
    with progress.step(f"registry {instance.name}") as step:
        instance.fill_registry(images, step)
    with progress.step(f"proof {instance.name}") as step:
        instance.prove(step)
