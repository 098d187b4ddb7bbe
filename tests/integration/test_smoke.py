# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one path through all rooms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench


def test_builder_build_image(bench: Bench, context: Callable[..., Path]) -> None:
    """A builder that is only declared boots with its first build, whose image is then in the engine and runs."""
    bench.builder(state="present")
    assert bench.row()["Nodes"][0]["Status"] == "inactive"
    path = context('FROM scratch\nADD root.tar /\nRUN echo made > /made\nCMD ["cat", "/made"]\n')
    arguments = {"builder": bench.name, "path": str(path), "name": bench.name}

    first = bench.module("buildx_build", **arguments)

    assert not first.get("failed"), first
    assert first["changed"]
    assert first["log_tail"][0] == "#1 [internal] booting buildkit"
    assert bench.docker("run", "--rm", bench.name) == "made\n"
    assert not bench.module("buildx_build", **arguments)["changed"]
    assert bench.row()["Nodes"][0]["Status"] == "running"
