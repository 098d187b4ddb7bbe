# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The options that only some builds have: outputs, caches, secrets, named contexts. Most runs never load this."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from . import cache_option, contexts, output_option, secret_option
from .request import BuildRequest

_ELSEWHERE = re.compile(r"(docker-image|https?|git|ssh)://|git@[^/]+:")
"""Contexts that the frontend fetches by itself (wire §5.5)."""


class Process(Protocol):
    """What is asked of the module's process (_module.Surroundings)."""

    @property
    def absolute(self) -> Callable[[str], str]:
        """A path as a user writes it → the absolute path."""

    @property
    def variable(self) -> Callable[[str], Optional[str]]:
        """Name of a variable of the environment → its value."""


def added(request: BuildRequest, params: Mapping[str, Any], process: Process) -> BuildRequest:
    """The request with what these options say. Raises ConfigError that names the option."""
    caches = cache_option.exports(params["cache_to"] or (), process.absolute)
    if request.args.get("BUILDKIT_INLINE_CACHE", "") in ("1", "true", "True") and not any(
        cache.type == cache_option.INLINE for cache in caches
    ):
        caches.append(cache_option.Cache(cache_option.INLINE, {}))
    return replace(
        request,
        outputs=output_option.parse_all(params["outputs"] or (), process.absolute),
        cache_from=cache_option.imports(params["cache_from"] or (), process.absolute),
        cache_to=caches,
        secrets=secret_option.values(params["secrets"] or (), process.absolute, process.variable),
        contexts=_named_contexts(params["build_contexts"] or {}, process),
    )


def _named_contexts(values: Mapping[str, Any], process: Process) -> contexts.NamedContexts:
    directories: dict[str, str] = {}
    attrs: dict[str, str] = {}
    for name, value in values.items():
        text = str(value)
        if text.startswith(("oci-layout://", "target:")):
            raise ConfigError(f"the build context {name} is {text}, which is not supported yet")
        if _ELSEWHERE.match(text):
            attrs[f"context:{contexts.normalised(name)}"] = text
        else:
            directories[str(name)] = process.absolute(text)
    found = contexts.named(directories)
    if attrs:
        attrs["frontend.caps"] = contexts.CAPABILITY
    return contexts.NamedContexts(found.directories, {**found.attrs, **attrs})
