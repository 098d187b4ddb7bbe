# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A program of an image, run once for what it prints: without network, volume or privileges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import containers
from .client import Engine

RUN_SECONDS = 30
"""How long a program may take that only prints."""
STATE = "/var/lib/buildkit"
"""BuildKit's images declare a volume there; a file system in memory stands in for it, so that none is made."""


def run(engine: Engine, name: str, image: str, command: Sequence[str]) -> str:
    """What the program printed, on both channels, whatever its exit status.

    name: the container's while it runs; one of that name is what an interrupted run left, and goes. Raises EngineError,
    also when the image has no such program.
    """
    body: dict[str, Any] = {
        "Image": image,
        "Entrypoint": [command[0]],
        "Cmd": list(command[1:]),
        "NetworkDisabled": True,
        "HostConfig": {"NetworkMode": "none", "Tmpfs": {STATE: ""}, "CapDrop": ["ALL"]},
    }
    containers.remove(engine, name)
    containers.create(engine, name, body)
    try:
        containers.start(engine, name)
        with engine.errors(f"wait for {command[0]} of {image}"):
            engine.api.wait(name, timeout=RUN_SECONDS)
        with engine.errors(f"read what {command[0]} of {image} printed"):
            text: bytes = engine.api.logs(name, stdout=True, stderr=True)
    finally:
        containers.remove(engine, name)
    return text.decode("utf-8", "replace")
