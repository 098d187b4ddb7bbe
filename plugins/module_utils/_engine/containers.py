# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Containers and volumes of an engine. None means certainly absent; could not ask is an EngineError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import quote

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .client import Engine

STOP_SECONDS = 10
"""How long the engine waits before it kills, the engine's own default."""


def inspect(engine: Engine, name: str) -> Optional[dict[str, Any]]:
    """What the engine knows of a container, None when there is none."""
    return engine.look(f"inspect the container {name}", f"/containers/{quote(name, safe='')}/json")


def create(engine: Engine, name: str, body: Mapping[str, Any]) -> None:
    """Create a container from the body of the API's call."""
    with engine.errors(f"create the container {name}"):
        engine.api.create_container_from_config(dict(body), name)


def start(engine: Engine, name: str) -> None:
    with engine.errors(f"start the container {name}"):
        engine.api.start(name)


def stop(engine: Engine, name: str) -> None:
    # The API's answer comes when the container has stopped, which may take the whole grace period.
    with engine.errors(f"stop the container {name}"):
        engine.api.stop(name, timeout=STOP_SECONDS)


def restart(engine: Engine, name: str) -> None:
    with engine.errors(f"restart the container {name}"):
        engine.api.restart(name, timeout=STOP_SECONDS)


def unpause(engine: Engine, name: str) -> None:
    with engine.errors(f"unpause the container {name}"):
        engine.api.unpause(name)


def rename(engine: Engine, name: str, new_name: str) -> None:
    with engine.errors(f"rename the container {name}"):
        engine.api.rename(name, new_name)


def update(engine: Engine, name: str, limits: Mapping[str, Any]) -> None:
    """Change limits of a container in place; keys are those of docker-py's update_container."""
    with engine.errors(f"change the limits of the container {name}"):
        engine.api.update_container(name, **limits)


def remove(engine: Engine, name: str) -> None:
    """Remove a container, running or not, with its anonymous volumes. One that is gone already is fine."""
    _gone(engine, f"remove the container {name}", lambda: engine.api.remove_container(name, v=True, force=True))


def logs(engine: Engine, name: str, lines: int = 50) -> list[str]:
    """The last lines that a container printed, [] when they cannot be had: they only explain another failure.

    Its errors, where it has any: a daemon that refuses a flag prints 60 lines of help on the other channel, and
    the one line that says why could be anywhere among them. (The engine counts `tail` before it chooses the channel.)
    """
    try:
        with engine.errors(f"read the log of {name}"):
            text: bytes = engine.api.logs(name, stdout=False, stderr=True, tail=10 * lines)
            if not text.strip():
                text = engine.api.logs(name, stdout=True, stderr=True, tail=lines)
    except EngineError:
        return []
    return text.decode("utf-8", "replace").splitlines()[-lines:]


def inspect_volume(engine: Engine, name: str) -> Optional[dict[str, Any]]:
    """What the engine knows of a volume, None when there is none."""
    return engine.look(f"inspect the volume {name}", f"/volumes/{quote(name, safe='')}")


def remove_volume(engine: Engine, name: str) -> None:
    _gone(engine, f"remove the volume {name}", lambda: engine.api.remove_volume(name))


def _gone(engine: Engine, what: str, act: Any) -> None:
    try:
        with engine.errors(what):
            act()
    except EngineError as exc:
        if exc.details.get("status") != 404:
            raise
