# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things are: what belongs to the machine's cache, and what to this checkout.

The cache is shared by every clone of a user; the state (sockets, data, pids, logs) belongs to one
checkout, and every name that is visible outside of it is derived from the checkout's path, so that
the labs of two checkouts never meet.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

# sun_path holds 108 bytes with its terminator; some clients append a suffix while they probe.
LONGEST_SOCKET_PATH = 100


@dataclass(frozen=True)
class Places:
    """Every path the lab uses, computed and never created here."""

    checkout: Path
    cache: Path

    @classmethod
    def of_this_checkout(cls) -> Places:
        checkout = Path(__file__).resolve().parents[2]
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(checkout=checkout, cache=Path(base) / "buildfleet-buildx")

    @property
    def state(self) -> Path:
        return self.checkout / ".lab"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def programs(self) -> Path:
        """A directory for the PATH, with links to the reference CLI."""
        return self.state / "bin"

    @property
    def docker_config(self) -> Path:
        return self.state / "docker-config"

    @property
    def requirements(self) -> Path:
        return self.checkout / "tests" / "requirements"

    @property
    def checkout_id(self) -> str:
        return hashlib.sha256(os.fsencode(self.checkout)).hexdigest()[:10]

    def instance(self, name: str) -> Path:
        return self.state / name

    def run_directory(self, name: str) -> Path:
        """Where the engine's socket lies: in the checkout when the path is short enough for a socket."""
        wanted = self.instance(name) / "run"
        if len(os.fsencode(wanted / "docker.sock")) <= LONGEST_SOCKET_PATH:
            return wanted
        return self.short_directory / name

    @property
    def short_directory(self) -> Path:
        return Path("/run") / f"buildfleet-{self.checkout_id}"

    def group(self, name: str) -> str:
        """Name of the control group that holds every process of one instance."""
        return f"buildfleet-{self.checkout_id}-{name}"
