# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the README tells users to do, done."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_way_of_a_user(bench: Bench) -> None:
    """The archive installed by its own command, three packages in a new environment, the playbook as it is printed."""
    target = bench.directory / "target"
    bench.run(sys.executable, "-m", "venv", str(target))
    packages = next(block for block in blocks("shell") if "pip install" in block).split("install ")[1].split()
    assert len(packages) == 3
    bench.run(str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages)
    install = next(block for block in blocks("shell") if "collection install" in block).split()
    archive = _archive(bench)
    assert install[-1] == archive.name
    config = bench.directory / "ansible.cfg"
    config.write_text(f"[defaults]\ncollections_path = {bench.directory / 'collections'}\n", encoding="utf-8")
    bench.environment["ANSIBLE_CONFIG"] = str(config)
    bench.run(*install[:-1], "--offline", str(archive))
    playbook = bench.directory / "builder.yml"
    playbook.write_text(blocks("yaml")[0].replace("name: ci", f"name: {bench.name}"), encoding="utf-8")
    inventory = bench.directory / "inventory"
    python = target / "bin" / "python"
    inventory.write_text(f"localhost ansible_connection=local ansible_python_interpreter={python}\n", encoding="utf-8")

    first = bench.run("ansible-playbook", "-i", str(inventory), str(playbook)).stdout
    second = bench.run("ansible-playbook", "-i", str(inventory), str(playbook)).stdout

    assert "changed=1" in first, first
    assert "changed=0" in second, second
    assert bench.row()["Nodes"][0]["Status"] == "running"


def _archive(bench: Bench) -> Path:
    """The archive that is tested; when this file is run alone there is none yet."""
    if "BUILDX_TEST_ARCHIVE" not in os.environ:
        bench.run("ansible-galaxy", "collection", "build", "--output-path", str(bench.directory), str(CHECKOUT))
        return next(bench.directory.glob("buildfleet-buildx-*.tar.gz"))
    return Path(os.environ["BUILDX_TEST_ARCHIVE"])
