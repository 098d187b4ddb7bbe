# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian 13 roots, made by mmdebstrap: one for the engine, one as the ground of the BuildKit image.

Debian 12's own engine cannot start privileged containers where a capability is missing, so the
engine comes from Debian 13 and runs in a root of that release.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from . import apt
from .cache import Cache
from .layers import Layer, pack_stream
from .progress import Step

SUITE = "trixie"

ENGINE_PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "containerd",
    "docker-cli",
    "docker-registry",
    "docker.io",
    "git",
    "iproute2",
    "iptables",
    "mount",
    "procps",
    "python3",
    "python3-docker",
    "python3-grpcio",
    "python3-protobuf",
    "runc",
)
BUILDKIT_PACKAGES = ("busybox-static", "ca-certificates", "git", "runc")
# Nobody reads manuals in there, and every byte is compressed, pushed and pulled.
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def engine_root(cache: Cache, step: Step) -> Path:
    """The root the engine runs in; shared read-only, each engine lays its own overlay on it."""
    ingredients = {"suite": SUITE, "packages": ENGINE_PACKAGES, "excluded": _EXCLUDED, "recipe": 1}

    def make(directory: Path) -> None:
        root = directory / "root"
        step.say(f"installing Debian {SUITE} with an engine and a registry")
        _mmdebstrap(step, "apt", ENGINE_PACKAGES, str(root))
        (root / ".old").mkdir()  # where pivot_root puts what was the root before

    return cache.obtain("roots", "engine", ingredients, step, make) / "root"


def buildkit_ground(cache: Cache, step: Step) -> Layer:
    """The small root below buildkitd: runc, git and certificates; the same for every version."""
    ingredients = {"suite": SUITE, "packages": BUILDKIT_PACKAGES, "excluded": _EXCLUDED, "recipe": 1}

    def make(directory: Path) -> None:
        step.say(f"installing Debian {SUITE} with runc and git")
        archive = directory / "root.tar"
        with archive.open("wb") as stream:
            _mmdebstrap(step, "essential", BUILDKIT_PACKAGES, "-", stdout=stream)
        with archive.open("rb") as packed:
            pack_stream(packed, directory)
        archive.unlink()

    return Layer(cache.obtain("layers", "buildkit-ground", ingredients, step, make))


def _mmdebstrap(step: Step, variant: str, packages: Sequence[str], target: str, stdout: object | None = None) -> None:
    apt.require_program("mmdebstrap", "mmdebstrap", step)
    command = [
        # Its bind mounts live and die in a namespace of their own, whatever happens to it.
        "unshare", "--mount", "--propagation", "private",
        "mmdebstrap", "--mode=root", f"--variant={variant}", "--format=tar" if target == "-" else "--format=directory",
        f"--include={','.join(packages)}",
        "--skip=output/dev",
        *[f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED],
        *[f"--aptopt={option}" for option in apt.transport_options(step)],
        SUITE, target, apt.source_line(SUITE),
    ]  # fmt: skip
    step.run(command, env={**os.environ, "LC_ALL": "C.UTF-8"}, stdout=stdout)  # type: ignore[arg-type]
