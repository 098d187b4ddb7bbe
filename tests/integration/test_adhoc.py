# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What newcomers meet first: one command from the checkout, and a target without the libraries."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

CHECKOUT = Path(__file__).resolve().parents[2]
OURS = ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ANSIBLE_CONFIG", "DOCKER_HOST", "BUILDX_TEST_COLLECTIONS")


@pytest.mark.parametrize("module", ["buildx_builder", "buildfleet.buildx.buildx_builder"])
def test_ad_hoc(bench: Bench, module: str) -> None:
    """From the checkout, with what `make lab-env` prints, a builder starts by one command, by either name."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}

    def ansible(arguments: str) -> str:
        script = f"""
            eval "$(make -s lab-env)" && export DOCKER_CONFIG='{bench.environment["DOCKER_CONFIG"]}' &&
            ansible localhost -m {module} -a '{arguments}'
        """
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert ansible(f"name={bench.name} state=started").startswith("localhost | CHANGED => {")
    assert bench.inspect()["State"]["Running"]
    assert ansible(f"name={bench.name} state=started").startswith("localhost | SUCCESS => {")


def test_playbook(bench: Bench) -> None:
    """The installed collection in a playbook: check mode, diff mode, and defaults for the whole action group."""
    store = bench.directory / "store"
    entry = store / "instances" / bench.name
    make = f"""
    - module_defaults:
        group/buildfleet.buildx.buildx:
          buildx_config: {store}
      block:
        - buildfleet.buildx.buildx_builder:
            name: {bench.name}
            state: present
            env:
              A: b
          register: made
"""
    look = f"""
        - buildfleet.buildx.buildx_info:
            name: {bench.name}
          register: found
        - ansible.builtin.assert:
            that:
              - made.steps | length == STEPS
              - found.builders[0].Nodes[0].DriverOpts['env.A'] == 'b'
"""

    predicted = bench.play(make, "--check", "--diff")

    assert "changed=1" in predicted
    assert '"env.A": "b"' in predicted
    assert not entry.exists()
    assert "changed=1" in bench.play(make + look.replace("STEPS", "1"))
    assert entry.exists()
    assert "changed=0" in bench.play(make + look.replace("STEPS", "0"))


LIBRARIES = [("docker", "docker"), ("grpc", "grpcio"), ("google.protobuf", "protobuf")]
TASKS: dict[str, dict[str, Any]] = {
    "buildx_builder": {"name": "NAME", "state": "started"},
    "buildx_info": {},
    "buildx_build": {"name": "NAME", "path": "DIRECTORY", "builder": "default"},
}


@pytest.mark.parametrize(("package", "library"), LIBRARIES)
@pytest.mark.parametrize("module", TASKS)
def test_missing_library(bench: Bench, module: str, package: str, library: str) -> None:
    """On a target without one of the libraries the task fails with Ansible's own sentence, before anything is made."""
    bench.hide(package)
    (bench.directory / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    words = {"NAME": bench.name, "DIRECTORY": str(bench.directory)}

    result = bench.module(module, **{option: words.get(value, value) for option, value in TASKS[module].items()})

    assert result["failed"]
    assert result["msg"].startswith(f"Failed to import the required Python library ({library}) on ")
    assert result["error"]["kind"] == "missing_library"
    assert "Traceback" not in str(result)
    assert not bench.entry.exists()
    assert bench.docker("ps", "-aq", "--filter", f"name={bench.name}") == ""
