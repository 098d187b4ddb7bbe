# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""buildkitd's flags as `create --buildkitd-flags` stores them (buildx.md §2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

NETWORK_HOST = "network.host"

_ENTITLEMENT = "--allow-insecure-entitlement"
_IN_CONFIG = "insecure-entitlements"


def split(text: str) -> list[str]:
    """The words of a flags string. Raises ConfigError for an open quote or a trailing backslash.

    The CLI's rules, which are not those of Python's shlex: in double quotes a backslash takes any character
    literally and vanishes, and `#` starts a comment only at the start of a word.
    """
    words: list[str] = []
    word: Optional[str] = None  # None between words: '' is a word too
    quote = ""
    escaped = comment = False
    for char in text:
        if comment:
            comment = char != "\n"
        elif escaped:
            word, escaped = (word or "") + char, False
        elif char == "\\" and quote != "'":
            word, escaped = word or "", True
        elif quote:
            word, quote = (word or "", "") if char == quote else ((word or "") + char, quote)
        elif char in "\"'":
            word, quote = word or "", char
        elif char in " \t\r\n":
            words += [] if word is None else [word]
            word = None
        elif char == "#" and word is None:
            comment = True
        else:
            word = (word or "") + char
    if escaped or quote:
        reason = "EOF found after escape character" if escaped else "EOF found when expecting closing quote"
        raise ConfigError(f"failed to parse buildkit flags: {reason}")
    return words + ([] if word is None else [word])


def entitlements(flags: Sequence[str]) -> list[str]:
    """The entitlements that the CLI sees in the flags: it knows one flag and stops at the first other one."""
    return list(_entitlements(flags))


def _entitlements(flags: Sequence[str]) -> Iterator[str]:
    rest = iter(flags)
    for word in rest:
        if not word.startswith("-") or word == "-":
            continue  # an argument: the CLI reads on behind it
        name, equals, value = word.partition("=")
        if name != _ENTITLEMENT:
            return
        if not equals:
            following = next(rest, None)
            if following is None:
                return
            value = following
        yield value


def granted_by_config(config: Mapping[str, object]) -> list[str]:
    """The entitlements that a buildkitd.toml grants. Raises ConfigError when they are not a list of strings."""
    granted: object = []
    for key, value in config.items():
        if key.lower() == _IN_CONFIG:  # both buildx and buildkitd match keys without regard to case
            granted = value
    if not isinstance(granted, list) or not all(isinstance(item, str) for item in granted):
        raise ConfigError(f"{_IN_CONFIG} of the buildkitd configuration is not a list of strings")
    return granted


def with_entitlement(
    flags: Optional[Sequence[str]], *, network: str = "", config: Optional[Mapping[str, object]] = None
) -> Optional[list[str]]:
    """The flags that the CLI stores for a new docker-container node (§2.4).

    network: the driver option of that name; config: the parsed buildkitd.toml, given or default. None stands for
    `null` in the store, which is what the CLI writes when no flags were given and nothing was added.
    """
    asked = entitlements(flags or ())
    granted = granted_by_config(config or {})
    # With the host's network it is added even when the configuration grants it.
    if NETWORK_HOST not in asked if network == "host" else not asked and NETWORK_HOST not in granted:
        return [*(flags or ()), f"{_ENTITLEMENT}={NETWORK_HOST}"]
    return None if flags is None else list(flags)
