# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images of the lab: BuildKit in any version, and a small base image for test builds."""

from __future__ import annotations

import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import apt
from .cache import Cache
from .gobuild import buildkit_program, compile_program
from .layers import Image, Layer, add_directory, add_link, add_program, image, pack_files
from .progress import Progress
from .roots import buildkit_ground

BUILDKIT_VERSION = "v0.34.2"
# The tag that the CLI, and so this collection, uses when no image is named.
DEFAULT_TAG = "buildx-stable-1"
BUILDKIT_REPOSITORY = "moby/buildkit"
BASE_REPOSITORY = "library/busybox"

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def buildkit_image(version: str, tag: str, cache: Cache, progress: Progress) -> Image:
    """BuildKit of a version, compiled, on a small Debian root, with the settings of the published image."""
    with ThreadPoolExecutor() as pool:
        ground = pool.submit(_ground, cache, progress)
        programs = pool.submit(buildkit_programs, version, cache, progress)
    settings: dict[str, object] = {
        "Entrypoint": ["buildkitd"],
        "Env": [_PATH, "BUILDKIT_SETUP_CGROUPV2_ROOT=1"],
        "Volumes": {"/var/lib/buildkit": {}},
    }
    layers = (ground.result(), programs.result())
    with progress.step("BuildKit image") as step:
        return image(BUILDKIT_REPOSITORY, tag, apt.architecture(step), layers, settings)


def _ground(cache: Cache, progress: Progress) -> Layer:
    with progress.step("BuildKit root") as step:
        return buildkit_ground(cache, step)


def buildkit_programs(version: str, cache: Cache, progress: Progress) -> Layer:
    """The layer with daemon and client; the CLI's tunnel is `buildctl dial-stdio`, so the client is needed."""
    with progress.step(f"buildkitd {version}") as step:
        daemon = compile_program(buildkit_program("buildkitd", version), cache, step)
    with progress.step(f"buildctl {version}") as step:
        client = compile_program(buildkit_program("buildctl", version), cache, step)

    def fill(archive: tarfile.TarFile) -> None:
        add_program(archive, daemon, "usr/bin/buildkitd")
        add_program(archive, client, "usr/bin/buildctl")
        add_link(archive, "usr/bin/buildkit-runc", "../sbin/runc")

    ingredients = {"daemon": daemon.parent.name, "client": client.parent.name, "recipe": 1}
    with progress.step(f"BuildKit layer {version}") as step:
        directory = cache.obtain("layers", f"buildkit-{version}", ingredients, step, partial(pack_files, fill=fill))
        return Layer(directory)


def base_image(engine_root: Path, cache: Cache, progress: Progress) -> Image:
    """busybox with a link for each of its commands, from the package in the engine's root."""
    busybox = engine_root / "usr" / "bin" / "busybox"

    def fill(archive: tarfile.TarFile) -> None:
        for directory in ("bin", "etc", "root", "usr", "usr/bin"):
            add_directory(archive, directory)
        add_directory(archive, "tmp", 0o1777)
        add_program(archive, busybox, "bin/busybox")
        commands = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for command in commands:
            if command != "busybox":
                add_link(archive, f"bin/{command}", "busybox")

    ingredients = {"root": engine_root.parent.name, "recipe": 1}
    with progress.step("base image") as step:
        layer = Layer(cache.obtain("layers", "busybox", ingredients, step, partial(pack_files, fill=fill)))
        settings: dict[str, object] = {"Env": [_PATH], "Cmd": ["sh"]}
        return image(BASE_REPOSITORY, "latest", apt.architecture(step), (layer,), settings)
