# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Exports: each result of a build as an exporter of the request, as what receives it, and as what it came to.

An export looks at its place before the build and after it, and so knows whether the result is another one than before
(DESIGN §4.8). What only some results need stands in files of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, ConfigError

from .outputs import IMAGE, Output

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.blobs import Blobs
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallFactory
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.vertex import LocalVertex
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine

    from .load import Loaded, LoadSink, Step
    from .push import Registries

MOBY = "moby"
"""The exporter of the BuildKit inside an engine: what it makes is the engine's."""


class Export:
    """One exporter of a request. kind, attrs: as the daemon takes them."""

    def __init__(self, kind: str, attrs: Mapping[str, str]) -> None:
        self.kind = kind
        self.attrs = dict(attrs)

    def look(self) -> None:
        """See what is there before the build."""

    def receiver(self, client: Client) -> Optional[CallFactory]:
        """What takes the result when the daemon sends it; None: it sends none. client: of that daemon."""
        del client
        return None

    def stores(self) -> Mapping[str, Blobs]:
        """Content stores that the exporter writes to through the session, by their ids (wire §3.11)."""
        return {}

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        """See to it that the result is where it should be: whether it is another one than before, None: who knows.

        response: the exporters' (wire §7). Raises BuildxError when it is not there.
        """
        del response
        return None

    def close(self) -> None:
        """Let go of what it holds, however the build ended."""


class Load(Export):
    """An image that goes into an engine, or that the BuildKit inside an engine leaves there.

    names: of the image; without one it can be neither found nor compared. image: the engine's inspect of the first
    name. loaded: how it came there, when a daemon sent it. by_manifest: the engine's containerd store calls an image
    by its manifest, a classic one by its configuration.
    """

    def __init__(
        self,
        kind: str,
        attrs: Mapping[str, str],
        engine: Engine,
        names: Sequence[str],
        *,
        by_manifest: bool,
        step: Callable[[], Step],
    ) -> None:
        super().__init__(kind, {**attrs, "name": ",".join(names)} if names else attrs)
        self._engine = engine
        self._names = names
        self._by_manifest = by_manifest
        self._step = step
        self._before: dict[str, Optional[dict[str, Any]]] = {}
        self.image: Optional[dict[str, Any]] = None
        self._sink: Optional[LoadSink] = None

    @property
    def loaded(self) -> Optional[Loaded]:
        return self._sink.loaded if self._sink else None

    def look(self) -> None:
        self._before = {name: images.inspect(self._engine, name) for name in self._names}

    def receiver(self, client: Client) -> Optional[CallFactory]:
        if self.kind == MOBY:
            return None
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import streamed

        from .load import LoadSink

        self._sink = LoadSink(self._engine, client, self._step, containerd=self._by_manifest)
        return streamed(self._sink)

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        digest, config = response.get("containerimage.digest"), response.get("containerimage.config.digest")
        wanted = digest if self._by_manifest else config or digest
        after = {name: _verified(images.inspect(self._engine, name), name, wanted) for name in self._names}
        self.image = next(iter(after.values()), None)
        return any(_identity(after[name]) != _identity(self._before[name]) for name in after) if after else None


def _identity(image: Optional[Mapping[str, Any]]) -> Optional[str]:
    return image["Id"] if image else None


def _verified(image: Optional[dict[str, Any]], name: str, wanted: Optional[str]) -> dict[str, Any]:
    """The image under its name: nothing counts as loaded until the engine has it there."""
    if image is None or (wanted and image["Id"] != wanted):
        found = image["Id"] if image else "nothing"
        raise BuildxError(
            f"the engine said that it loaded {name}, but has {found} under that name instead of {wanted}",
            hint="Something else loads or removes the same name; run the task again.",
        )
    return image


class Surroundings(Protocol):
    """What exports need to know of the build.

    inside: the builder is the BuildKit of the task's engine. platforms: how many are built for. protected: directories
    that no result may be the death of.
    """

    inside: bool
    platforms: int
    protected: Sequence[str]

    @property
    def registries(self) -> Registries:
        """Those of the names that are pushed."""

    def warn(self, text: str) -> None:
        """Tell the user something that is no failure."""

    def engine(self, context: str) -> Engine:
        """The engine of a docker context, of the task for ""."""

    def step(self, name: str) -> LocalVertex:
        """Show a step of this side."""


def planned(outputs: Sequence[Output], names: Sequence[str], around: Surroundings) -> list[Export]:
    """The exports of a build, in the order of the request's exporters. Raises ConfigError for what cannot be had."""
    if around.inside:
        from . import engine_exports

        return engine_exports.planned(outputs, names, around)
    return [_outside(output, names, around) for output in outputs]


def _outside(output: Output, names: Sequence[str], around: Surroundings) -> Export:
    """An output of a builder in a container, or of a remote one."""
    if output.loads:
        return _load(output, output.names or names, around)
    if output.dest:
        from . import files

        return files.export(output, output.named(names), around.protected)
    if output.type == IMAGE and output.pushes:
        from .push import Push

        return Push(output.named(names), output.names or names, around)
    return Export(output.type, output.named(names))


def _load(output: Output, names: Sequence[str], around: Surroundings) -> Export:
    """How an engine takes an image depends on its store (load.md, Algorithm 1)."""
    engine = around.engine(output.context)
    by_manifest = images.has_containerd_store(engine.info())
    if not by_manifest and around.platforms > 1:
        raise ConfigError(
            "docker exporter does not currently support exporting manifest lists: "
            "an engine without the containerd image store takes one platform",
            hint="Name one platform, or load: false.",
        )
    kind = "oci" if by_manifest else "docker"
    step = partial(around.step, "importing to docker")
    return Load(kind, output.attrs, engine, names, by_manifest=by_manifest, step=step)
