# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One control group per instance, in every hierarchy of the machine.

Everything that runs in the lab, containers included, lives below it: the instance's processes see it
as the root (a cgroup namespace), so no container can be created outside, limits are real, and what
has to be ended is exactly what the kernel lists there, whatever happened to our own records.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .processes import wait_until

_MOUNT_FLAGS = {"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "nsdelegate", "clone_children", "xattr"}
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy: version 1 with its controllers, or the unified one."""

    mount: Path
    filesystem: str
    options: str

    @property
    def unified(self) -> bool:
        return self.filesystem == "cgroup2"


@dataclass(frozen=True)
class Group:
    """The group of one instance."""

    name: str

    def create(self) -> None:
        for hierarchy in hierarchies():
            directory = hierarchy.mount / self.name
            directory.mkdir(exist_ok=True)
            if hierarchy.unified:
                _open_unified(hierarchy.mount, directory)
            else:
                _inherit_cpuset(hierarchy.mount, directory)

    def entrances(self) -> list[Path]:
        """The files that a process writes its pid to in order to join.

        Where the unified hierarchy has controllers, a group with children may hold no processes
        itself, so they go to a child.
        """
        return [
            hierarchy.mount / self.name / ("init" if _has_controllers(hierarchy) else "") / "cgroup.procs"
            for hierarchy in hierarchies()
        ]

    def mounts(self) -> str:
        """One line for each hierarchy, `TYPE OPTIONS DIRECTORY` below /sys/fs/cgroup, for the script inside."""
        lines = []
        for hierarchy in hierarchies():
            place = os.path.relpath(hierarchy.mount, "/sys/fs/cgroup")
            lines.append(f"{hierarchy.filesystem} {hierarchy.options} {place}\n")
        return "".join(lines)

    def pids(self) -> set[int]:
        """Every process in the group and below."""
        found: set[int] = set()
        for directory in self._directories():
            with suppress(OSError):
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        return found

    def kill(self) -> None:
        """End every process in the group; new ones may appear while we are at it, hence the repetition."""

        def emptied() -> bool:
            pids = self.pids()
            for pid in pids:
                self._kill_member(pid)
            return not pids

        if not wait_until(emptied, 20):
            raise LabError(f"processes in the control group {self.name} do not end: {sorted(self.pids())}")

    def remove(self) -> None:
        """Remove the group with its children, deepest first; a group just emptied may be busy for a moment."""
        for directory in self._directories():
            if not wait_until(lambda place=directory: _removed(place), 5):  # type: ignore[misc]
                raise LabError(f"control group {directory} cannot be removed")

    def _kill_member(self, pid: int) -> None:
        with suppress(ProcessLookupError, FileNotFoundError):
            descriptor = os.pidfd_open(pid)
            try:
                # The pid may have changed hands between the listing and the opening.
                if f"/{self.name}" in Path(f"/proc/{pid}/cgroup").read_text():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def _directories(self) -> Iterator[Path]:
        """The group's directories in all hierarchies, children before their parents."""
        for hierarchy in hierarchies():
            for path, _directories, _files in os.walk(hierarchy.mount / self.name, topdown=False):
                yield Path(path)


def hierarchies() -> list[Hierarchy]:
    found: dict[Path, Hierarchy] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, mount, filesystem, options, *_rest = line.split()
        if filesystem in ("cgroup", "cgroup2") and Path(mount).is_relative_to("/sys/fs/cgroup"):
            found[Path(mount)] = Hierarchy(Path(mount), filesystem, _controllers(filesystem, options))
    return list(found.values())


def _controllers(filesystem: str, options: str) -> str:
    """The options that say which hierarchy a new mount shall show."""
    if filesystem == "cgroup2":
        return "rw"
    kept = [option for option in options.split(",") if option not in _MOUNT_FLAGS and "release_agent" not in option]
    named = [option for option in kept if option.startswith("name=")]
    return ",".join(["none", *named] if named else kept)


def _has_controllers(hierarchy: Hierarchy) -> bool:
    if not hierarchy.unified:
        return False
    return bool((hierarchy.mount / "cgroup.controllers").read_text().split())


def _open_unified(parent: Path, directory: Path) -> None:
    """Hand the controllers down to the instance and make the child that its own processes live in."""
    available = (parent / "cgroup.controllers").read_text().split()
    if not available:
        return
    wanted = " ".join(f"+{controller}" for controller in _V2_CONTROLLERS if controller in available)
    (parent / "cgroup.subtree_control").write_text(wanted)
    (directory / "init").mkdir(exist_ok=True)
    (directory / "cgroup.subtree_control").write_text(wanted)


def _inherit_cpuset(parent: Path, directory: Path) -> None:
    """A new cpuset has neither processors nor memory, and nobody can join it before it has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (directory / name).exists():
            (directory / name).write_text((parent / name).read_text())


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
