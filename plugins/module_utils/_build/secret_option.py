# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The option `secrets`, read and checked; a value is read when the daemon asks for it (buildx §5.7)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.secrets import LARGEST
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def values(
    options: Iterable[Mapping[str, Any]],
    absolute: Callable[[str], str],
    variable: Callable[[str], Optional[str]],
) -> dict[str, Callable[[], bytes]]:
    """Id → what reads the value. Of two with one id the last counts. Raises ConfigError, which never holds a value."""
    return {_identity(option): _reader(option, absolute, variable) for option in options}


def _identity(option: Mapping[str, Any]) -> str:
    if not option["id"]:
        raise ConfigError("secret missing ID")
    return str(option["id"])


def _reader(
    option: Mapping[str, Any], absolute: Callable[[str], str], variable: Callable[[str], Optional[str]]
) -> Callable[[], bytes]:
    identity = option["id"]
    given = [key for key in ("src", "env", "value") if option[key] is not None]
    if len(given) > 1:
        raise ConfigError(f"the secret {identity} has {' and '.join(given)}: only one of them can be its source")
    kind = option["type"] or {"src": "file", "env": "env", "value": "value"}.get("".join(given))
    if kind is None:
        # As the CLI: a variable called like the secret, else a file called like it.
        kind = "env" if variable(identity) is not None else "file"
    source = option[given[0]] if given else identity
    if given and given[0] != {"file": "src"}.get(kind, kind):
        raise ConfigError(f"the secret {identity} is of type {kind} and cannot have {given[0]}")
    if kind == "value":
        if not given:
            raise ConfigError(f"the secret {identity} is of type value and has none")
        value = str(source).encode("utf-8", "surrogateescape")
        if len(value) > LARGEST:
            raise ConfigError(f"the secret {identity} has more than {LARGEST >> 10} KiB")
        return lambda: value
    if kind == "env":
        return partial(_from_variable, source, variable)
    return _file(identity, absolute(source))


def _from_variable(name: str, variable: Callable[[str], Optional[str]]) -> bytes:
    """A variable that is not set is an empty secret, as for the CLI."""
    return (variable(name) or "").encode("utf-8", "surrogateescape")


def _file(identity: str, path: str) -> Callable[[], bytes]:
    """The file must be there, and readable, before anything is done."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
    except OSError as exc:
        raise ConfigError(f"the file of the secret {identity} cannot be read: {path}: {exc.strerror}") from exc
    if size > LARGEST:
        raise ConfigError(f"the file of the secret {identity} has more than {LARGEST >> 10} KiB: {path}")
    return partial(_read, path)


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(LARGEST + 1)
