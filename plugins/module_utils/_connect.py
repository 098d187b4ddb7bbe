# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Composition: a node, its engine, a way to its daemon (DESIGN §3). The engine and BuildKit meet only here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import Dialer, UnixDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import direct

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine


class DirectDialer(UnixDialer):
    """The daemon's own socket through the root of its container, which is held open."""

    def __init__(self, directory: int) -> None:
        super().__init__(direct.socket_path(directory))
        self._directory: Optional[int] = directory

    def close(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None


def container_dialer(engine: Engine, inspect: Mapping[str, Any]) -> Dialer:
    """The nearest way to the daemon in a running container: its own socket if that is proven to be its, else exec."""
    directory = direct.open_directory(inspect)
    if directory is not None:
        return DirectDialer(directory)
    from ansible_collections.buildfleet.buildx.plugins.module_utils._tunnels import ExecDialer

    return ExecDialer(engine, inspect["Id"])
