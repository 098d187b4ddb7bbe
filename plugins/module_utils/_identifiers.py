# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Identifiers of builds and sessions."""

from __future__ import annotations

import os
from typing import Callable

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ENTROPY = 17  # bytes
_LENGTH = 25


def new_ref(random: Callable[[int], bytes] = os.urandom) -> str:
    """A fresh ref or session id, of the form that BuildKit's own clients use (buildx.md §1.8)."""
    entropy = random(_ENTROPY)
    # With the top bit set there are always 27 digits, and the first, which says least, is left out.
    number = int.from_bytes(bytes([entropy[0] | 0x80]) + entropy[1:], "big")
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits[1 : _LENGTH + 1]
