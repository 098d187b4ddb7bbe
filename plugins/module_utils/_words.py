# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Values as words: what YAML means as text, and what Go takes for true."""

from __future__ import annotations

from typing import Any, Optional

TRUE = ("1", "t", "T", "TRUE", "true", "True")


def is_true(text: Optional[str]) -> bool:
    """Whether Go takes a word for true."""
    return text in TRUE


def plain_text(value: Any) -> str:
    """A value of YAML as text: booleans as YAML writes them, nothing as the empty text."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
