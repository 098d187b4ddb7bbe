# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Images of an engine: what is there, what its registry has, pulling."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .client import Engine


def inspect(engine: Engine, name: str) -> Optional[dict[str, Any]]:
    """What the engine knows of an image, by name or id; None when it has none."""
    try:
        with engine.errors(f"inspect the image {name}"):
            found: dict[str, Any] = engine.api.inspect_image(name)
    except EngineError as exc:
        if exc.details.get("status") == 404:
            return None
        raise
    return found


def pull(engine: Engine, name: str) -> None:
    """Pull an image. Raises EngineError with the registry's or the engine's words."""
    docker = require("docker")
    repository, tag = docker.utils.parse_repository_tag(name)
    with engine.errors(f"pull {name}"):
        for line in engine.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"could not pull {name}: {line['error']}")


def remote_digest(engine: Engine, name: str) -> str:
    """The digest that the image's registry has under its name now; nothing is pulled.

    The engine asks, with its mirrors, and with the credentials of docker's configuration.
    """
    with engine.errors(f"ask the registry for {name}"):
        found = engine.api.inspect_distribution(name)
    return str(found["Descriptor"]["digest"])


def has_digest(image: dict[str, Any], digest: str) -> bool:
    """Whether a local image is what a registry has under this digest."""
    return any(str(known).endswith("@" + digest) for known in image.get("RepoDigests") or [])
