# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What older daemons ignore without a word, and would so give another result than was asked for (wire §13.3).

It is looked for in the request as it is sent, so that no option is forgotten. What an older daemon refuses by itself,
or what only makes a build slower there, is not in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import is_true


class Feature(NamedTuple):
    """name: as the user knows it. since: BuildKit 0.N. asked: whether a SolveRequest asks for it."""

    name: str
    since: int
    asked: Callable[[Any], bool]


def _attributes(request: Any, *kinds: str) -> Iterator[Mapping[str, str]]:
    """Those of the exporters, of some kinds or of all."""
    return (exporter.Attrs for exporter in request.Exporters if not kinds or exporter.Type in kinds)


def _given(key: str, *kinds: str) -> Callable[[Any], bool]:
    return lambda request: any(attrs.get(key) for attrs in _attributes(request, *kinds))


def _true(key: str) -> Callable[[Any], bool]:
    return lambda request: any(is_true(attrs.get(key)) for attrs in _attributes(request))


def _rewritten_and_unpacked(request: Any) -> bool:
    return any(
        is_true(attrs.get("rewrite-timestamp")) and is_true(attrs.get("unpack")) for attrs in _attributes(request)
    )


FEATURES = (
    Feature("more than one output", 13, lambda request: len(request.Exporters) > 1),
    Feature("rewrite-timestamp of an output", 13, _true("rewrite-timestamp")),
    Feature("oci-artifact of an output", 19, _true("oci-artifact")),
    Feature(
        "mode=delete of a local output",
        31,
        lambda request: any(attrs.get("mode") == "delete" for attrs in _attributes(request, "local")),
    ),
    Feature("src of a local or tar output", 34, _given("src", "local", "tar")),
    Feature("rewrite-timestamp together with unpack", 34, _rewritten_and_unpacked),
)
NEWEST = max(feature.since for feature in FEATURES)


def refuse_ignored(version: str, minor: int, request: Any) -> None:
    """Raises BuilderError for what a daemon of version 0.`minor` would ignore in a SolveRequest."""
    for feature in FEATURES:
        if minor < feature.since and feature.asked(request):
            raise BuilderError(
                f"{feature.name} needs BuildKit v0.{feature.since} or newer; the builder runs {version}, "
                "which would ignore it",
                hint="Give the builder a newer image, or do without it.",
            )
