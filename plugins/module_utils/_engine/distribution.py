# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.
"""Images and registries, through the engine: it pushes, and says what a registry has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .client import Engine

ABSENT = ("manifest unknown", "name unknown", "not found")
QUIET_SECONDS = 600
"""How long an engine may say nothing while it pushes a layer."""


def digest(engine: Engine, name: str, login: Mapping[str, str]) -> Optional[str]:
    """The digest that the image's registry has under its name, None: it has nothing there.

    login: as the engine's API takes it, {}: nobody. Raises EngineError when the registry cannot be asked.
    """
    try:
        with engine.errors(f"ask the registry for {name}"):
            found = engine.api.inspect_distribution(name, auth_config=dict(login))
    except EngineError as exc:
        if exc.details.get("status") == 404 or any(words in str(exc) for words in ABSENT):
            return None
        raise
    return str(found["Descriptor"]["digest"])


def push(engine: Engine, name: str, login: Mapping[str, str], log: Callable[[str], None]) -> None:
    """Push an image under its name. log: takes what the engine says of it.

    Raises EngineError with the registry's or the engine's words, which come inside an answer of status 200.
    """
    docker = require("docker")
    repository, tag = docker.utils.parse_repository_tag(name)
    with Engine(engine.target._replace(timeout=QUIET_SECONDS)) as patient, patient.errors(f"push {name}"):
        for line in patient.api.push(repository, tag=tag, stream=True, decode=True, auth_config=dict(login)):
            if "error" in line:
                raise EngineError(f"could not push {name}: {line['error']}", hint=_hint(str(line["error"])))
            if "progress" not in line and line.get("status"):
                log(f"{line['id']}: {line['status']}" if line.get("id") else line["status"])


def _hint(words: str) -> Optional[str]:
    if re.search("unauthorized|denied|no basic auth credentials|authorization failed", words):
        return "The registry refused: check the name of the image and the credentials of the user that runs the build."
    return None
