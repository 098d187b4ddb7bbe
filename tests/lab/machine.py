# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of the lab: namespaces and control groups in which an engine and its registry live.

One process holds the namespaces and does nothing else. No mount and no network of ours is visible
outside of them, so when the processes of its control group are gone, the kernel has removed
everything; there is nothing else to clean up, not even after a crash. Pids are the host's own, so
that what the engine reports about its containers is true outside as well.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .cache import remove_tree
from .cgroups import Group
from .errors import LabError, StepError
from .places import Places
from .processes import Process, wait_until

T = TypeVar("T")

_SCRIPT = Path(__file__).with_name("machine.sh")
_CLONE_NEWNET = 0x40000000

# For registries with TLS: BuildKit speaks plain HTTP to whatever is called localhost.
REGISTRY_NAME = "registry.lab"
_FILES = {
    "hosts": f"127.0.0.1 localhost {REGISTRY_NAME} lab\n::1 localhost\n",
    "hostname": "lab\n",
    # Nobody answers there, so a name that cannot be resolved fails at once and not after a timeout.
    "resolv.conf": "nameserver 127.0.0.1\n",
}


@dataclass(frozen=True)
class Machine:
    """The ground of the instance `name` of this checkout's lab."""

    places: Places
    name: str

    @property
    def state(self) -> Path:
        return self.places.instance(self.name)

    @property
    def run(self) -> Path:
        """A directory that is the same inside, as /run/lab, and outside: sockets lie here."""
        return self.places.run_directory(self.name)

    @property
    def group(self) -> Group:
        return Group(self.places.group(self.name))

    @property
    def holder(self) -> Process | None:
        """The process that holds the namespaces, when it lives."""
        process = Process.recorded_in(self.state / "machine.pid")
        return process if process and process.alive() else None

    def start(self, root: Path) -> None:
        """Start on `root`, which stays untouched below an overlay."""
        if os.geteuid() != 0:
            raise LabError("the lab's engine needs root")
        self._lay_out()
        self.group.create()
        (self.state / "entrances").write_text("".join(f"{path}\n" for path in self.group.entrances()))
        (self.state / "cgroup-mounts").write_text(self.group.mounts())
        log = self.places.logs / f"{self.name}-machine.log"
        self._detached(["hold", str(self.state), str(root), str(self.run)], log)
        if not wait_until(self._ready, 10):
            raise StepError(f"the machine {self.name} did not start", log)

    def spawn(self, pidfile: Path, command: Sequence[str], log: Path) -> None:
        """Start a program in the machine that outlives us; its pid file is written by itself."""
        pidfile.unlink(missing_ok=True)
        self._detached(["enter", str(self.state), str(pidfile), *command], log)
        if not wait_until(pidfile.exists, 10):
            raise StepError(f"{command[0]} did not start in the machine {self.name}", log)

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs another in the machine's root and network, in the foreground."""
        holder = self._require_holder()
        return ["nsenter", "--target", str(holder.pid), "--mount", "--net", "--uts", "--root", "--wd", "--", *command]

    def network_command(self, command: Sequence[str]) -> list[str]:
        """The command that runs another of this machine in the lab's network, with the names that are known there."""
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return [
            "nsenter", f"--net=/proc/{self._require_holder().pid}/ns/net",
            "unshare", "--mount", "--propagation", "private",
            "sh", "-c", script, str(self.state / "upper" / "etc" / "hosts"), *command,
        ]  # fmt: skip

    def in_network(self, action: Callable[[], T]) -> T:
        """Call a function whose sockets are made in the machine's network; the file system stays ours.

        A network namespace belongs to a thread, so a thread that ends afterwards is all it takes.
        """
        namespace = f"/proc/{self._require_holder().pid}/ns/net"
        outcome: list[T] = []
        failure: list[BaseException] = []

        def visit() -> None:
            try:
                _enter_network(namespace)
                outcome.append(action())
            except BaseException as error:  # carried over to the caller's thread
                failure.append(error)

        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def stop(self) -> None:
        """End everything that runs in the machine, whatever state it is in; its data stays."""
        self.group.kill()
        self.group.remove()
        for path in ("machine.pid", "engine.pid", "registry.pid", "private-registry.pid"):
            (self.state / path).unlink(missing_ok=True)

    def remove(self) -> None:
        self.stop()
        remove_tree(self.state)
        remove_tree(self.run)

    def _lay_out(self) -> None:
        for path in ("data", "registry", "root"):
            (self.state / path).mkdir(parents=True, exist_ok=True)
        for path in ("upper", "work"):  # what was written to the root belonged to the machine before
            remove_tree(self.state / path)
            (self.state / path).mkdir()
        self.run.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o700)
        self.places.logs.mkdir(parents=True, exist_ok=True)
        etc = self.state / "upper" / "etc"
        etc.mkdir()
        for name, content in _FILES.items():
            (etc / name).write_text(content)

    def _ready(self) -> bool:
        """The holder's last act before it sleeps is to become `sleep`."""
        holder = self.holder
        return holder is not None and Path(f"/proc/{holder.pid}/comm").read_text().strip() == "sleep"

    def _detached(self, arguments: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            subprocess.run(
                ["setsid", "--fork", str(_SCRIPT), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", check=True,
            )  # fmt: skip

    def _require_holder(self) -> Process:
        holder = self.holder
        if holder is None:
            raise LabError(f"the lab's machine {self.name} is down; run `make lab`")
        return holder


def _enter_network(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        os.close(descriptor)
