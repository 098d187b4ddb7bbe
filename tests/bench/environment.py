# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as a set of variables, with the archive installed, and what the figures depend on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

from tests.run import Tests

from .hands import Hands

_LIBRARIES = ("ansible-core", "docker", "grpcio", "protobuf")
_VERSIONS = f"""
import importlib.metadata, json, platform
found = {{name: importlib.metadata.version(name) for name in {_LIBRARIES!r}}}
print(json.dumps({{"Python": platform.python_version(), **found}}))
"""


def environment(scratch: Path) -> dict[str, str]:
    """Variables for both sides, with a store of their own; raises the lab unless a test has done that already."""
    found = dict(os.environ)
    if "BUILDX_TEST_COLLECTIONS" not in found:
        installed = scratch / "archive"
        installed.mkdir()
        found.update(Tests(installed).lab_variables("dev"))
        _make_packages(Path(found["BUILDX_TEST_COLLECTIONS"]))
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "BUILDX_CONFIG", "BUILDX_BUILDER"):
        found.pop(name, None)  # they would lead past the lab
    config = scratch / "docker-config"
    config.mkdir()
    plugins = Path(found["DOCKER_CONFIG"]) / "cli-plugins"
    if plugins.exists():
        (config / "cli-plugins").symlink_to(plugins)
    return {**found, "DOCKER_CONFIG": str(config), "HOME": str(scratch)}


def _make_packages(tree: Path) -> None:
    """Packages as in the archive that Ansible sends: those without a file of their own take longer to look through."""
    for directory in (tree / "ansible_collections", *(tree / "ansible_collections").rglob("*")):
        if directory.is_dir():
            (directory / "__init__.py").touch()


def facts(hands: Hands) -> dict[str, str]:
    """The machine and the versions, without anything that names them."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    command = [hands.environment["BUILDX_LAB_PYTHON"], "-c", _VERSIONS]
    libraries = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    daemon = hands.docker("exec", f"buildx_buildkit_{hands.builder}0", "buildkitd", "--version")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GiB of memory",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _said("findmnt", "--noheadings", "--output=FSTYPE", f"--target={hands.scratch}"),
        "BuildKit": daemon.split()[2],
        "buildx": hands.docker("buildx", "version").split()[1],
        "engine": hands.docker("version", "--format={{.Server.Version}}").strip(),
        "image store": hands.docker("info", "--format={{.Driver}}").strip(),
        **libraries,
    }


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
