# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The runner: applies the steps of a plan, one function a verb.

Each step leaves a state that the next observation can see and the next plan can finish. A failure says
which steps had been done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import archive, containers, images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError, EngineError

from . import container
from .instance import NodeEntry
from .names import container_name, volume_name
from .plan import NodeObservation, Step, Wish, runs_afterwards
from .spec import previous_name
from .store import Store
from .workers import Probe, Workers, wait_ready


class Log(Protocol):
    """Where the steps of a boot are told, in the CLI's words (buildx §3.6)."""

    def status(self, text: str, *, done: bool = False) -> None:
        """A step has begun, or is done."""


class _Silent:
    def status(self, text: str, *, done: bool = False) -> None:
        del text, done


class Runner:
    """Applies one plan.

    engines: node → its engine. probe: asks a container's daemon. wait_seconds: how long a boot may take.
    key: endpoint key for `use`.
    """

    def __init__(
        self,
        wish: Wish,
        engines: Mapping[str, Engine],
        store: Store,
        *,
        probe: Callable[[str], Probe],
        wait_seconds: float,
        key: str,
        log: Optional[Log] = None,
    ) -> None:
        self.workers: dict[str, Workers] = {}
        self._wish = wish
        self._nodes = {node.entry.name: node for node in wish.nodes}
        self._engines = engines
        self._store = store
        self._probe = probe
        self._wait_seconds = wait_seconds
        self._key = key
        self._log = log or _Silent()

    def apply(self, steps: Sequence[Step]) -> None:
        """Do the steps in order. A BuildxError carries `steps`: what had been done, and `changed`."""
        done: list[Step] = []
        try:
            for step in steps:
                VERBS[step.verb](self, step)
                done.append(step)
            self._wait()
        except BuildxError as exc:
            exc.details.setdefault("steps", [step.to_result() for step in done])
            exc.details["changed"] = bool(done)
            raise

    def _wait(self) -> None:
        """`started` is reached when the workers answer, whether or not there was anything to do."""
        if self._wish.state != "started":
            return
        for name in self._nodes:
            if name not in self.workers:
                self.workers[name] = self._ready(name)

    def _ready(self, node: str) -> Workers:
        return wait_ready(self._engines[node], node, self._probe(node), Deadline(self._wait_seconds))

    def register(self, step: Step) -> None:
        del step
        if self._wish.desired is not None:
            with self._store.locked():
                self._store.save(self._wish.desired)

    def unregister(self, step: Step) -> None:
        del step
        if self._wish.stored is not None:
            with self._store.locked():
                self._store.remove(self._wish.stored.name)

    def use(self, step: Step) -> None:
        del step
        if self._wish.desired is not None:
            with self._store.locked():
                self._store.select(self._key, self._wish.desired.name)

    def pull(self, step: Step) -> None:
        node, engine = self._nodes[step.node], self._engines[step.node]
        image = node.wanted.image
        self._log.status(f"pulling image {image}")
        try:
            images.pull(engine, image)
        except EngineError as exc:
            # What the CLI does: without the registry the local image is good enough.
            if self._wish.pull != "auto" or images.inspect(engine, image) is None:
                # With `always` nobody has looked whether the engine has it.
                how = (
                    "cannot be pulled"
                    if self._wish.pull == "always"
                    else "can neither be pulled nor found on the engine"
                )
                raise BuilderError(
                    f"the image of the node {step.node} {how}: {exc}",
                    hint=exc.hint or "Check the name, or load the image into the engine.",
                ) from exc
            self._log.status(f"using local image {image}")
        self._log.status(f"pulling image {image}", done=True)

    def create(self, step: Step) -> None:
        node = self._nodes[step.node]
        name = container_name(step.node)
        self._log.status(f"creating container {name}")
        self._create(node)
        self._log.status(f"creating container {name}", done=True)

    def _create(self, node: NodeObservation) -> None:
        name, engine = container_name(node.entry.name), self._engines[node.entry.name]
        kept = node.found.body if node.found else {}
        containers.create(engine, name, container.create_body(node.wanted, kept))
        self._put_files(node.entry)

    def _put_files(self, entry: NodeEntry) -> None:
        files = {f"buildkit/{path}": content for path, content in entry.files.items()}
        if files:
            archive.write_tree(self._engines[entry.name], container_name(entry.name), "/etc", files)

    def configure(self, step: Step) -> None:
        self._put_files(self._nodes[step.node].entry)

    def update(self, step: Step) -> None:
        limits = container.live_limits(self._nodes[step.node].wanted, step.why)
        containers.update(self._engines[step.node], container_name(step.node), limits)

    def start(self, step: Step) -> None:
        name = container_name(step.node)
        self._log.status(f"starting container {name}")
        containers.start(self._engines[step.node], name)
        self._log.status(f"starting container {name}", done=True)

    def unpause(self, step: Step) -> None:
        containers.unpause(self._engines[step.node], container_name(step.node))

    def stop(self, step: Step) -> None:
        self._let_run(step.node)
        containers.stop(self._engines[step.node], container_name(step.node))

    def restart(self, step: Step) -> None:
        self._let_run(step.node)
        containers.restart(self._engines[step.node], container_name(step.node))
        try:
            self.workers[step.node] = self._ready(step.node)
        except BuildxError as exc:
            if self._put_back_files(step.node):
                exc.details["rolled_back"] = True
                exc.hint = f"The configuration that was there before is back. {exc.hint or ''}".strip()
            raise

    def _put_back_files(self, node: str) -> bool:
        """The configuration that the store still has, and the daemon with it; whether there is another than this."""
        entries = self._wish.stored.nodes if self._wish.stored else ()
        before = next((entry for entry in entries if entry.name == node), None)
        if before is None or not before.files or before.files == self._nodes[node].entry.files:
            return False
        self._put_files(before)
        containers.restart(self._engines[node], container_name(node))
        return True

    def _let_run(self, node: str) -> None:
        """A paused daemon cannot hear that it is to end."""
        found = self._nodes[node].found
        if found is not None and found.status == "paused":
            containers.unpause(self._engines[node], container_name(node))

    def recreate(self, step: Step) -> None:
        """A new container with the same state volume; the old one comes back when the new one does not answer.

        Two daemons cannot share the state, so that the old one has to end first.
        """
        node, engine = self._nodes[step.node], self._engines[step.node]
        name, previous = container_name(step.node), previous_name(step.node)
        was_running = node.found is not None and node.found.status in ("running", "restarting", "paused")
        if was_running and self._wish.state != "stopped":
            self._let_run(step.node)
            containers.stop(engine, name)
        containers.rename(engine, name, previous)
        try:
            self._create(node)
            if runs_afterwards(self._wish, node):
                containers.start(engine, name)
                self.workers[step.node] = self._ready(step.node)
        except BuildxError as exc:
            self._roll_back(step.node, start=was_running and self._wish.state != "stopped")
            exc.details["rolled_back"] = True
            exc.hint = f"The container that was there before is back. {exc.hint or ''}".strip()
            raise
        containers.remove(engine, previous)

    def _roll_back(self, node: str, *, start: bool) -> None:
        engine, name = self._engines[node], container_name(node)
        containers.remove(engine, name)
        containers.rename(engine, previous_name(node), name)
        if start:
            containers.start(engine, name)

    def restore(self, step: Step) -> None:
        containers.rename(self._engines[step.node], previous_name(step.node), container_name(step.node))

    def discard(self, step: Step) -> None:
        containers.remove(self._engines[step.node], previous_name(step.node))

    def remove(self, step: Step) -> None:
        engine, name = self._engines[step.node], container_name(step.node)
        containers.remove(engine, name)
        if containers.inspect(engine, name) is not None:
            raise BuilderError(f"the engine still has the container {name} after it removed it")

    def remove_volume(self, step: Step) -> None:
        engine, name = self._engines[step.node], volume_name(step.node)
        containers.remove_volume(engine, name)
        if containers.inspect_volume(engine, name) is not None:
            raise BuilderError(f"the engine still has the volume {name} after it removed it")


VERBS: dict[str, Callable[[Runner, Step], Any]] = {
    "register": Runner.register,
    "unregister": Runner.unregister,
    "use": Runner.use,
    "pull": Runner.pull,
    "create": Runner.create,
    "configure": Runner.configure,
    "update": Runner.update,
    "start": Runner.start,
    "unpause": Runner.unpause,
    "stop": Runner.stop,
    "restart": Runner.restart,
    "recreate": Runner.recreate,
    "restore": Runner.restore,
    "discard": Runner.discard,
    "remove": Runner.remove,
    "remove_volume": Runner.remove_volume,
}
