# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""All builders of a task: which there are, and what is to be said of each (the body of buildx_info)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _probe as probing
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import listing
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Workers
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError, StoreError
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task
from ansible_collections.buildfleet.buildx.plugins.module_utils._tunnels import EngineDialer


def known(task: Task) -> list[str]:
    """Names of all builders: those of the store, then the docker contexts that none of them hides."""
    stored = task.store.names()
    return [*stored, *(name for name in task.contexts.names() if name not in stored)]


def unknown_builder(task: Task, name: str) -> BuilderError:
    """The error for a builder that does not exist; it names those that do."""
    return BuilderError(f'no builder "{name}" found', hint=f"There are: {', '.join(known(task))}.")


def _select(task: Task, names: Sequence[str]) -> list[str]:
    everything = known(task)
    for name in names:
        if name not in everything and name.lower() not in everything:
            raise unknown_builder(task, name)
    return [name if name in everything else name.lower() for name in names]


def current(task: Task, warn: Optional[Callable[[str], None]] = None) -> str:
    """Name of the builder that is used when none is named; "" when the selection cannot be read.

    The CLI then does nothing at all; a listing is what somebody looks at who wants to know what is wrong.
    """
    try:
        return task.current_builder()
    except StoreError as exc:
        if warn is not None:
            warn(f"{exc}. {exc.hint or ''}".rstrip())
        return ""


def rows(task: Task, names: Optional[Sequence[str]]) -> list[dict[str, Any]]:
    """The rows of builders, of all of them for None. Raises BuilderError for a name that does not exist.

    In the order of `docker buildx ls`: those of the store by their names as they were typed, then the contexts, and
    what failed as a whole last.
    """
    selected = current(task).lower()
    wanted = known(task) if names is None else _select(task, names)
    found = [(name, _row(task, name, current=name.lower() == selected)) for name in wanted]
    if names is None:
        stored = task.store.names()
        found.sort(key=lambda pair: (pair[0] not in stored, pair[1]["Name"]))
    return sorted((row for _name, row in found), key=lambda row: "Err" in row)


def _row(task: Task, name: str, *, current: bool) -> dict[str, Any]:
    try:
        instance = task.store.load(name) if name in task.store.names() else None
        activity = task.store.last_activity(instance.name if instance else name)
    except BuildxError as exc:
        return listing.broken_row(name, exc)
    if instance is None:
        return listing.context_row(
            name, current=current, last_activity=activity, workers=lambda: _engine_workers(task, name)
        )
    return listing.builder_row(
        instance,
        current=current,
        last_activity=activity,
        engine=task.engine,
        probe=probing.probe,
        remote=lambda node: _remote_workers(task, instance, node),
    )


def _remote_workers(task: Task, instance: Instance, node: NodeEntry) -> Workers:
    from ansible_collections.buildfleet.buildx.plugins.module_utils import _remote as remotes

    return probing.ask_workers(remotes.dialer(task, instance.name, node), listing.PROBE_SECONDS)


def _engine_workers(task: Task, context: str) -> Workers:
    engine = task.engine(context)
    engine.ask("ask the engine for its version", "GET", "/version", newest=True)
    return probing.ask_workers(EngineDialer(engine), listing.PROBE_SECONDS)
