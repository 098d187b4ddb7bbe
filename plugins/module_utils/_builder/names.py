# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Names of builders, nodes, containers and volumes, as the CLI gives them (buildx.md §1.5, §2.5, §3.1)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

CONTAINER_PREFIX = "buildx_buildkit_"
RESERVED = "default"  # the implicit builder of the current docker context

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]*")


def normalize(name: str) -> str:
    """The stored form of the name of a builder or a node: lower case, which is also its file's name (§1.5).

    Raises ConfigError for a name that the CLI refuses.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"invalid name {name}, name needs to start with a letter and may not contain symbols, except ._-"
        )
    return name.lower()


def normalize_builder(name: str) -> str:
    """As normalize(), for a builder that is to be stored: `default`, in any case, belongs to the CLI (§1.5).

    The CLI reserves only the lower-case word, and then lists two builders called default.
    """
    normalized = normalize(name)
    if normalized == RESERVED:
        raise ConfigError("default is a reserved name and cannot be used to identify builder instance")
    return normalized


def container_name(node: str) -> str:
    """The container of a node: named after the node, not after the builder (§3.1)."""
    return CONTAINER_PREFIX + node


def volume_name(node: str) -> str:
    """The state volume of a node (§3.1)."""
    return container_name(node) + "_state"


def node_name(container: str) -> Optional[str]:
    """The node that a container of this name belongs to, None when it is no builder's container (§3.1)."""
    node = container[len(CONTAINER_PREFIX) :]
    return node if container.startswith(CONTAINER_PREFIX) and _NAME.fullmatch(node) else None


def next_node_name(builder: str, taken: Container[str]) -> str:
    """The first free `<builder><i>`; the number of a node that left is used again (§2.5)."""
    stem = normalize(builder)
    return next(name for name in (f"{stem}{i}" for i in itertools.count()) if name not in taken)
