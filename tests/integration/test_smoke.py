# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one path through all rooms."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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


INTERPRETERS = [path for path in os.environ.get("BUILDX_TEST_INTERPRETERS", "").split(os.pathsep) if path]


def test_interpreters_are_there() -> None:
    """The next test is about some interpreter: else it would pass by being empty."""
    assert INTERPRETERS, "tests/run.py names interpreters of targets in BUILDX_TEST_INTERPRETERS"


@pytest.mark.parametrize("interpreter", INTERPRETERS, ids=lambda path: Path(path).parents[1].name)
def test_playbook(bench: Bench, context: Callable[..., Path], interpreter: str) -> None:
    """A playbook with all three modules, shipped to the target's interpreter by Ansible, says changed and then ok."""
    path = context('FROM scratch\nADD root.tar /\nRUN echo made > /made\nCMD ["cat", "/made"]\n')
    tasks = f"""
    - name: A builder
      buildfleet.buildx.buildx_builder:
        name: {bench.name}
        memory: 512m
    - name: An image
      buildfleet.buildx.buildx_build:
        builder: {bench.name}
        path: {path}
        name: {bench.name}
    - name: A listing
      buildfleet.buildx.buildx_info:
        name: [{bench.name}]
      register: listing
    - name: It runs
      ansible.builtin.assert:
        that: listing.builders[0].Nodes[0].Status == 'running'
"""
    arguments = ("-e", f"ansible_python_interpreter={interpreter}")

    first = bench.play(tasks, *arguments)
    second = bench.play(tasks, *arguments)

    assert "changed=2" in first, first
    assert "changed=0" in second, second
    assert bench.docker("run", "--rm", bench.name) == "made\n"
