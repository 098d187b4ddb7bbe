# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Exports of the BuildKit inside an engine: which of them it has depends on the engine's image store (wire §13.5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .exports import MOBY, Export, Load, Surroundings
from .outputs import IMAGE, NAMED, Output

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine


def planned(outputs: Sequence[Output], names: Sequence[str], around: Surroundings) -> list[Export]:
    """The exports of a build. Raises ConfigError, in the CLI's words, for what this engine cannot do."""
    engine = around.engine("")
    by_manifest = images.has_containerd_store(engine.info())
    exports: list[Export] = []
    for output in outputs:
        if output.type in NAMED and output.dest and not by_manifest:
            raise ConfigError(
                f"{output.type} exporter is not supported for the docker driver",
                hint="Use a builder with another driver, or turn on the engine's containerd image store.",
            )
        if output.dest:
            from . import files

            exports.append(files.export(output, output.named(names), around.protected))
    kept = [output for output in outputs if not output.dest]
    return [*exports, *_image(kept, names, engine, around, by_manifest=by_manifest)]


def _image(
    outputs: Sequence[Output], names: Sequence[str], engine: Engine, around: Surroundings, *, by_manifest: bool
) -> list[Export]:
    """One export for all that is to be an image: whatever this BuildKit makes is in its engine already."""
    if not outputs:
        return []
    if any(output.context for output in outputs):
        raise ConfigError("context cannot name another engine: the BuildKit inside an engine leaves its image there")
    if not by_manifest and around.platforms > 1:
        raise ConfigError(
            "the engine's classic image store takes one platform",
            hint="Name one platform, or turn on the engine's containerd image store.",
        )
    attrs: dict[str, str] = {}
    for output in outputs:
        attrs.update(output.attrs)
    own = [name for output in outputs for name in output.names]
    wanted = list(dict.fromkeys(own or names))
    if any(output.type == IMAGE and output.pushes for output in outputs):
        from .push import EnginePush

        return [EnginePush(attrs, engine, wanted, around, by_manifest=by_manifest)]
    step = partial(around.step, "importing to docker")
    return [Load(MOBY, attrs, engine, wanted, by_manifest=by_manifest, step=step)]
