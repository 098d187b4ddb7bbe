# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An instance of the lab: a machine with an engine and a registry, brought to the state that is wanted.

Nothing is assumed about what is found: each part is asked whether it answers, left alone when it
does, and started again when it does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .engine import Engine
from .errors import LabError
from .layers import Image
from .machine import Machine
from .places import Places
from .private_registry import PrivateRegistry
from .progress import Step
from .registry import Registry, builder_configuration

MAIN = "main"
_PROBE_IMAGE, _PROBE_TAG = "busybox", "latest"
_UNUSABLE_FILESYSTEMS = ("overlay", "tmpfs", "aufs", "fuse.fuse-overlayfs")


@dataclass(frozen=True)
class Instance:
    """One engine with its registry; `options` are dockerd's."""

    places: Places
    name: str = MAIN
    options: tuple[str, ...] = ()

    @property
    def machine(self) -> Machine:
        return Machine(self.places, self.name)

    @property
    def engine(self) -> Engine:
        return Engine(self.machine, self.options)

    @property
    def registry(self) -> Registry:
        return Registry(self.machine)

    @property
    def private_registry(self) -> PrivateRegistry:
        return PrivateRegistry(self.machine)

    def start(self, root: Path, step: Step) -> None:
        """Machine and engine; an instance made from something else is ended first."""
        command = [*self.engine.command(), json.dumps(self.engine.configuration())]
        known = self._made_from()
        if known.get("root") != str(root) or self.machine.holder is None:
            self._start_machine(root, step)
        elif known.get("command") != command:
            self.engine.stop()
        self._record.write_text(json.dumps({"root": str(root), "command": command}))
        if not (self.engine.process and self.engine.api.answers()):
            step.say("starting the engine")
            self.engine.start()

    @property
    def _record(self) -> Path:
        """What the instance was made from; its presence says that there is something to stop."""
        return self.machine.state / "made-from.json"

    def _made_from(self) -> dict[str, object]:
        try:
            known: dict[str, object] = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return {}
        return known

    def _start_machine(self, root: Path, step: Step) -> None:
        self.machine.stop()  # what an interrupted lab may have left
        self.machine.state.mkdir(parents=True, exist_ok=True)
        self._record.write_text("{}")
        _refuse_unusable(self.machine.state)
        step.say("starting a machine with namespaces of its own")
        self.machine.start(root)

    @property
    def builder_configuration(self) -> Path:
        return self.machine.state / "buildkitd.toml"

    def fill_registry(self, images: Sequence[Image], step: Step) -> None:
        """A running registry that holds these images, and one beside it that is private and empty."""
        self.private_registry.start()
        if not self.registry.running:
            step.say("starting the registry")
            self.registry.start()
        self.builder_configuration.write_text(builder_configuration())
        for image in images:
            if not self.registry.holds(image):
                step.say(f"pushing {image.repository}:{image.tag}")
                self.registry.push(image)

    def prove(self, step: Step) -> None:
        """A pull through the mirror and a privileged container, once for each machine that was started."""
        proof = self.machine.state / "proven"
        holder = self.machine.holder
        identity = f"{holder.pid} {holder.started}" if holder else ""
        if proof.exists() and proof.read_text() == identity:
            return
        step.say("trying a pull and a privileged container")
        api = self.engine.api
        api.pull(_PROBE_IMAGE, _PROBE_TAG)
        status = api.run_privileged(f"{_PROBE_IMAGE}:{_PROBE_TAG}", ["true"])
        api.remove_image(f"{_PROBE_IMAGE}:{_PROBE_TAG}")
        if status:
            raise LabError(f"a privileged container ended with status {status}; see {self.engine.log}")
        proof.write_text(identity)

    def stop(self) -> None:
        """The engine first, so that containers end in order; then whatever is left, from any state."""
        self.engine.stop()
        self.registry.stop()
        self.private_registry.stop()
        self.machine.stop()

    def destroy(self) -> None:
        self.stop()
        self.machine.remove()


def known_instances(places: Places) -> list[Instance]:
    """Every instance this checkout ever started and did not destroy."""
    return [Instance(places, path.parent.name) for path in sorted(places.state.glob("*/made-from.json"))]


def _refuse_unusable(directory: Path) -> None:
    """An engine on an overlay silently falls back to copying every layer; say so instead."""
    best, kind = Path("/"), ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, mount, filesystem, *_rest = line.split()
        if directory.is_relative_to(mount) and Path(mount).is_relative_to(best):
            best, kind = Path(mount), filesystem
    if kind in _UNUSABLE_FILESYSTEMS:
        raise LabError(f"{directory} lies on {kind}; an engine needs a real file system: move the checkout to one")
