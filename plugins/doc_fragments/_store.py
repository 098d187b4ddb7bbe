# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the collection: it may change at any time without notice.

from __future__ import annotations


class ModuleDocFragment:
    """Where the builders are written down."""

    DOCUMENTATION = r"""
options:
  buildx_config:
    description:
      - The directory of the builders' store on the target, the same that C(docker buildx) uses.
      - If not set, the value of the environment variable E(BUILDX_CONFIG) on the target is used, else the directory
        C(buildx) in E(DOCKER_CONFIG), else C(~/.docker/buildx).
      - The store belongs to a user. With C(become) it is the store of the user that the task becomes.
    type: path
"""
