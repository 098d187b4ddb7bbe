# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The socket through /proc: this process plays the daemon's, since it has a real /proc of its own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import direct

ID = "f04a7d40ddde357ec2f4631c4ab56d32e6356b31569b99b5fa226a416b8f2a58"
OTHER = "2bd5dd9f2598aa8a28b6ca1095d87e5940f62284d3448e0204d36f7f4cf34c6f"

# As seen on real hosts; shortened, one line of each kind.
CGROUPS_V1 = f"4:memory:/docker/buildx/{ID}\n3:cpuset:/docker/buildx/{ID}\n0::/\n"
CGROUP_V2 = f"0::/system.slice/docker-{ID}.scope/init\n"
CGROUP_NAMESPACE = "0::/\n"
INSIDE = f"""\
128 127 0:29 / / rw,relatime master:5 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/X
141 128 254:0 /var/lib/docker/containers/{ID}/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw
"""
ON_THE_HOST = f"""\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
310 27 0:55 / /var/lib/docker/overlay2/9c2/merged rw,relatime shared:1 - overlay overlay rw
311 27 0:56 / /var/lib/docker/containers/{ID}/mounts/shm rw,nosuid - tmpfs shm rw,size=65536k
"""


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "belongs"),
    [
        (CGROUPS_V1, INSIDE, True),
        (CGROUP_V2, INSIDE, True),
        (CGROUP_NAMESPACE, INSIDE, True),
        (CGROUP_V2, "", True),
        (CGROUP_NAMESPACE, ON_THE_HOST, False),
        (CGROUP_NAMESPACE, "", False),
        ("", "", False),
        (CGROUPS_V1.replace(ID, OTHER), INSIDE.replace(ID, OTHER), False),
    ],
)
def test_what_proves_that_a_process_is_the_containers(cgroup: str, mountinfo: str, belongs: bool) -> None:
    assert direct._names(cgroup, mountinfo, ID) is belongs


def test_a_process_that_is_gone_belongs_to_nobody() -> None:
    assert not direct._belongs(2**22 + 1, ID)


class Daemon:
    """This process as the daemon of a container: a socket below a directory of its root, and an id."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / direct.SOCKET))
        self.listener.listen(1)
        self.identity = secrets.token_hex(32)

    def inspect(self, **state: Any) -> dict[str, Any]:
        return {"Id": self.identity, "State": {"Pid": os.getpid(), "Running": True, **state}}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    monkeypatch.setattr(direct, "DIRECTORY", tmp_path.parts[1:])
    yield made
    made.listener.close()


@pytest.fixture
def no_leak() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def own_word() -> str:
    """Something long that names this process in its own /proc, as an id names a container's."""
    with (
        open("/proc/self/cgroup", encoding="utf-8") as cgroup,
        open("/proc/self/mountinfo", encoding="utf-8") as mounts,
    ):
        words = [line.strip() for line in cgroup] + [line.split(" ")[3] for line in mounts]
    return max(words, key=len)


def test_the_socket_of_a_proven_process(daemon: Daemon, no_leak: None) -> None:
    daemon.identity = own_word()
    directory = direct.open_directory(daemon.inspect())
    assert directory is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(direct.socket_path(directory))
        daemon.listener.accept()[0].close()
    os.close(directory)


def test_the_process_of_somebody_else_is_refused(daemon: Daemon, no_leak: None) -> None:
    """The pid is right, the socket is there; but nothing says that the process is the container's."""
    assert direct.open_directory(daemon.inspect()) is None


@pytest.mark.parametrize("state", [{"Pid": 0}, {"Pid": None}, {"Running": False}, {"Pid": 2**22 + 1}, {"Pid": -1}])
def test_without_a_process_there_is_no_way(daemon: Daemon, no_leak: None, state: dict[str, Any]) -> None:
    daemon.identity = own_word()
    assert direct.open_directory(daemon.inspect(**state)) is None


def test_a_socket_that_is_missing_or_none(daemon: Daemon, no_leak: None) -> None:
    daemon.identity = own_word()
    path = daemon.directory / direct.SOCKET
    path.unlink()
    assert direct.open_directory(daemon.inspect()) is None
    path.write_text("")
    assert direct.open_directory(daemon.inspect()) is None
    path.unlink()
    path.symlink_to("/run/docker.sock")
    assert direct.open_directory(daemon.inspect()) is None


def test_links_are_not_followed(daemon: Daemon, no_leak: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in the container's tree would be read against this process' root."""
    daemon.identity = own_word()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(direct, "DIRECTORY", (*tmp_path.parts[1:], "link"))
    assert direct.open_directory(daemon.inspect()) is None


def test_a_directory_that_is_missing(daemon: Daemon, no_leak: None, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.identity = own_word()
    monkeypatch.setattr(direct, "DIRECTORY", ("no", "such", "directory"))
    assert direct.open_directory(daemon.inspect()) is None
