# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""One builder from what it is to what it should be (the body of buildx_builder): look, plan, apply, report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _fleet as fleet
from ansible_collections.buildfleet.buildx.plugins.module_utils import _probe as probing
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import desired as desires
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import names
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import options as node_options
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.diff import difference
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import (
    DOCKER_CONTAINER,
    Instance,
    NodeEntry,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.observe import observe
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.plan import (
    RUNNING,
    NodeObservation,
    Step,
    Wish,
    plan,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require_buildkit
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import (
    BuilderError,
    BuildxError,
    ConfigError,
    StoreError,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

BOOT_SECONDS = 60.0
"""How long a build waits for the daemon that it boots."""
BUSY_SECONDS = 600.0
"""How long another process may be busy with the same builder: a pull and a boot fit in."""


def ensure(task: Task, params: Mapping[str, Any], *, check_mode: bool, warn: Callable[[str], None]) -> dict[str, Any]:
    """Bring a builder to its state; in check mode say what would be done. The result of the module."""
    name = names.normalize_builder(params["name"])
    if params["wait_timeout"] <= 0:
        raise ConfigError("wait_timeout must be more than 0")
    if params["state"] == "started":
        # Told before a container is made that cannot be asked whether it is ready.
        require_buildkit()
    endpoint = task.contexts.endpoint(params["endpoint"]) if params["endpoint"] else None
    options = node_options.from_params(params, endpoint)
    with _reconciling(task, name, check_mode=check_mode):
        wish = _wish(task, name, options, params, warn)
        steps = plan(wish)
        if steps and wish.desired is not None:
            _precheck(task, wish, may_run=not check_mode, warn=warn)
        if not check_mode and (steps or wish.state == "started"):
            _apply(task, wish, steps, params)
        return {
            "changed": bool(steps),
            "steps": [step.to_result() for step in steps],
            "builder": _row(task, name),
            "diff": difference(wish, steps),
        }


def _wish(
    task: Task, name: str, options: node_options.NodeOptions, params: Mapping[str, Any], warn: Callable[[str], None]
) -> Wish:
    stored = task.store.load(name)
    if stored is None and name in task.contexts.names():
        raise ConfigError(f'instance name "{name}" already exists as context builder')
    if stored is not None and stored.driver != DOCKER_CONTAINER:
        raise BuilderError(
            f"the builder {name} has the driver {stored.driver or 'of a docker context'}, which is not managed here",
            hint="Use docker buildx for it.",
        )
    if params["state"] == "absent":
        return _unwanted(task, name, stored, endpoint=options.endpoint, force=params["force"], warn=warn)
    target = desires.desired(name, stored, options, task.contexts.key(), task.store.directory)
    return Wish(
        state=params["state"],
        stored=stored,
        desired=target,
        pull=params["pull"],
        select=params["use"],
        selected=_is_selected(task, name),
        nodes=tuple(_observe(task, name, node, params["pull"]) for node in target.nodes),
    )


def _is_selected(task: Task, name: str) -> bool:
    try:
        return (task.store.current(task.contexts.key()) or "").lower() == name
    except StoreError:
        return False  # what cannot be read selects nothing, and `use` writes it anew


def _observe(task: Task, builder: str, node: NodeEntry, pull: str) -> NodeObservation:
    return observe(task.engine(node.endpoint), node, pull=pull, owner=_owner(task, builder, node))


def _owner(task: Task, builder: str, node: NodeEntry) -> Optional[str]:
    """Another builder of the store whose node has the same container: both name it after the node alone."""
    for other in task.store.names():
        if other == builder.lower():
            continue
        with contextlib.suppress(BuildxError):  # a corrupt entry owns nothing that could be known
            instance = task.store.load(other)
            if instance and any((one.name, one.endpoint) == (node.name, node.endpoint) for one in instance.nodes):
                return instance.name
    return None


def _unwanted(
    task: Task,
    name: str,
    stored: Optional[Instance],
    *,
    endpoint: Optional[str],
    force: bool,
    warn: Callable[[str], None],
) -> Wish:
    """What there is to remove: the nodes of the entry, or without one the orphan of the first node (DESIGN §5)."""
    if stored is not None:
        nodes: Sequence[NodeEntry] = stored.nodes
    else:
        nodes = [NodeEntry(names.next_node_name(name, ()), endpoint or task.contexts.key())]
    found = tuple(_observe(task, name, node, "never") for node in nodes)
    for node in found:
        if node.owner:
            warn(f"the container of the node {node.entry.name} is left alone, the builder {node.owner} has it too")
        elif stored is None and not force and node.found and node.found.status in RUNNING:
            raise BuilderError(
                f"the builder {name} is unknown to the store {task.store.directory}, but its container "
                f"{names.container_name(node.entry.name)} runs; another user's store may own it",
                hint="Say force: true to remove it all the same.",
            )
    return Wish(state="absent", stored=stored, desired=None, nodes=found)


@contextlib.contextmanager
def _reconciling(task: Task, name: str, *, check_mode: bool) -> Iterator[None]:
    """One process at a time changes a builder; check mode changes nothing and waits for nobody."""
    if check_mode:
        yield
        return
    with task.store.reconciling(name, BUSY_SECONDS):
        yield


def _precheck(task: Task, wish: Wish, *, may_run: bool, warn: Callable[[str], None]) -> None:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import precheck

    endpoints = {node.entry.name: node.entry.endpoint for node in wish.nodes}
    precheck.require(wish, lambda node: task.engine(endpoints[node]), may_run=may_run, warn=warn)


def _apply(task: Task, wish: Wish, steps: Sequence[Step], params: Mapping[str, Any], log: Any = None) -> None:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.runner import Runner

    engines = {node.entry.name: task.engine(node.entry.endpoint) for node in wish.nodes}
    runner = Runner(
        wish,
        engines,
        task.store,
        probe=lambda node: probing.probe(engines[node]),
        wait_seconds=float(params["wait_timeout"]),
        key=task.contexts.key(),
        log=log,
    )
    runner.apply(steps)


def boot(task: Task, instance: Instance, node: NodeEntry, *, log: Any) -> list[dict[str, Any]]:
    """Bring a node up for a build, as the CLI does: created or started as it is, drift is left alone.

    log: a runner.Log. Returns the steps that were done.
    """
    with task.store.reconciling(instance.name.lower(), BUSY_SECONDS):
        observed = observe(task.engine(node.endpoint), node, pull="auto")
        wish = Wish(state="started", stored=instance, desired=instance, repair=False, nodes=(observed,))
        steps = plan(wish)
        _apply(task, wish, steps, {"wait_timeout": BOOT_SECONDS}, log)
        return [step.to_result() for step in steps]


def _row(task: Task, name: str) -> dict[str, Any]:
    return fleet.rows(task, [name])[0] if name in task.store.names() else {}
