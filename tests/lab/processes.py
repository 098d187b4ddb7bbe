# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes by identity: a pid together with its start time, never a name.

A pid alone may have gone to somebody else since it was written down; pid and start time together may
not, and a pidfd makes sure that the signal reaches the process that was looked at.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """A process that was recorded by the one who started it."""

    pid: int
    started: str

    @classmethod
    def recorded_in(cls, path: Path) -> Process | None:
        """What a pid file says: `PID STARTTIME BOOT_ID`; None when it says nothing usable or of another boot."""
        try:
            pid, started, boot = path.read_text().split()
        except (OSError, ValueError):
            return None
        return cls(int(pid), started) if boot == boot_id() else None

    def alive(self) -> bool:
        fields = _stat(self.pid)
        return fields is not None and fields[0] not in "ZX" and fields[19] == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process, or to nobody."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def stop(self, patience: float) -> None:
        """Ask it to end, and end it when it has not after `patience` seconds."""
        self.signal(signal.SIGTERM)
        if not wait_until(lambda: not self.alive(), patience):
            self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if not wait_until(lambda: not self.alive(), 10):
            raise LabError(f"process {self.pid} does not end")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
