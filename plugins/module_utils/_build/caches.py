# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The caches of a build as the daemon is told of them, and the local ones as the stores that it uses (wire §5.6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.blobs import Blobs
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.oci_layout import Layout, store_name
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .cache_option import INLINE, LOCAL, Cache

MANIFEST = "cache.manifest"
"""Key of the exporters' response."""
Entry = tuple[str, dict[str, str]]
"""Type and attributes, as in CacheOptionsEntry."""


class Caches:
    """What a build imports and exports. warn: takes a sentence about what is passed over.

    Raises ConfigError for a local cache that cannot be read.
    """

    def __init__(self, imports: Sequence[Cache], exports: Sequence[Cache], warn: Callable[[str], None]) -> None:
        self._exports = exports
        self._warn = warn
        self._read: dict[str, Blobs] = {}
        self._written: dict[str, Blobs] = {}
        local = [cache.directory for cache in exports if cache.type == LOCAL]
        if len(local) > 1:
            raise ConfigError("cache_to: only one local cache can be exported, the daemon names the manifest of one")
        self.imports = [entry for entry in map(self._import, imports) if entry is not None]
        self.exports = [self._export(cache) for cache in exports]

    def _import(self, cache: Cache) -> Optional[Entry]:
        if cache.type != LOCAL:
            return cache.type, dict(cache.attrs)
        digest = cache.attrs.get("digest") or Layout(cache.directory).find(cache.tag)
        if not digest:
            self._warn(f"cache_from: there is no cache {cache.tag} in {cache.directory} yet, it is passed over")
            return None
        name = store_name(cache.directory)
        self._read[f"{LOCAL}:{name}"] = Blobs(cache.directory)
        return LOCAL, {**cache.attrs, "src": name, "digest": digest}

    def _export(self, cache: Cache) -> Entry:
        if cache.type != LOCAL:
            return cache.type, dict(cache.attrs)
        name = store_name(cache.directory)
        self._written[f"{LOCAL}:{name}"] = Blobs(cache.directory, writable=True, locked=True)
        return LOCAL, {**cache.attrs, "dest": name}

    def attrs(self) -> dict[str, str]:
        """What the frontend is told: a build with one imports caches by this alone (wire §5.6)."""
        if not self.imports:
            return {}
        return {"cache-imports": json.dumps([{"Type": kind, "Attrs": attrs} for kind, attrs in self.imports])}

    def stores(self) -> dict[str, Blobs]:
        """Content stores of the session by their ids; a directory may be read and written at once."""
        return {**self._read, **self._written}

    def finish(self, response: Mapping[str, str]) -> None:
        """Enter the cache that was written in its index, which is the client's part. Raises BuildxError."""
        for cache in self._exports:
            if cache.type == LOCAL and MANIFEST in response:
                layout = Layout(cache.directory)
                manifest: dict[str, Any] = json.loads(response[MANIFEST])
                layout.publish(manifest, tag=cache.tag)
                self.close()  # which lets go of the lock that a clean-up needs
                if cache.reset and layout.remove_unreferenced() < 0:
                    self._warn(f"cache_to: {cache.directory} was not reset: the cache is in use")

    def close(self) -> None:
        """Let go of the directories; may be called twice."""
        for blobs in self._written.values():
            blobs.close()


def refuse_in_engine(caches: Sequence[Cache]) -> None:
    """The BuildKit inside an engine with the classic image store knows inline caches only (wire §13.5)."""
    if any(cache.type != INLINE for cache in caches):
        raise ConfigError(
            "Cache export is not supported for the docker driver",
            hint="Use a builder with another driver, or turn on the engine's containerd image store.",
        )
