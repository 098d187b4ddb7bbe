# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Pushes: an image goes to the registries of its names, by the daemon itself or by the engine that the daemon is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from .exports import MOBY, Export, Load

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine

    from .load import Step


class Push(Export):
    """An image that the daemon pushes. names: where to."""

    def __init__(self, attrs: Mapping[str, str], names: Sequence[str]) -> None:
        super().__init__("image", attrs)
        self._names = names


class EnginePush(Load):
    """An image that the BuildKit inside an engine made, and that the engine pushes afterwards."""

    def __init__(
        self,
        attrs: Mapping[str, str],
        engine: Engine,
        names: Sequence[str],
        *,
        by_manifest: bool,
        step: Callable[[], Step],
    ) -> None:
        kept = {key: value for key, value in attrs.items() if key != "push"}
        super().__init__(MOBY, kept, engine, names, by_manifest=by_manifest, step=step)

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        return super().finish(response)
