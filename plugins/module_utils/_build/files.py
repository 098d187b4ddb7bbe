# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Results that become files of the target: directories, archives, OCI layouts."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .exports import Export
from .outputs import Output


def export(output: Output, attrs: Mapping[str, str]) -> Export:
    """The export of an output that has a dest."""
    raise ConfigError(f"an output of type {output.type} with a dest cannot be written yet")
