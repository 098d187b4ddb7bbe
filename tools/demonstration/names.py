# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo makes on an engine, by name. Nothing of these names may be there before, all of it goes afterwards."""

from __future__ import annotations

BUILDKIT_IMAGE = "moby/buildkit:buildx-stable-1"
BASE_IMAGE = "busybox:latest"

BUILDERS = {"plain": "container", "image": "demo-image", "config": "demo-config", "limits": "demo-limits"}
"""The builders' names, by what each is there to show."""
RESULT = "buildfleet-demo/hello"
RESULT_TAG = "1.0"
OTHER_BUILDKIT = "buildfleet-demo/buildkit:other"


def containers() -> list[str]:
    nodes = [f"{builder}0" for builder in BUILDERS.values()]
    # The second is what a re-creation sets aside while it is under way.
    return [f"buildx_{kind}_{node}" for node in nodes for kind in ("buildkit", "previous")]


def volumes() -> list[str]:
    return [f"buildx_buildkit_{builder}0_state" for builder in BUILDERS.values()]


def images() -> list[str]:
    return [f"{RESULT}:{RESULT_TAG}", OTHER_BUILDKIT]


def variables() -> dict[str, object]:
    """The same as variables of the playbook."""
    return {
        "demo_builders": BUILDERS,
        "demo_buildkit_image": BUILDKIT_IMAGE,
        "demo_other_image": OTHER_BUILDKIT,
        "demo_result": RESULT,
        "demo_result_tag": RESULT_TAG,
    }
