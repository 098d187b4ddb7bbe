# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What results and diffs do not show."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "********"
_SMELLS = re.compile(
    r"secret|token|passw|passphrase|credential|private|api_?key|access_?key|_key\b|auth|(?:\b|_)(?:pg)?pass(?:\b|_)|_pwd\b",
    re.IGNORECASE,
)
# Up to the last @ of the authority: a password may hold one, written so or not.
_USERINFO = re.compile(r"(?<=://)[^/?#\s]+(?=@)")


def is_secret_name(name: str) -> bool:
    """Whether the value of an environment variable of this name is likely a secret."""
    return _SMELLS.search(name) is not None


def masked_url(text: str) -> str:
    """Text with the user and password of every URL in it replaced."""
    return _USERINFO.sub(MASK, text)


def masked_options(options: Mapping[str, str]) -> dict[str, str]:
    """Driver options with secret variables and userinfo masked, sorted."""
    return {
        key: MASK if key.startswith("env.") and is_secret_name(key[4:]) else masked_url(options[key])
        for key in sorted(options)
    }
