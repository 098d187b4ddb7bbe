# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Sizes of memory as the CLI reads them in driver options: units are powers of 1024 (buildx.md §3.2)."""

from __future__ import annotations

import re

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

_UNITS = "kmgtp"
_MAX = 2**63 - 1  # the engine counts in int64
_DIGITS = "[0-9]+(?:_[0-9]+)*"
# One space may stand before the unit; `b` alone is bytes; `k`, `kb` and `kib` are the same unit.
_SIZE = re.compile(
    rf"(?P<number>[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?) ?(?P<suffix>[^0-9. ]*)"
)
_SUFFIX = re.compile(r"(?:b|(?P<unit>[kmgtp])(?:i?b)?)?", re.IGNORECASE | re.ASCII)


def ram_in_bytes(text: str) -> int:
    """`512m`, `1g`, `1.5GB`, `1 gib`, `1048576` as a number of bytes, fractions of a byte cut off.

    Raises ConfigError in the CLI's words (`invalid size: 'abc'`, `invalid suffix: 'x'`).
    """
    size = _SIZE.fullmatch(text)
    if size is None or float(size["number"]) < 0:
        raise ConfigError(f"invalid size: '{text}'")
    suffix = _SUFFIX.fullmatch(size["suffix"])
    if suffix is None:
        raise ConfigError(f"invalid suffix: '{size['suffix']}'")
    unit = suffix["unit"]
    # In floating point, as the CLI does, so that both round alike.
    amount = float(size["number"]) * 1024 ** (_UNITS.index(unit.lower()) + 1 if unit else 0)
    if amount > _MAX:
        raise ConfigError(f"invalid size: '{text}' is more than 64 bits can count")
    return int(amount)


def swap_in_bytes(text: str) -> int:
    """As ram_in_bytes(), for `memory-swap`, where `-1` means no limit."""
    return -1 if text == "-1" else ram_in_bytes(text)
