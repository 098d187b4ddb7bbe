# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The option `outputs`, read and checked: pure but for the look at where files would go (buildx §5.6)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import is_true, plain_text

from . import attributes
from .outputs import CACHE_ONLY, DOCKER, IMAGE, LOCAL, Output, pushed

REGISTRY = "registry"
LAYOUTS = ("oci", DOCKER)
TYPES = (CACHE_ONLY, DOCKER, IMAGE, LOCAL, "oci", REGISTRY, "tar")


def parse_all(values: Iterable[Any], absolute: Callable[[str], str]) -> list[Output]:
    """Read the option `outputs`: mappings, and strings as the CLI's `--output` takes them. Raises ConfigError."""
    return [parse(value, absolute) for value in values if value != ""]


def parse(value: Any, absolute: Callable[[str], str]) -> Output:
    """Read one output. A bare word is a directory, as for the CLI. absolute: see _module.Surroundings."""
    if isinstance(value, str):
        words = attributes.record(value, "output")
        if len(words) == 1 and not words[0].startswith("type="):
            return _output({"type": LOCAL, "dest": words[0]}, value, absolute)
        return _output(dict(attributes.pairs(words, "output")), value, absolute)
    if not isinstance(value, Mapping):
        raise ConfigError(f"invalid output {value!r}: it must be a mapping with a type, or text as for the CLI")
    return _output({str(key).strip().lower(): item for key, item in value.items()}, value, absolute)


def _output(fields: dict[str, Any], value: Any, absolute: Callable[[str], str]) -> Output:
    kind, dest = str(fields.pop("type", None) or ""), fields.pop("dest", None)
    names, context = fields.pop("name", None), str(fields.pop("context", None) or "")
    if not kind:
        raise ConfigError(f"type is required for output {value!r}")
    if kind not in TYPES:
        raise ConfigError(f"invalid output type {kind!r}: there are {', '.join(TYPES)}")
    attrs = {key: plain_text(item) for key, item in sorted(fields.items())}
    if kind == REGISTRY:
        kind, attrs = IMAGE, {**attrs, "push": attrs.get("push", "true")}
    output = Output(
        kind,
        attrs,
        _destination(kind, dest, absolute),
        _names(names),
        context,
        pushes=is_true(attrs.get("push")),
        layout=kind in LAYOUTS and attrs.get("tar") is not None and not is_true(attrs["tar"]),
    )
    if output.pushes and kind != IMAGE:
        raise ConfigError(f"only an image can be pushed, an output of type {kind} cannot")
    if context and not output.loads:
        raise ConfigError("context is the docker context into whose engine a docker output without dest is loaded")
    return _check_place(pushed(output) if output.pushes else output)


def _destination(kind: str, dest: Any, absolute: Callable[[str], str]) -> str:
    if dest in (None, ""):
        if kind in (LOCAL, "tar", "oci"):
            raise ConfigError(f"dest is required for {kind} exporter")
        return ""
    if kind in (IMAGE, CACHE_ONLY):
        raise ConfigError(f"an output of type {kind} has no dest")
    if str(dest) == "-":
        raise ConfigError(f"dest is required for {kind} exporter: a task has no standard output to write to")
    return absolute(str(dest))


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str):
        names = names.split(",")
    return tuple(str(reference.parse(str(name).strip(), what="name of an output")) for name in names or ())


def _check_place(output: Output) -> Output:
    """Nothing of a wrong kind may stand where the result goes. Raises ConfigError in the CLI's words."""
    dest = output.dest
    if not dest:
        return output
    directory = output.type == LOCAL or output.layout
    if directory and os.path.exists(dest) and not os.path.isdir(dest):
        raise ConfigError(f"destination directory {dest} is a file")
    if not directory and os.path.isdir(dest):
        raise ConfigError(f"destination file {dest} is a directory")
    return output
