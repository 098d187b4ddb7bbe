# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Composition: a node, its engine, a way to its daemon (DESIGN §3). The engine and BuildKit meet only here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Workers
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import Dialer, UnixDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import direct

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.exec_stream import ExecStream


class DirectDialer(UnixDialer):
    """The daemon's own socket through the root of its container, which is held open."""

    def __init__(self, directory: int) -> None:
        super().__init__(direct.socket_path(directory))
        self._directory: Optional[int] = directory

    def close(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None


class ExecDialer:
    """`buildctl dial-stdio` in the container, through the engine."""

    authority = "localhost"

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container
        self._last: Optional[ExecStream] = None

    def dial(self) -> socket.socket:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import exec_stream

        self._last = exec_stream.open_stream(self._engine, self._container, ["buildctl", "dial-stdio"])
        return self._last.socket

    def target(self) -> Optional[str]:
        return None

    def explain(self) -> str:
        return self._last.said if self._last else ""

    def close(self) -> None:
        """Nothing is held."""


class EngineDialer:
    """The BuildKit inside an engine, behind its `/grpc` (wire §13.4)."""

    authority = "localhost"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def dial(self) -> socket.socket:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import raw

        stream = raw.open_socket(self._engine.target)
        try:
            raw.upgrade(stream, "/grpc", "h2c")
        except BaseException:
            stream.close()
            raise
        return stream

    def target(self) -> Optional[str]:
        return None

    def explain(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


def container_dialer(engine: Engine, inspect: Mapping[str, Any]) -> Dialer:
    """The nearest way to the daemon in a running container: its own socket if that is proven to be its, else exec."""
    directory = direct.open_directory(inspect)
    if directory is not None:
        return DirectDialer(directory)
    return ExecDialer(engine, inspect["Id"])


def probe(engine: Engine) -> Any:
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
        platforms=[platforms.format(item) for item in platforms.unique(platforms.normalize(item) for item in found)],
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
