# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The options of the docker-container driver: which there are, what their words mean, how a task's replace the stored
ones (buildx §3.2)."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import TRUE, is_true, plain_text

from . import sizes
from .spec import DEFAULT_IMAGE, DEFAULT_RESTART_POLICY, restart_policy

ENV = "env."
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def _size(text: str) -> int:
    return sizes.ram_in_bytes(text) if text else 0


def _swap(text: str) -> int:
    return sizes.swap_in_bytes(text) if text else 0


def _integer(text: str) -> int:
    try:
        return int(text or 0)
    except ValueError:
        raise ConfigError(f"it must be a whole number, it is {text!r}") from None


def _truth(text: str) -> bool:
    if text not in (*TRUE, *_FALSE):
        raise ConfigError(f"it must be true or false, it is {text!r}")
    return is_true(text)


def _image(text: str) -> str:
    return str(reference.parse(text or DEFAULT_IMAGE, what="image"))


_MEANINGS: dict[str, Any] = {
    "image": _image,
    "network": str,
    "memory": _size,
    "memory-swap": _swap,
    "cpu-quota": _integer,
    "cpu-period": _integer,
    "cpu-shares": _integer,
    "cpuset-cpus": str,
    "cpuset-mems": str,
    "cgroup-parent": str,
    "restart-policy": restart_policy,
    "default-load": _truth,
    "provenance-add-gha": _truth,
    "allow-untrusted-image": _truth,
}
_DEFAULTS = {
    "image": DEFAULT_IMAGE,
    "restart-policy": DEFAULT_RESTART_POLICY,
    "default-load": "false",
    "provenance-add-gha": "true",
    "allow-untrusted-image": "false",
}
_HINTS = {
    "memory": "It is a number of bytes, or one with a unit, such as 512m or 2g.",
    "memory-swap": "It is a number of bytes, or one with a unit, such as 512m or 2g, or -1 for no limit.",
}


def meaning(option: str, text: Optional[str]) -> Any:
    """What an option's text says, equal for all words of the same. None: the option is not there."""
    of = _MEANINGS.get(option, str)
    return of(_DEFAULTS.get(option, "") if text is None else text)


def check(option: str, text: str, what: str) -> None:
    """Raises ConfigError that names `what` for a text that the option cannot have."""
    try:
        meaning(option, text)
    except ConfigError as exc:
        raise ConfigError(f"{what}: {exc}", hint=exc.hint or _HINTS.get(option)) from exc


def read(given: Any) -> dict[str, str]:
    """The task's `driver_opts`, a dict or texts as `--driver-opt` takes them, under the CLI's names.

    Raises ConfigError for an option that the driver does not know, and for one that is there in both spellings.
    """
    if isinstance(given, Mapping):
        pairs = [(name, _text(name, value)) for name, value in given.items()]
    else:
        pairs = _pairs([given] if isinstance(given, str) else given)
    options: dict[str, str] = {}
    for name, text in pairs:
        option = _known(name)
        if isinstance(given, Mapping) and option in options:
            raise ConfigError(f"driver_opts: {option} is there twice, in two spellings")
        check(option, text, f"driver_opts: {option}")
        options[option] = text
    return options


def _pairs(texts: Any) -> list[tuple[str, str]]:
    """As the CLI: each text is a line of comma-separated values, so that quotes protect commas; a later one wins."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError("driver_opts must be a dict, or a list of texts such as memory=512m")
    try:
        fields = [field for text in texts for row in csv.reader([text], strict=True) for field in row]
    except csv.Error as exc:
        raise ConfigError(f"driver_opts: {exc}") from exc
    pairs = []
    for field in fields:
        name, equals, text = field.partition("=")
        if not equals:
            raise ConfigError(f'driver_opts: invalid value "{field}", expecting k=v')
        pairs.append((name, text))
    return pairs


def _text(name: Any, value: Any) -> str:
    if isinstance(value, (list, dict)) or "\0" in str(value):
        raise ConfigError(f"driver_opts: the value of {name} is no plain text")
    return plain_text(value)


def _known(given: Any) -> str:
    name = str(given)
    if name.startswith(ENV) and name != ENV:
        return name
    option = name.replace("_", "-")
    if option in _MEANINGS:
        return option
    if name == ENV:
        raise ConfigError('driver_opts: invalid env option "env.", expecting env.FOO=bar')
    close = difflib.get_close_matches(option, _MEANINGS, n=1)
    raise ConfigError(
        f"driver_opts: the driver docker-container has no option {name}",
        hint=f"Did you mean {close[0]}?" if close else f"It has {', '.join(_MEANINGS)} and env.NAME.",
    )


def contradictions(options: Mapping[str, str], typed: Mapping[str, str], env: Optional[Mapping[str, str]]) -> list[str]:
    """The names of what `driver_opts` says otherwise than an option of its own does."""
    found = [name for name in typed if name in options and not _same(name, options[name], typed[name] or None)]
    if env is not None:
        found += [name for name in options if name.startswith(ENV) and env.get(name[len(ENV) :]) != options[name]]
    return sorted(found)


def overlaid(
    stored: Mapping[str, str],
    *,
    exact: Optional[Mapping[str, str]],
    typed: Mapping[str, str],
    env: Optional[Mapping[str, str]],
    new: bool,
) -> dict[str, str]:
    """The options that a node should have.

    exact: `driver_opts`, which stands for all. typed: option → text of the options with a name of their own, "" back to
    the default. An option that says what is stored already in other words leaves the stored words: they are no drift.
    """
    result = dict(stored)
    if exact is not None:
        kept = {name: stored[name] for name in exact if name in stored and _same(name, stored[name], exact[name])}
        result = {**exact, **kept}
    for name, text in typed.items():
        if new and text and name == "image":
            result[name] = text  # said aloud, the default stays said
        elif not _same(name, result.get(name), text or None):
            if not _same(name, None, text or None):
                result[name] = text
            else:
                result.pop(name, None)
    if env is not None:
        result = {name: text for name, text in result.items() if not name.startswith(ENV)}
        result.update({f"{ENV}{name}": text for name, text in env.items()})
    return result


def _same(option: str, one: Optional[str], other: Optional[str]) -> bool:
    try:
        return bool(meaning(option, one) == meaning(option, other))
    except ConfigError:
        return False  # what is stored cannot be meant
