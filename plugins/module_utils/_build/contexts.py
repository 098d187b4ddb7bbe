# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Named contexts that are directories.

Each is offered under a local name that holds the key of its directory, so that whatever a name means in this build
and in others, the daemon never takes one directory for another (directory_keys.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .directory_keys import directory_key

CAPABILITY = "moby.buildkit.frontend.contexts+forward"
"""For `frontend.caps`: a frontend that does not know named contexts must refuse the build (wire §5.5)."""


class NamedContexts(NamedTuple):
    """directories: local name → directory, for FileSync. attrs: what the frontend is told of them."""

    directories: Mapping[str, str]
    attrs: Mapping[str, str]


def named(contexts: Mapping[str, str]) -> NamedContexts:
    """Named contexts that are directories: name → directory. Raises ConfigError that names what cannot be used.

    A name is one of an image, and replaces that image in FROM and COPY --from (wire §5.5). The session's shared key
    is not concerned: each local name has the key of its directory in it.
    """
    directories: dict[str, str] = {}
    attrs: dict[str, str] = {}
    for given, directory in contexts.items():
        name = normalised(given)
        if f"context:{name}" in attrs:
            raise ConfigError(f"the build context {name} is named twice")
        path = os.path.realpath(directory)
        if not os.path.isdir(path):
            raise ConfigError(f"failed to get build context {given}: {directory} is not a directory of the target")
        if not os.access(path, os.R_OK | os.X_OK):
            raise ConfigError(f"failed to get build context {given}: {directory} cannot be read by this user")
        local = f"{name}-{directory_key(path)}"
        directories[local] = path
        attrs[f"context:{name}"] = f"local:{local}"
    if attrs:
        attrs["frontend.caps"] = CAPABILITY
    return NamedContexts(directories, attrs)


def normalised(name: str) -> str:
    """The name under which the frontend looks: familiar, without the tag `latest`."""
    from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference

    parsed = str(reference.parse(name, what="name of a build context"))
    return parsed[: -len(":latest")] if parsed.endswith(":latest") else parsed
