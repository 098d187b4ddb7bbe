# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""All builders of a task: which there are, and what is to be said of each (the body of buildx_info)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _probe as probing
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import listing
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Workers
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task
from ansible_collections.buildfleet.buildx.plugins.module_utils._tunnels import EngineDialer


def known(task: Task) -> list[str]:
    """Names of all builders: those of the store, then the docker contexts that none of them hides."""
    stored = task.store.names()
    return [*stored, *(name for name in task.contexts.names() if name not in stored)]


def unknown_builder(task: Task, name: str) -> BuilderError:
    """The error for a builder that does not exist; it names those that do."""
    return BuilderError(f'no builder "{name}" found', hint=f"There are: {', '.join(known(task))}.")


def select(task: Task, names: Optional[Sequence[str]]) -> list[str]:
    """The builders asked for, all of them for None. Raises BuilderError for one that does not exist."""
    everything = known(task)
    if names is None:
        return everything
    for name in names:
        if name not in everything and name.lower() not in everything:
            raise unknown_builder(task, name)
    return [name if name in everything else name.lower() for name in names]


def rows(task: Task, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of builders in the order of `docker buildx ls`: what failed as a whole comes last."""
    current = task.current_builder().lower()
    found = [_row(task, name, current=name.lower() == current) for name in names]
    return sorted(found, key=lambda row: "Err" in row)


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
        instance, current=current, last_activity=activity, engine=task.engine, probe=probing.probe
    )


def _engine_workers(task: Task, context: str) -> Workers:
    engine = task.engine(context)
    with engine.errors("ask the engine for its version"):
        engine.api.version(api_version=False)
    return probing.ask_workers(EngineDialer(engine), listing.PROBE_SECONDS)
