# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Looking: the container, the volume and the images of a node as the engine has them, under its attributes' words."""

from __future__ import annotations

from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import archive, containers, images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine

from . import container
from .instance import NodeEntry
from .names import container_name, volume_name
from .plan import NodeObservation
from .spec import (
    CONFIG_DIRECTORY,
    ContainerSpec,
    EngineFacts,
    NodeState,
    digests,
    engine_facts,
    previous_name,
    wanted,
)


def observe(engine: Engine, entry: NodeEntry, *, pull: str, owner: Optional[str] = None) -> NodeObservation:
    """Everything that the plan needs to know of a node. Changes nothing. Raises EngineError."""
    facts = engine_facts(engine.info())
    wish = wanted(entry, facts)
    name = container_name(entry.name)
    previous = containers.inspect(engine, previous_name(entry.name)) is not None
    found = _read(engine, name, wish, facts)
    aside = found is None and previous
    if aside:
        found = _read(engine, previous_name(entry.name), wish, facts)
    image = images.inspect(engine, wish.image)
    return NodeObservation(
        entry=entry,
        wanted=wish,
        found=found,
        aside=aside,
        previous=previous and not aside,
        volume=containers.inspect_volume(engine, volume_name(entry.name)) is not None,
        has_image=image is not None,
        newer=pull == "always" and found is not None and _is_newer(engine, wish.image, found.image_id),
        owner=owner,
    )


def _read(engine: Engine, name: str, wish: ContainerSpec, facts: EngineFacts) -> Optional[NodeState]:
    inspect = containers.inspect(engine, name)
    if inspect is None:
        return None
    files = dict(digests(archive.read_tree(engine, name, CONFIG_DIRECTORY)))
    image = images.inspect(engine, inspect["Image"])
    return container.parse(inspect, image, files, wish, swap_limit=facts.swap_limit)


def _is_newer(engine: Engine, image: str, running: str) -> bool:
    """Whether the registry has another image under the name than the one that runs. Nothing is pulled."""
    runs = images.inspect(engine, running)
    return runs is None or not images.has_digest(runs, images.remote_digest(engine, image))
