# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The nearest way to a daemon in a container: its own socket, through the container's root in /proc.

A pid means something only in the engine's own pid namespace. So the process is proven to be the
container's before its root is touched, and the root is held open while it is proven: a pid that is
used again between two looks cannot lead elsewhere (DESIGN §4.5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, Optional

SOCKET = "buildkitd.sock"
DIRECTORY = ("run", "buildkit")


def open_directory(container: Mapping[str, Any]) -> Optional[int]:
    """A descriptor of `/run/buildkit` in a running container, None when that cannot be had or not be proven.

    container: what the engine's inspect says. The caller closes the descriptor; while it is open,
    `socket_path` of it leads to the daemon's default socket.
    """
    pid, identity = container["State"].get("Pid") or 0, container["Id"]
    if pid <= 0 or not container["State"].get("Running"):
        return None
    try:
        directory = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    for part in DIRECTORY:
        inner = _enter(directory, part)
        os.close(directory)
        if inner is None:
            return None
        directory = inner
    # Proven after it was opened: while the pid is the container's now, it was when its root was opened.
    if _belongs(pid, identity) and _is_socket(directory):
        return directory
    os.close(directory)
    return None


def socket_path(directory: int) -> str:
    """The path of the daemon's socket in a directory of `open_directory`; valid in this process only."""
    return f"/proc/self/fd/{directory}/{SOCKET}"


def _enter(directory: int, name: str) -> Optional[int]:
    """Step down without following links: one in the container's root would be read against the host's."""
    try:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None


def _is_socket(directory: int) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(SOCKET, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _belongs(pid: int, identity: str) -> bool:
    """Whether a process of this pid namespace is of the container."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            cgroup = stream.read()
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as stream:
            mountinfo = stream.read()
    except OSError:
        return False
    return _names(cgroup, mountinfo, identity)


def _names(cgroup: str, mountinfo: str, identity: str) -> bool:
    """Whether a process' cgroup, or what the engine mounted for it (its hosts file and others), names the container.

    What is mounted counts by where it comes from, the fourth field. Where it is mounted to says nothing: engines
    used to mount the shared memory of their containers for the host, under their ids.
    """
    return identity in cgroup or any(identity in line.split(" ", 4)[3] for line in mountinfo.splitlines())
