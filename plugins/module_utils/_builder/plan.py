# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The plan: which steps lead from what was found to what is wanted. Pure; the runner applies it.

Check mode is this plan without the runner, and what a run reports is the same list, so that the two
cannot disagree (DESIGN §4.4). Each kind of difference is repaired by the smallest step that the engine
really allows (container.ATTRIBUTES).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError

from . import container
from .instance import Instance, NodeEntry
from .spec import ContainerSpec, NodeState

NONE, BUILDS, CACHE = "none", "builds", "cache"
"""How disruptive a step is: not at all, running builds are cut off, the build cache is lost."""

RUNNING = ("running", "restarting", "paused")
UNUSABLE = ("dead", "removing")


@dataclass(frozen=True)
class Step:
    """One change.

    verb: what is done, a key of the runner's table. node: its name, "" for a step on the builder.
    why:  the attributes that differ, or one word such as `missing`.
    """

    verb: str
    node: str
    why: tuple[str, ...]
    disruption: str = NONE

    def to_result(self) -> dict[str, object]:
        return {"step": self.verb, "node": self.node, "reasons": list(self.why), "disruption": self.disruption}


@dataclass(frozen=True)
class NodeObservation:
    """One node: what is wanted, and all that was found of it.

    found:      None: there is no container.
    aside:      what was found is what an interrupted re-creation had set aside, and not under its name.
    previous:   besides what was found there is a container that had been set aside.
    volume:     whether the state volume exists.
    has_image:  whether the engine has an image of the wanted name.
    newer:      with pull=always: the image's name means another image now than what the container runs.
    owner:      another builder of this store that has a node of this name.
    """

    entry: NodeEntry
    wanted: ContainerSpec
    found: Optional[NodeState] = None
    aside: bool = False
    previous: bool = False
    volume: bool = False
    has_image: bool = False
    newer: bool = False
    owner: Optional[str] = None


@dataclass(frozen=True)
class Wish:
    """What a task wants of a builder besides its nodes' settings.

    state: `present`, `started`, `stopped` or `absent`. stored, desired: the entry as it is and as it should be.
    select: make it the current one; selected: whether it is. repair False: only boot, as a build does.
    """

    state: str
    stored: Optional[Instance]
    desired: Optional[Instance]
    pull: str = "auto"
    select: bool = False
    selected: bool = False
    repair: bool = True
    nodes: tuple[NodeObservation, ...] = field(default=(), repr=False)


def plan(wish: Wish) -> list[Step]:
    """The steps, in order; [] when everything is as it should be. Raises BuilderError when it cannot be reached."""
    if wish.state == "absent":
        steps = [step for node in wish.nodes for step in _remove(node)]
        return [*steps, *([Step("unregister", "", ("unwanted",))] if wish.stored else [])]
    steps = [step for node in wish.nodes for step in _reconcile(node, wish)]
    if wish.stored is None:
        # As the CLI does: what is half made is known to the store, and removed with it. An image that cannot be had
        # is found out before.
        pulls = sum(step.verb == "pull" for step in steps)
        steps.insert(pulls, Step("register", "", ("missing",)))
    elif wish.stored != wish.desired:
        # Last, so that a repair that fails leaves the old words beside the old container.
        steps.append(Step("register", "", entry_differences(wish.stored, wish.desired)))
    if wish.select and not wish.selected:
        steps.append(Step("use", "", ("not current",)))
    return steps


def _remove(node: NodeObservation) -> list[Step]:
    if node.owner:
        return []
    steps = []
    if node.found:
        running = node.found.status in RUNNING
        verb = "discard" if node.aside else "remove"
        steps.append(Step(verb, node.entry.name, ("unwanted",), BUILDS if running else NONE))
    if node.previous:
        steps.append(Step("discard", node.entry.name, ("left over",)))
    if node.volume:
        steps.append(Step("remove_volume", node.entry.name, ("unwanted",), CACHE))
    return steps


def _reconcile(node: NodeObservation, wish: Wish) -> list[Step]:
    name, found = node.entry.name, node.found
    if found is None:
        if wish.state != "started":
            return []
        return [*_pull(node, wish), Step("create", name, ("missing",)), Step("start", name, ("created",))]
    steps = []
    running = found.status in RUNNING
    if node.aside:
        # Its re-creation was interrupted; it is what the builder has, so it is put back and then looked at.
        steps.append(Step("restore", name, ("left over",)))
    elif node.previous:
        steps.append(Step("discard", name, ("left over",)))
    if wish.state == "stopped" and running:
        steps.append(Step("stop", name, (found.status,), BUILDS))
        running = False
    return steps + _repair(node, found, wish, running)


def _repair(node: NodeObservation, found: NodeState, wish: Wish, running: bool) -> list[Step]:
    name = node.entry.name
    drift = container.differences(node.wanted, found.spec) if wish.repair else {}
    if node.newer:
        drift["image_id"] = container.RECREATE
    if found.status in UNUSABLE:
        drift[found.status] = container.RECREATE
    ways = set(drift.values())
    if container.RECREATE in ways:
        # Starting it is part of the step: only when the new one answers is the old one given up.
        return [*_pull(node, wish), Step("recreate", name, tuple(drift), BUILDS if running else NONE)]
    steps = []
    if container.UPDATE in ways:
        steps.append(Step("update", name, _of(drift, container.UPDATE)))
    if container.CONFIGURE in ways:
        steps.append(Step("configure", name, _of(drift, container.CONFIGURE)))
        if running:
            return [*steps, Step("restart", name, _of(drift, container.CONFIGURE), BUILDS)]
    if wish.state == "started" and found.status == "paused":
        steps.append(Step("unpause", name, ("paused",)))
    elif wish.state == "started" and not running:
        steps.append(Step("start", name, (found.status,)))
    return steps


def runs_afterwards(wish: Wish, node: NodeObservation) -> bool:
    """Whether the node's container is to run when the plan has been applied."""
    return wish.state == "started" or (
        wish.state == "present" and node.found is not None and node.found.status in RUNNING
    )


def _of(drift: dict[str, str], way: str) -> tuple[str, ...]:
    return tuple(attribute for attribute, repair in drift.items() if repair == way)


def _pull(node: NodeObservation, wish: Wish) -> list[Step]:
    """The pull before a container is made (DESIGN §5 `pull`)."""
    if wish.pull == "never" or (wish.pull == "missing" and node.has_image):
        if not node.has_image:
            raise BuilderError(
                f"the engine has no image {node.wanted.image} for the node {node.entry.name}, and pull is never",
                hint="Load it there, or allow the pull.",
            )
        return []
    return [Step("pull", node.entry.name, ("newer image" if node.newer else "container is made",))]


def entry_differences(stored: Optional[Instance], desired: Optional[Instance]) -> tuple[str, ...]:
    """The words of the store's entry that differ."""
    if stored is None or desired is None:
        return ("missing",)
    words = {
        word
        for one, other in zip(stored.nodes, desired.nodes)
        for word in ("endpoint", "platforms", "driver_opts", "flags", "files")
        if getattr(one, word) != getattr(other, word)
    }
    return tuple(sorted(words)) or ("nodes",)
