# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""An image that an engine does not have: only what is missing is sent, and nothing counts until it is verified.

What each store does with an image that lacks layers, and which of its answers are no proof, is in load.md. The daemon's
call must not be answered before the end: until then, and no longer, it keeps the layers.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content_read import ContentReader
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Metadata
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import (
    BuildkitError,
    ConfigError,
    EngineError,
    EngineUnreachable,
)

from . import image_content
from .image_content import ImageContent, Layer
from .image_tar import archive
from .load import PIPE, Loaded, Wish

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client

QUIET_SECONDS = 3600
"""An engine says nothing while it unpacks a large layer; the limit of other calls would cut it off."""
TEMPORARY = "buildx-load"
"""Repository of the names that an image has until it is known to be whole."""
_MISSING = re.compile(r"blobs/sha256/([0-9a-f]{64}): no such file")


class Source(Protocol):
    """The daemon's call."""

    def check(self) -> None:
        """Raises BuildxError when the daemon has given up."""

    def stream(self) -> Iterator[bytes]:
        """The whole image as the daemon sends it, for the one who cannot do better."""


class Transfer:
    """One image on its way into an engine that does not have it under all its names."""

    def __init__(self, wish: Wish, metadata: Metadata, client: Client, source: Source) -> None:
        self._wish, self._metadata, self._source = wish, metadata, source
        self._reader = ContentReader(client)
        self._engine = Engine(wish.engine.target._replace(timeout=QUIET_SECONDS))
        self._sent = 0

    def run(self, log: Callable[[str], None]) -> Loaded:
        """Raises EngineError with the engine's words when it does not take the image, ConfigError when it cannot."""
        try:
            if self._named_anew():
                log(f"the engine has the image under another name: {', '.join(self._wish.names)} added")
                return Loaded("tagged")
            try:
                image = image_content.read(self._reader, self._metadata)
                self._refuse_lists(image)
                send = self._into_containerd if self._wish.containerd else self._into_classic
                loaded = send(image)
            except BuildkitError as exc:
                log(f"the layers cannot be had one by one, so that all of the image is sent: {exc}")
                loaded = self._pipe()
            else:
                log(f"{loaded.layers} of {len(image.layers)} layers sent, {loaded.bytes} bytes in all")
            return loaded
        finally:
            self._engine.close()

    def _named_anew(self) -> bool:
        """Tag what is there under another name: only the classic store says by an id that it has all of an image."""
        wish = self._wish
        if wish.containerd or not wish.id or not wish.names or wish.held(wish.id) != wish.id:
            return False
        with contextlib.suppress(EngineError):  # it may be removed meanwhile: then it is sent
            for name in wish.unmet():
                images.tag(wish.engine, wish.id, name)
            return not wish.unmet()
        return False

    def _refuse_lists(self, image: ImageContent) -> None:
        if not self._wish.containerd and image.config is None:
            raise ConfigError(
                "docker exporter does not currently support exporting manifest lists: "
                "an engine without the containerd image store takes one platform, without attestations",
                hint="Name one platform and no attestations, or turn on the engine's containerd image store.",
            )

    # The classic store knows layers by the chain of their contents, whoever holds them.

    def _into_classic(self, image: ImageContent) -> Loaded:
        """Without any layer the engine takes the image, or names the lowest that it lacks."""
        whole, words = self._try(image, ())
        if whole:
            return Loaded("missing", self._sent, 0)
        lowest = _lowest_missing(words, image.layers)
        if lowest:
            lacking = image.layers[lowest:]
            if self._try(image, lacking)[0]:
                return Loaded("missing", self._sent, len(set(lacking)))
        return self._all(image)

    # The containerd store knows blobs, and does not tell which. It may say that it has loaded what it lacks.

    def _into_containerd(self, image: ImageContent) -> Loaded:
        """Leave out the layers whose contents are in the image under the same name, and see whether that was right."""
        known = self._known_contents()
        lacking = [layer for layer in image.layers if layer.diff_id not in known]
        if len(lacking) < len(image.layers) and self._wish.names and self._beside(image, lacking):
            return Loaded("missing", self._sent, len(set(lacking)))
        return self._all(image)

    def _known_contents(self) -> set[str]:
        """The diffIDs of the layers of what the engine has under the names, and of the image itself."""
        known = set[str]()
        for name in filter(None, (*self._wish.names, self._wish.id)):
            found = images.inspect(self._wish.engine, name)
            known.update(((found or {}).get("RootFS") or {}).get("Layers") or ())
        return known

    def _beside(self, image: ImageContent, layers: Sequence[Layer]) -> bool:
        """Under a throw-away name first: the store gives an image its name before it finds out that it is not whole."""
        name = f"{TEMPORARY}:{uuid.uuid4().hex}"
        try:
            whole = self._try(image, layers, (name,))[0]
            return whole and self._try(image, ())[0]
        finally:
            with contextlib.suppress(EngineError):
                images.untag(self._wish.engine, name)

    # Both.

    def _all(self, image: ImageContent) -> Loaded:
        for _time in range(2):  # what another process removes meanwhile is sent once more
            if self._attempt(image, image.layers, self._wish.names):
                return Loaded("all", self._sent, len(set(image.layers)))
        raise self._not_there()

    def _try(
        self, image: ImageContent, layers: Sequence[Layer], names: Optional[tuple[str, ...]] = None
    ) -> tuple[bool, str]:
        """An attempt that may fail: whether the image is there, and the engine's words when it did not take it."""
        try:
            return self._attempt(image, layers, self._wish.names if names is None else names), ""
        except EngineUnreachable:
            raise
        except EngineError as exc:
            return False, str(exc)

    def _attempt(self, image: ImageContent, layers: Sequence[Layer], names: tuple[str, ...]) -> bool:
        """Send an image with some of its layers; whether the engine then has the whole of it under the names."""
        images.load(self._engine, self._counted(archive(image, layers, names, self._reader.chunks)))
        return not self._wish._replace(names=names).unmet()

    def _pipe(self) -> Loaded:
        images.load(self._engine, self._counted(self._source.stream()))
        if self._wish.id and self._wish.unmet():
            raise self._not_there()
        return Loaded(PIPE, self._sent, None)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._source.check()
            yield chunk
            self._sent += len(chunk)

    def _not_there(self) -> EngineError:
        names = ", ".join(self._wish.unmet())
        return EngineError(
            f"the engine said that it loaded the image, but does not have the whole of it as {names}",
            hint="Something else loads or removes the same name; run the task again.",
        )


def _lowest_missing(words: str, layers: Sequence[Layer]) -> Optional[int]:
    """The index of the layer that the engine missed, from the words of its refusal; None when it is another one."""
    match = _MISSING.search(words)
    digests = [layer.digest for layer in layers]
    digest = f"sha256:{match[1]}" if match else ""
    return digests.index(digest) if digest in digests else None
