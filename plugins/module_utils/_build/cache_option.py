# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The options `cache_from` and `cache_to`, read and checked (buildx §5.10)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import is_true, plain_text

from . import attributes

INLINE, LOCAL, REGISTRY = "inline", "local", "registry"
LATEST = "latest"
ELSEWHERE = ("azblob", "gha", "s3")


class Cache(NamedTuple):
    """A cache to import or to export.

    attrs: as the daemon takes them. directory: absolute path of a local one, "": it is none; tag: its name in there.
    """

    type: str
    attrs: Mapping[str, str]
    directory: str = ""
    tag: str = LATEST
    reset: bool = False


def imports(values: Iterable[Any], absolute: Callable[[str], str]) -> list[Cache]:
    """Read `cache_from`: mappings, and text as the CLI's option takes it. Raises ConfigError."""
    found = [cache for value in values for cache in _parse(value, "cache_from", "src", absolute)]
    if any(cache.type == INLINE for cache in found):
        raise ConfigError("cache_from: an inline cache is imported as registry, by the name of its image")
    return found


def exports(values: Iterable[Any], absolute: Callable[[str], str]) -> list[Cache]:
    """Read `cache_to`. Raises ConfigError, for two equal exports too, which a daemon refuses."""
    found = [cache for value in values for cache in _parse(value, "cache_to", "dest", absolute)]
    for number, cache in enumerate(found):
        if cache in found[:number]:
            raise ConfigError(f"cache_to names the same {cache.type} cache twice")
        if cache.directory and os.path.exists(cache.directory) and not os.path.isdir(cache.directory):
            raise ConfigError(f"cache_to: {cache.directory} is a file, and a local cache is a directory")
    return found


def _parse(value: Any, option: str, place: str, absolute: Callable[[str], str]) -> list[Cache]:
    if isinstance(value, str):
        words = attributes.record(value, option)
        if "=" in value:
            return [_cache(dict(attributes.pairs(words, option)), option, place, absolute)]
        # A bare word is an image's name, one of `inline` is what everybody means by it and not an image of that name.
        bare = [{"type": INLINE} if word == INLINE else {"type": REGISTRY, "ref": word} for word in words if word]
        return [_cache(dict(fields), option, place, absolute) for fields in bare]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{option}: {value!r} must be a mapping with a type, or text as for the CLI")
    fields = {str(key).strip().lower(): plain_text(item) for key, item in value.items() if item is not None}
    return [_cache(fields, option, place, absolute)]


def _cache(fields: dict[str, str], option: str, place: str, absolute: Callable[[str], str]) -> Cache:
    kind = fields.pop("type", "")
    if kind in ELSEWHERE:
        raise ConfigError(f"{option}: a cache of type {kind} is not supported yet; registry, local and inline are")
    if kind not in (INLINE, LOCAL, REGISTRY):
        raise ConfigError(
            f"{option}: {f'unknown type {kind!r}' if kind else 'type required'}: registry, local or inline"
        )
    if kind == REGISTRY:
        reference.parse(fields.get("ref", ""), what=f"ref of {option}")
        return Cache(kind, fields)
    if kind == INLINE:
        return Cache(kind, fields)
    if not fields.get(place):
        raise ConfigError(f"{option}: a local cache needs {place}, a directory of the target")
    directory, tag = absolute(fields.pop(place)), fields.pop("tag", "") or LATEST
    reset = is_true(fields.pop("reset", ""))
    return Cache(kind, {**fields, place: directory}, directory, tag, reset)
