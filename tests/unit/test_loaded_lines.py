# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start-up is part of speed: a module's own code is compiled anew in every run (DESIGN §4.13).

Here is counted what a module loads before it does anything; what a whole run loads is counted against the real engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.buildfleet.buildx.plugins"
UTILITIES = sorted(
    ".".join(path.relative_to(ROOT / "plugins").with_suffix("").parts)
    for path in (ROOT / "plugins" / "module_utils").rglob("*.py")
)
LIBRARIES = ("docker", "requests", "urllib3", "grpc", "google.protobuf")
BUDGET = {"buildx_builder": 3200, "buildx_info": 2000, "buildx_build": 1800}
"""Module → lines of code that importing it may load, of 4,600 for a build that changes nothing."""

PROBE = """
import ast, importlib, json, sys

def code_lines(source):
    # Comments and docstrings cost nothing; data, such as the embedded descriptors, is one line however long.
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            skipped.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.Constant):
            skipped.update(range(node.lineno + 1, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for n, line in lines if line.strip() and not line.strip().startswith("#") and n not in skipped)

package, libraries, names = json.loads(sys.stdin.read())
report = {"loaded": {}, "libraries": {}, "absent": []}
for name in names:
    try:
        importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "ansible":
            raise
        report["absent"].append(name)
    found = [library for library in libraries if library in sys.modules]
    if found:
        report["libraries"][name] = found
        break
for name, module in sorted(sys.modules.items()):
    if name.startswith(package + ".") and getattr(module, "__file__", None):
        with open(module.__file__, encoding="utf-8") as stream:
            report["loaded"][name[len(package) + 1:]] = code_lines(stream.read())
print(json.dumps(report))
"""


def imported(*names: str) -> dict[str, Any]:
    """Import files in a new interpreter, and see what that brought in."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / '.collections')!r})\n{PROBE}"]
    done = subprocess.run(
        command,
        input=json.dumps([PACKAGE, LIBRARIES, names]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@cache
def loaded_by(module: str) -> dict[str, int]:
    pytest.importorskip("ansible.module_utils.basic", reason="a target has no ansible-core of its own")
    report = imported(f"modules.{module}")
    assert report["libraries"] == {}
    found: dict[str, int] = report["loaded"]
    return found


def test_no_file_brings_in_a_library() -> None:
    """One after the other, so that the file is named that does: docker costs 120 ms, grpc 70 ms, messages 36 ms."""
    report = imported(*UTILITIES)
    assert report["libraries"] == {}
    assert len(report["loaded"]) + len(report["absent"]) >= len(UTILITIES)
    assert len(report["loaded"]) > 40


@pytest.mark.parametrize("module", list(BUDGET))
def test_what_a_module_loads_before_it_begins(module: str) -> None:
    loaded = loaded_by(module)
    assert f"modules.{module}" in loaded
    assert sum(loaded.values()) < BUDGET[module], sorted(loaded.items(), key=lambda item: -item[1])


@pytest.mark.parametrize(
    ("module", "room"),
    [
        ("buildx_info", "module_utils._build."),
        ("buildx_info", "module_utils._buildkit.http2."),
        ("buildx_info", "module_utils._builder.plan"),
        ("buildx_builder", "module_utils._build."),
        ("buildx_builder", "module_utils._buildkit.http2."),
        ("buildx_builder", "module_utils._builder.runner"),
        ("buildx_build", "module_utils._buildkit.http2."),
        ("buildx_build", "module_utils._buildkit.filesync"),
        ("buildx_build", "module_utils._builder.plan"),
    ],
)
def test_what_a_path_may_not_need_is_not_loaded(module: str, room: str) -> None:
    assert [name for name in loaded_by(module) if name.startswith(room)] == []
