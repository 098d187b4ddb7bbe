# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A plan as before and after: what diff mode shows. Rendered from the same values that the plan was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Optional

from .container import differences
from .instance import Instance
from .listing import described
from .masking import MASK, is_secret_name, masked_url
from .names import volume_name
from .plan import NodeObservation, Step, Wish, runs_afterwards
from .spec import ContainerSpec, previous_name


def difference(wish: Wish, steps: Sequence[Step]) -> dict[str, Any]:
    """`diff` of a result: the store's entry, and of each container what differs."""
    if not steps:
        return {"before": {}, "after": {}}
    before: dict[str, Any] = {"builder": _entry(wish.stored)}
    after: dict[str, Any] = {"builder": _entry(wish.desired)}
    if wish.select:
        before["current"], after["current"] = wish.selected, True
    for node in wish.nodes:
        before[node.entry.name], after[node.entry.name] = _container(wish, node)
    return {"before": before, "after": after}


def _entry(instance: Optional[Instance]) -> Optional[dict[str, Any]]:
    if instance is None:
        return None
    return {"name": instance.name, "driver": instance.driver, "nodes": [described(node) for node in instance.nodes]}


def _container(wish: Wish, node: NodeObservation) -> tuple[Any, Any]:
    aside = {"set_aside": previous_name(node.entry.name)} if node.previous or node.aside else {}
    if wish.state == "absent":
        volume = {"volume": volume_name(node.entry.name)} if node.volume else {}
        gone = node.owner is None
        found = {**({"status": node.found.status} if node.found else {}), **aside, **volume}
        return found or None, None if gone else found
    if node.found is None:
        wanted = {"status": "running", **_shown(node.wanted, None)} if wish.state == "started" else None
        return None, wanted
    drift = [*differences(node.wanted, node.found.spec)] if wish.repair else []
    status = "running" if runs_afterwards(wish, node) else "stopped" if wish.state == "stopped" else node.found.status
    before = {"status": node.found.status, **aside, **_shown(node.found.spec, drift)}
    after = {"status": status, **_shown(node.wanted, drift)}
    if node.newer:
        before["image_id"] = node.found.image_id
        after["image_id"] = f"what the registry has as {node.wanted.image}"
    return before, after


def _shown(spec: ContainerSpec, attributes: Optional[Sequence[str]]) -> dict[str, Any]:
    """Attributes of a container, secrets masked; all that have a value when None are named."""
    values = asdict(spec)
    values["env"] = {name: MASK if is_secret_name(name) else masked_url(value) for name, value in spec.env}
    values["files"] = {path: f"sha256:{digest}" for path, digest in spec.files}
    values["restart_policy"] = ":".join(str(part) for part in spec.restart_policy if part)
    values["command"] = list(spec.command)
    values["other_limits"] = dict(spec.other_limits)
    if attributes is None:
        return {name: value for name, value in values.items() if value}
    return {name: values[name] for name in attributes}
