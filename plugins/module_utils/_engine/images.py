# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Images of an engine: what is there, what its registry has, pulling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Optional
from urllib.parse import quote, urlencode

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .client import Engine

DANGLING = "moby-dangling"
"""The containerd store's name for images without one, followed by `@` and the digest."""


def inspect(engine: Engine, name: str) -> Optional[dict[str, Any]]:
    """What the engine knows of an image, by name or id; None when it has none."""
    return engine.look(f"inspect the image {name}", f"/images/{quote(name, safe='/:@')}/json")


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


def complete(engine: Engine, name: str) -> Optional[str]:
    """The id of the image under a name, None when the engine has none or only parts: for the containerd store.

    Only a list says so (load.md): older engines leave out what is not whole, newer ones tell, but not in the versions
    of the API that the older ones have. Listed is nothing but the one name: a list of all takes seconds.
    """
    wanted = urlencode({"manifests": "1", "filters": json.dumps({"reference": [name]})})
    for row in engine.ask(f"look for the image {name}", "GET", f"/images/json?{wanted}", newest=True):
        if all(manifest.get("Available", True) for manifest in row.get("Manifests") or ()):
            return str(row["Id"])
    return None


def tag(engine: Engine, image: str, name: str) -> None:
    """Give an image another name, which may be that of another one."""
    repository, _colon, word = name.rpartition(":")
    with engine.errors(f"tag {name}"):
        engine.api.tag(image, repository, word)


def untag(engine: Engine, name: str) -> None:
    """Take a name away; the image goes when it has no other one."""
    with engine.errors(f"remove the name {name}"):
        engine.api.remove_image(name, noprune=True)


def load(engine: Engine, chunks: Iterable[bytes]) -> None:
    """Send a tar of images. Raises EngineError with the engine's words.

    An engine reports what went wrong inside an answer of status 200, and the containerd store even as
    plain progress (load.md): both count as failures here.
    """
    with engine.errors("load the image into the engine"):
        for line in engine.api.load_image(chunks):
            words = line.get("error") or ""
            if "Error unpacking image" in line.get("stream", ""):
                words = line["stream"].strip()
            if words:
                raise EngineError(f"the engine could not load the image: {words}")


def has_containerd_store(info: Mapping[str, Any]) -> bool:
    """Whether an engine keeps its images in containerd (load.md, Algorithm 1)."""
    pairs = info.get("DriverStatus") or []
    return ["driver-type", "io.containerd.snapshotter.v1"] in [list(pair) for pair in pairs]


def has_digest(image: dict[str, Any], digest: str) -> bool:
    """Whether a local image is what a registry has under this digest."""
    return any(str(known).endswith("@" + digest) for known in image.get("RepoDigests") or [])
