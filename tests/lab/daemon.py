# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What engine and registries have in common: programs that run in a machine until they are stopped by their pid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .machine import Machine
from .processes import Process


@dataclass(frozen=True)
class Daemon:
    """A program in a machine. NAME: of its files. STOP_SECONDS: how long it may take to end."""

    NAME: ClassVar[str]
    STOP_SECONDS: ClassVar[float] = 5

    machine: Machine

    @property
    def pidfile(self) -> Path:
        return self.machine.state / f"{self.NAME}.pid"

    @property
    def log(self) -> Path:
        return self.machine.places.logs / f"{self.machine.name}-{self.NAME}.log"

    @property
    def process(self) -> Process | None:
        process = Process.recorded_in(self.pidfile)
        return process if process and process.alive() else None

    def stop(self) -> None:
        """As an administrator stops it."""
        if process := self.process:
            process.stop(self.STOP_SECONDS)
        self.pidfile.unlink(missing_ok=True)


def written(path: Path) -> str:
    """What a file says, "" when there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
