# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo needs on an engine that cannot pull: BuildKit's image, and a small root for Dockerfiles."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path

from tests.lab import apt
from tests.lab.buildkit import BUILDKIT_VERSION, DEFAULT_TAG, base_image, buildkit_image
from tests.lab.cache import Cache
from tests.lab.layers import Image, digest
from tests.lab.progress import Progress, Step

from . import names
from .engine import Engine, EngineError
from .look import remove


def load_buildkit(engine: Engine, work: Path, cache: Cache, progress: Progress) -> None:
    """Make BuildKit's image and bring it into an engine that could not pull it."""
    with progress.step("programs of this machine") as step:
        apt.require_program("mmdebstrap", "mmdebstrap", step)
    image = buildkit_image(BUILDKIT_VERSION, DEFAULT_TAG, cache, progress)
    with progress.step("image") as step:
        step.say(f"loading {names.BUILDKIT_IMAGE} into the engine")
        archive = work / "buildkit.tar"
        save(image, archive)
        engine.load(archive)
        archive.unlink()


def save(image: Image, target: Path) -> None:
    """Write an image in the form of `docker save`; the layers stay compressed, which every engine takes."""
    config = f"{digest(image.config).removeprefix('sha256:')}.json"
    layers = {f"{layer.facts['diff_id'].removeprefix('sha256:')}.tar": layer.archive for layer in image.layers}
    tag = f"{image.repository}:{image.tag}"
    manifest = json.dumps([{"Config": config, "RepoTags": [tag], "Layers": list(layers)}]).encode()
    with tarfile.open(target, "w") as archive:
        for name, content in ((config, image.config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, path in layers.items():
            archive.add(path, name)


def root_archive(engine: Engine, work: Path, progress: Progress, undo: ExitStack) -> Path:
    """A tar file with busybox in it: out of an image where one can be had, else out of Debian's package."""
    with progress.step("root archive") as step:
        if _obtain_base(engine, step, undo):
            archive = work / "root.tar"
            engine.export(names.BASE_IMAGE, archive)
            return archive
        step.say("taking busybox out of Debian's package")
        root = _unpack_package("busybox-static", work / "package", step)
    # A cache of its own: what lies in the work directory names nothing that anybody could use again.
    return base_image(root, Cache(work / "cache"), progress).layers[0].archive


def _obtain_base(engine: Engine, step: Step, undo: ExitStack) -> bool:
    if engine.has_image(names.BASE_IMAGE):
        return True
    step.say(f"pulling {names.BASE_IMAGE}")
    try:
        engine.pull(names.BASE_IMAGE)
    except EngineError as error:
        step.say(f"it cannot be pulled ({error})")
        return False
    undo.callback(remove, engine.remove_image, names.BASE_IMAGE, step.say)
    return True


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
