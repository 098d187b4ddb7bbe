# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Builders as rows: objects with the keys of `docker buildx ls --format json` (buildx §4.1).

What the CLI shows in clear is masked here: files are name and digest, and values that smell of secrets are stars.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms
from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import MissingLibrary
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, ConfigError

from .instance import DOCKER_CONTAINER, REMOTE, Instance, NodeEntry
from .masking import masked_options
from .names import container_name
from .workers import Probe, Workers, status

PROBE_SECONDS = 20.0
NEVER = "0001-01-01T00:00:00Z"
"""What Go prints for a time that was never set."""

EngineOf = Callable[[str], Engine]
ProbeOf = Callable[[Engine], Probe]
RemoteOf = Callable[[NodeEntry], Workers]
"""Asks the daemon of a remote node. Raises ConfigError for a wrong entry, another BuildxError without an answer."""


def builder_row(
    instance: Instance,
    *,
    current: bool,
    last_activity: Optional[str],
    engine: EngineOf,
    probe: ProbeOf,
    remote: RemoteOf,
) -> dict[str, Any]:
    """The row of a builder of the store. An engine or daemon that does not answer is an `Err` in its node.

    A remote daemon that does not is only inactive, as `ls` has it.
    """
    return {
        "Name": instance.name,
        "Driver": instance.driver,
        "Dynamic": instance.dynamic,
        "Current": current,
        "LastActivity": last_activity or NEVER,
        "Nodes": [_node(node, instance.driver, engine, probe, remote) for node in instance.nodes],
    }


def _node(node: NodeEntry, driver: str, engine: EngineOf, probe: ProbeOf, remote: RemoteOf) -> dict[str, Any]:
    row = described(node)
    try:
        if driver == REMOTE:
            return {**row, **_remote(node, remote)}
        if driver != DOCKER_CONTAINER:
            raise BuildxError(f"the driver {driver} is not managed by this collection; the entry is left as it is")
        reached = engine(node.endpoint)
        inspect = containers.inspect(reached, container_name(node.name))
        row["Status"] = status(inspect)
        if inspect is not None and row["Status"] == "running":
            _refuse_silent(inspect)
            row.update(running(probe(reached)(inspect, PROBE_SECONDS), node))
    except MissingLibrary:
        raise  # nothing is wrong with the node
    except BuildxError as exc:
        row.update(Status="error", Err=str(exc))
    return row


def _remote(node: NodeEntry, remote: RemoteOf) -> dict[str, Any]:
    try:
        return running(remote(node), node)
    except (ConfigError, MissingLibrary):
        raise
    except BuildxError:
        return {"Status": "inactive"}


def _refuse_silent(inspect: Mapping[str, Any]) -> None:
    """A daemon that cannot answer is not asked: a paused one would keep the whole listing waiting."""
    for state, advice in (("Paused", "unpause it"), ("Restarting", "its daemon ends again and again")):
        if inspect["State"].get(state):
            raise BuildxError(f"the container {inspect['Name'].lstrip('/')} is {state.lower()}: {advice}")


def described(node: NodeEntry) -> dict[str, Any]:
    """What the store says of a node, without what is empty."""
    row = {
        "Name": node.name,
        "Endpoint": node.endpoint,
        "Flags": list(node.flags or ()),
        "DriverOpts": masked_options(node.driver_opts),
        "Files": {path: f"sha256:{hashlib.sha256(node.files[path]).hexdigest()}" for path in sorted(node.files)},
        "Platforms": [platforms.format(item) for item in fixed_platforms(node)],
    }
    return {key: value for key, value in row.items() if value or key in ("Name", "Endpoint")}


def fixed_platforms(node: NodeEntry) -> list[platforms.Platform]:
    return platforms.unique(platforms.from_json(item) for item in node.platforms or ())


def running(workers: Workers, node: Optional[NodeEntry] = None) -> dict[str, Any]:
    """What the daemon says of itself, as keys of a node's row."""
    fixed = [platforms.format(item) for item in fixed_platforms(node)] if node else []
    found = {
        "Status": "running",
        "Version": workers.version,
        "IDs": list(workers.ids),
        "Platforms": [*fixed, *(item for item in workers.platforms if item not in fixed)],
        "GCPolicy": list(workers.gc_policy),
        "Labels": dict(workers.labels),
    }
    return {key: value for key, value in found.items() if value}


def context_row(
    name: str, *, current: bool, last_activity: Optional[str], workers: Callable[[], Workers]
) -> dict[str, Any]:
    """The row of a docker context, whose builder is the BuildKit inside its engine."""
    try:
        nodes, trouble = [{"Name": name, "Endpoint": name, **running(workers())}], {}
        driver = "docker"
    except MissingLibrary:
        raise
    except BuildxError as exc:
        # As `ls`: without an answer not even the driver is known.
        nodes, trouble, driver = [{"Name": "", "Endpoint": ""}], {"Err": str(exc)}, ""
    return {
        "Name": name,
        "Driver": driver,
        "Dynamic": False,
        "Current": current,
        "LastActivity": last_activity or NEVER,
        "Nodes": nodes,
        **trouble,
    }


def broken_row(name: str, error: BuildxError) -> dict[str, Any]:
    """The row of a builder whose entry cannot be read."""
    return {
        "Name": name,
        "Driver": "",
        "Dynamic": False,
        "Current": False,
        "LastActivity": NEVER,
        "Nodes": [],
        "Err": str(error),
    }
