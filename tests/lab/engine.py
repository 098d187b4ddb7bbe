# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine of an instance: started in its machine, asked whether it answers, stopped by its pid."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .daemon import Daemon
from .engine_api import EngineApi
from .errors import StepError
from .processes import wait_until
from .registry import BRIDGE_ADDRESS, MIRROR

START_SECONDS = 60
FEATURE = "--feature="
"""An option of newer engines; what this one has for it is its configuration file."""


@dataclass(frozen=True)
class Engine(Daemon):
    """dockerd in a machine; `options` are added to its command line."""

    NAME = "engine"
    STOP_SECONDS = 30
    """Containers are stopped first."""

    options: tuple[str, ...] = field(default=())

    @property
    def socket(self) -> Path:
        return self.machine.run / "docker.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def api(self) -> EngineApi:
        return EngineApi(self.socket)

    def command(self) -> list[str]:
        return [
            "dockerd",
            "--host=unix:///run/lab/docker.sock",
            f"--registry-mirror=http://{MIRROR}",
            f"--insecure-registry={MIRROR}",
            f"--bip={BRIDGE_ADDRESS}/16",
            # Nobody answers there either, but it refuses at once: without this the engine gives containers public
            # resolvers, and every name that a builder cannot resolve costs a minute and a half.
            f"--dns={BRIDGE_ADDRESS}",
            "--shutdown-timeout=5",
            "--config-file=/run/lab/daemon.json",
            *(option for option in self.options if not option.startswith(FEATURE)),
        ]

    def configuration(self) -> dict[str, object]:
        """What the engine reads from its file."""
        named = [option[len(FEATURE) :] for option in self.options if option.startswith(FEATURE)]
        return {"features": dict.fromkeys(named, True)}

    def start(self) -> None:
        """Start it and wait until it answers; one that answers already is left alone."""
        if self.process and self.api.answers():
            return
        self.stop()
        self.socket.unlink(missing_ok=True)
        # One that was killed leaves its number there; the next one would refuse to start as long as anybody has it.
        subprocess.run(self.machine.command(["rm", "-f", "/run/docker.pid"]), check=True)
        (self.machine.run / "daemon.json").write_text(json.dumps(self.configuration()))
        self.machine.spawn(self.pidfile, self.command(), self.log)
        wait_until(lambda: self.process is None or self.api.answers(), START_SECONDS)
        if not self.api.answers():
            raise StepError(f"the engine of {self.machine.name} does not answer", self.log)

    def kill(self) -> None:
        """As a crash would: containers go on without it until the next start."""
        if process := self.process:
            process.kill()
        self.pidfile.unlink(missing_ok=True)
