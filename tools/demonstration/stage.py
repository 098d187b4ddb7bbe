# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stage: an engine that has or pulls BuildKit's image, and a small root for Dockerfiles."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.lab import apt
from tests.lab.bring_up import changing
from tests.lab.buildkit import BUILDKIT_VERSION, DEFAULT_TAG, base_image, buildkit_image
from tests.lab.cache import Cache, exclusive
from tests.lab.instance import Instance
from tests.lab.layers import Image, digest
from tests.lab.places import Places
from tests.lab.progress import Progress, Step
from tests.lab.roots import engine_root

from . import names
from .engine import Engine
from .look import NOT_PRIVILEGED, Found, pull, remove, runs_privileged

INSTANCE = "demo"


@dataclass(frozen=True)
class Stage:
    """Where the playbook plays. own: the engine was started for it."""

    engine: Engine
    root_archive: Path
    own: bool


@dataclass(frozen=True)
class Hands:
    """What every part works with. pool: for what can be made meanwhile."""

    places: Places
    progress: Progress
    undo: ExitStack
    pool: ThreadPoolExecutor
    work: Path

    @property
    def cache(self) -> Cache:
        return Cache(self.places.cache)


def set_stage(found: Found, hands: Hands) -> Stage:
    """Make what was not found. Raises LabError, EngineError."""
    engine = found.engine
    if engine and not found.has_image:
        hands.undo.callback(remove, engine.remove_image, names.BUILDKIT_IMAGE, hands.progress.print)
        _load_buildkit(engine, hands)
        if not runs_privileged(engine):
            hands.progress.print(NOT_PRIVILEGED)
            engine = None
    if engine:
        return Stage(engine, _root_archive(engine, hands), own=False)
    return _own_stage(hands)


def _own_stage(hands: Hands) -> Stage:
    """An engine of the lab for this demo alone, beside the one of `make lab`, with a registry to pull from."""
    places, progress, cache = hands.places, hands.progress, hands.cache
    instance = Instance(places, INSTANCE)
    lock = places.state / f"{INSTANCE}.lock"
    hands.undo.enter_context(exclusive(lock, lambda: progress.print("waiting for another demo of this checkout")))
    _require_mmdebstrap(progress)
    making = hands.pool.submit(buildkit_image, BUILDKIT_VERSION, DEFAULT_TAG, cache, progress)
    with progress.step("engine root") as step:
        root = engine_root(cache, step)
    base = base_image(root, cache, progress)
    hands.undo.callback(_destroy, instance)
    with changing(places), progress.step("engine of the demo") as step:
        instance.destroy()  # what a demo that was killed may have left
        instance.start(root, step)
    image = making.result()
    with changing(places), progress.step("registry of the demo") as step:
        instance.fill_registry([image, base], step)
        instance.prove(step)
    return Stage(Engine(instance.engine.host), base.layers[0].archive, own=True)


def _destroy(instance: Instance) -> None:
    with changing(instance.places):
        instance.destroy()


def _require_mmdebstrap(progress: Progress) -> None:
    """Once, before two threads would both want it."""
    with progress.step("programs of this machine") as step:
        apt.require_program("mmdebstrap", "mmdebstrap", step)


def _load_buildkit(engine: Engine, hands: Hands) -> None:
    """Make BuildKit's image and bring it into an engine that could not pull it."""
    _require_mmdebstrap(hands.progress)
    image = buildkit_image(BUILDKIT_VERSION, DEFAULT_TAG, hands.cache, hands.progress)
    with hands.progress.step("image") as step:
        step.say(f"loading {names.BUILDKIT_IMAGE} into the engine")
        archive = hands.work / "buildkit.tar"
        _save(image, archive)
        engine.load(archive)
        archive.unlink()


def _save(image: Image, target: Path) -> None:
    """Write an image in the form of `docker save`; the layers stay compressed, which every engine takes."""
    config = f"{_hex(digest(image.config))}.json"
    layers = {f"{_hex(layer.facts['diff_id'])}.tar": layer.archive for layer in image.layers}
    tags = [f"{image.repository}:{image.tag}"]
    manifest = json.dumps([{"Config": config, "RepoTags": tags, "Layers": list(layers)}]).encode()
    with tarfile.open(target, "w") as archive:
        for name, content in ((config, image.config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, path in layers.items():
            archive.add(path, name)


def _hex(text: str) -> str:
    return text.removeprefix("sha256:")


def _root_archive(engine: Engine, hands: Hands) -> Path:
    """A tar file with busybox in it: out of an image where one can be had, else out of Debian's package."""
    with hands.progress.step("root archive") as step:
        if pull(engine, names.BASE_IMAGE, step.say, hands.undo):
            archive = hands.work / "root.tar"
            engine.export(names.BASE_IMAGE, archive)
            return archive
        step.say("taking busybox out of Debian's package")
        root = _unpack_package("busybox-static", hands.work / "package", step)
    # A cache of its own: an entry made from the work directory would never be found again.
    return base_image(root, Cache(hands.work / "cache"), hands.progress).layers[0].archive


def _unpack_package(package: str, directory: Path, step: Step) -> Path:
    """A package's files, with usr/bin where the lab's roots have it."""
    directory.mkdir()
    download = ["apt-get", "download", package]
    if subprocess.run(download, cwd=directory, capture_output=True, check=False).returncode:
        step.run(["apt-get", "update"])  # the package lists are old or were never fetched
        step.run(download, cwd=directory)
    root = directory / "root"
    step.run(["dpkg", "-x", str(next(directory.glob("*.deb"))), str(root)])
    if not (root / "usr" / "bin").exists():  # releases before the merge of /bin and /usr/bin
        (root / "usr").mkdir(exist_ok=True)
        (root / "bin").rename(root / "usr" / "bin")
    return root
