# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Lists of attributes as the CLI's options take them: one record of comma-separated `key=value` (buildx §5.2)."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def record(text: str, what: str) -> list[str]:
    """The fields of one record; a field may be quoted as a whole. Raises ConfigError."""
    if "\n" in text or "\r" in text:
        raise ConfigError(f"invalid {what} {text!r}: it must be one line")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as exc:
        raise ConfigError(f"invalid {what} {text!r}: {exc}") from exc


def pairs(words: Sequence[str], what: str) -> dict[str, str]:
    """`key=value` fields as a mapping, keys in lower case. Raises ConfigError."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"invalid {what}: {word!r} must be a key=value pair")
        found[key.strip().lower()] = value
    return found
