# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Asking a daemon what it is: its version, its workers, their platforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Probe, Workers
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import Dialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._connect import container_dialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine


def probe(engine: Engine) -> Probe:
    """A workers.Probe for the containers of an engine."""

    def ask(inspect: Mapping[str, Any], seconds: float) -> Workers:
        return ask_workers(container_dialer(engine, inspect), seconds)

    return ask


def ask_workers(dialer: Dialer, seconds: float) -> Workers:
    """What the daemon behind a dialer says of itself. Closes the dialer. Raises BuildkitError."""
    try:
        with Client(dialer) as client:
            records = client.workers(seconds)
            version = client.version(seconds)
    finally:
        dialer.close()
    return _workers(records, version)


def _workers(records: list[Any], version: str) -> Workers:
    first = records[0] if records else None
    found = (
        platforms.Platform(
            os=item.OS,
            architecture=item.Architecture,
            variant=item.Variant,
            os_version=item.OSVersion,
            os_features=tuple(item.OSFeatures),
        )
        for record in records
        for item in record.platforms
    )
    return Workers(
        version=version,
        ids=sorted(record.ID for record in records),
        platforms=[platforms.format(item) for item in platforms.unique(found)],
        gc_policy=[_rule(rule) for rule in first.GCPolicy] if first else [],
        labels=dict(first.Labels) if first else {},
    )


def _rule(rule: Any) -> dict[str, Any]:
    """A rule of garbage collection with the keys of `ls --format json` (buildx §4.1)."""
    return {
        "all": rule.all,
        "filter": list(rule.filters) or None,
        "keepDuration": rule.keepDuration,
        "reservedSpace": rule.reservedSpace,
        "maxUsedSpace": rule.maxUsedSpace,
        "minFreeSpace": rule.minFreeSpace,
    }
