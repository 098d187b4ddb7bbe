# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start-up is part of speed: a module's own code is compiled anew in every run (docs/architecture.md)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench

MOST_LINES = 4600
"""For a build that says nothing special; 13 µs each."""
HEAVY = ("docker", "requests", "urllib3")
"""What a build or a listing has no use for when nothing has changed: 120 ms, as much as 9,000 lines of our own."""
COUNT = """
import ast, atexit, json, runpy, sys
file, report = sys.argv[1:]
sys.path.insert(0, file.split("/ansible_collections/")[0])
import ansible.module_utils.basic as basic
basic._ANSIBLE_PROFILE = "legacy"

def code_lines(source):
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text:
            skipped.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.Constant):  # data, such as the embedded descriptors, is one line however long
            skipped.update(range(node.lineno + 1, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for n, line in lines if line.strip() and not line.strip().startswith("#") and n not in skipped)

@atexit.register
def count():
    loaded = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if "/buildfleet/" in path:
            with open(path, encoding="utf-8") as stream:
                loaded[name.rpartition("plugins.")[2]] = code_lines(stream.read())
    with open(report, "w") as stream:
        json.dump({"lines": loaded, "libraries": sorted(name for name in sys.modules if "." not in name)}, stream)

sys.argv = [file]
runpy.run_path(file, run_name="__main__")
"""


@pytest.mark.parametrize("module", ["buildx_builder", "buildx_info", "buildx_build"])
def test_lines_of_a_run_without_change(bench: Bench, context: Callable[..., Path], module: str) -> None:
    """A run that changes nothing loads few lines of our code, docstrings and comments apart, and no docker-py.

    The reconcile of a builder reads the files in its container, for which docker-py is there.
    """
    path = context("FROM scratch\nADD root.tar /\n")
    arguments = {
        "buildx_builder": {"name": bench.name},
        "buildx_info": {},
        "buildx_build": {"builder": bench.name, "path": str(path), "name": bench.name},
    }[module]
    bench.builder()
    assert not bench.module(module, **arguments).get("failed")
    report = bench.directory / "loaded.json"
    plugins = Path(bench.environment["BUILDX_TEST_COLLECTIONS"]) / "ansible_collections/buildfleet/buildx/plugins"
    given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    command = [bench.environment["BUILDX_LAB_PYTHON"], "-c", COUNT, str(plugins / "modules" / f"{module}.py"), report]

    done = subprocess.run(
        command, env=bench.environment, input=given, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )

    assert json.loads(done.stdout.splitlines()[-1])["changed"] is False
    found = json.loads(report.read_text(encoding="utf-8"))
    loaded = found["lines"]
    assert module == "buildx_builder" or not set(HEAVY).intersection(found["libraries"])
    assert "module_utils._task" in loaded
    assert sum(loaded.values()) < MOST_LINES, sorted(loaded.items(), key=lambda item: -item[1])
