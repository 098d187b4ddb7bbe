# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The map of docs/architecture.md, held by reading the imports of every file below plugins/.

Imports inside functions count, and those for types only: otherwise types drag the rooms together.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PACKAGE = "ansible_collections.buildfleet.buildx.plugins"
FILES = sorted(path for path in PLUGINS.rglob("*.py"))

GROUND = {
    "_errors",
    "_clock",
    "_identifiers",
    "_platforms",
    "_reference",
    "_deps",
    "_argspec",
    "_relay",
    "_sockets",
    "_words",
}
"""At the bottom: known to all, and knowing only each other's errors."""
ROOMS = {
    "_engine": set[str](),
    "_buildkit": set[str](),
    "_builder": {"_engine", "_buildkit"},
    "_build": {"_engine", "_buildkit"},
}
"""Room → the rooms that it may see. Two on one level do not see each other."""
BORDER = "_module"
ANSIBLE = {"_argspec", BORDER, "modules"}
"""Where Ansible may be met. The fragments of documentation need nothing of it."""
LIBRARIES = {"docker": "_engine", "requests": "_engine", "grpc": "_buildkit", "google": "_buildkit"}
PROCESS = {
    "os.environ", "os.environb", "os.getenv", "os.getcwd", "os.getcwdb", "os.chdir", "os.path.abspath",
    "os.path.expanduser", "os.path.expandvars", "Path.cwd", "Path.home",
}  # fmt: skip
"""What is the process' own: it stops at the border (DESIGN §3)."""


class Import(NamedTuple):
    """One import. unit: a ground or composition file, a room, `modules`; or the library's top-level name."""

    where: str
    unit: str
    ours: bool
    at_start: bool
    relative: int


def unit_of(parts: tuple[str, ...]) -> str:
    """Where a file, given by its path below plugins/, belongs."""
    if parts[0] != "module_utils":
        return parts[0]
    return parts[1] if len(parts) > 1 else ""


@cache
def unit(path: Path) -> str:
    parts = path.relative_to(PLUGINS).with_suffix("").parts
    return unit_of(parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[Import]:
    inside = {
        id(node)
        for function in ast.walk(tree(path))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree(path)):
        at_start = id(node) not in inside
        if isinstance(node, ast.Import):
            found += [_import(place(path, node), alias.name, at_start, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = (PACKAGE, *path.relative_to(PLUGINS).parent.parts)
                kept = package[: len(package) - node.level + 1]
                base = ".".join([*kept, base]).rstrip(".")
            found += [_import(place(path, node), f"{base}.{alias.name}", at_start, node.level) for alias in node.names]
    # docker and grpc come in through _deps, by name.
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            argument = node.args[0]
            assert isinstance(argument, ast.Constant), f"{place(path, node)}: require() of what is not written there"
            found.append(_import(place(path, node), str(argument.value), id(node) not in inside, 0))
    return found


def _import(where: str, name: str, at_start: bool, relative: int) -> Import:
    if name.startswith(PACKAGE + "."):
        return Import(where, unit_of(tuple(name[len(PACKAGE) + 1 :].split("."))), True, at_start, relative)
    return Import(where, name.partition(".")[0], False, at_start, relative)


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PLUGINS)}:{getattr(node, 'lineno', 0)}"


def everything() -> Iterator[tuple[Path, ast.AST]]:
    return ((path, node) for path in FILES for node in ast.walk(tree(path)))


def is_composition(name: str) -> bool:
    """Files between the modules and the rooms: who builds a path through several rooms."""
    return name not in {*GROUND, *ROOMS, BORDER, "modules", "doc_fragments"}


@cache
def may_see(here: str) -> set[str]:
    compositions = {unit(path) for path in FILES if is_composition(unit(path))}
    if here in GROUND:
        return {"_errors"}
    if here in ROOMS:
        return {here, *GROUND - {"_argspec"}, *ROOMS[here]}
    if here == BORDER:
        return {"_errors", "_deps"}
    if here == "modules":
        return {"", "_argspec", BORDER, *compositions}
    if here == "doc_fragments":
        return set()
    return {*GROUND - {"_argspec"}, *ROOMS, BORDER, *compositions}


def test_the_files_are_there() -> None:
    """Else what follows passes by being empty."""
    units = {unit(path) for path in FILES}
    assert {*GROUND, *ROOMS, BORDER, "modules", "doc_fragments"} <= units
    assert len(FILES) > 50
    assert sum(len(imports(path)) for path in FILES) > 300


def test_every_directory_is_a_room_of_the_map() -> None:
    directories = {path.name for path in (PLUGINS / "module_utils").iterdir() if path.is_dir() and path.name[0] == "_"}
    assert directories - {"__pycache__"} == set(ROOMS)


def test_arrows_go_down() -> None:
    wrong = [
        f"{found.where} may not see {found.unit or 'module_utils'}"
        for path in FILES
        for found in imports(path)
        if found.ours and found.unit not in may_see(unit(path))
    ]
    assert wrong == []


def test_nothing_goes_round_in_circles() -> None:
    """Between rooms and files of the composition; within a room files may know each other."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        here = unit(path)
        graph.setdefault(here, set()).update(found.unit for found in imports(path) if found.ours and found.unit != here)
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join((*way, name))
        if name not in done:
            for following in sorted(graph.get(name, ())):
                walk(following, (*way, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())


@pytest.mark.skipif(sys.version_info < (3, 10), reason="this Python does not list its own library")
def test_each_library_has_its_room() -> None:
    wrong = []
    for path in FILES:
        for found in imports(path):
            rooms = ANSIBLE if found.unit == "ansible" else {LIBRARIES.get(found.unit), "_deps"}
            if not found.ours and found.unit not in sys.stdlib_module_names and unit(path) not in rooms:
                wrong.append(f"{found.where} may not import {found.unit}")
    assert wrong == []


def test_libraries_are_imported_late() -> None:
    """For start-up, and for Ansible, which loads each file where they are absent (DESIGN §4.13)."""
    early = [
        found
        for path in FILES
        for found in imports(path)
        if found.at_start and not found.ours and found.unit in LIBRARIES
    ]
    assert early == []


def test_libraries_come_in_through_the_gate() -> None:
    """`require` says what to install when one is missing. Protobuf's parts are many, and come after it."""
    direct = []
    for path, node in everything():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        direct += [place(path, node) for name in names if name.partition(".")[0] in ("docker", "requests", "grpc")]
    assert direct == []


def test_the_process_stops_at_the_border() -> None:
    used, last_words = [], {name.rpartition(".")[2] for name in PROCESS}
    for path, node in everything():
        names: list[str] = []
        if isinstance(node, ast.Attribute) and node.attr in last_words:
            text = ast.unparse(node)
            names = [name for name in PROCESS if text == name or text.endswith("." + name)]
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "os.path"):
            names = [alias.name for alias in node.names]
        if unit(path) != BORDER:
            used += [f"{place(path, node)} {name}" for name in names]
    assert used == []


def test_only_the_border_ends_a_task() -> None:
    words = ("fail_json", "exit_json", "run_command")
    used = [place(path, node) for path, node in everything() if isinstance(node, ast.Attribute) and node.attr in words]
    assert [where for where in used if f"{BORDER}.py" not in where] == []


def test_relative_imports_stay_in_their_room() -> None:
    """A glance shows a border that is crossed."""
    wrong = [
        found.where
        for path in FILES
        for found in imports(path)
        if found.relative and (unit(path) not in ROOMS or found.unit != unit(path) or found.relative > 1)
    ]
    assert wrong == []


def test_each_file_says_whose_it_is() -> None:
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [line for line in lines[:6] if not line.startswith("#!")]
        assert head[0].startswith("# Copyright (c) "), path
        assert head[1].startswith("# GNU General Public License v3.0+ "), path
        assert head[2] == "# SPDX-License-Identifier: GPL-3.0-or-later", path
        assert unit(path) == "modules" or any("PRIVATE to the collection" in line for line in lines[:8]), path


def test_annotations_are_never_evaluated() -> None:
    """Python 3.9 is a target (style.md §7)."""
    for path in FILES:
        first = next(node for node in tree(path).body if not isinstance(node, ast.Expr))
        assert isinstance(first, ast.ImportFrom), path
        assert (first.module, [alias.name for alias in first.names]) == ("__future__", ["annotations"]), path


def test_there_is_no_code_in_packages() -> None:
    assert [path for path in FILES if path.name == "__init__.py"] == []


def test_no_error_is_swallowed() -> None:
    """Who catches everything passes it on: anything else is a bug, and keeps its traceback."""
    wrong = []
    for path, node in everything():
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            words = {ast.unparse(item) if item else "everything" for item in caught}
            last = node.body[-1]
            passes_on = isinstance(last, ast.Raise) and last.exc is None
            if words & {"everything", "Exception", "BaseException"} and not passes_on:
                wrong.append(f"{place(path, node)} catches {words}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            words = {ast.unparse(item) for item in node.args}
            wrong += [f"{place(path, node)} suppresses {word}" for word in words & {"Exception", "BaseException"}]
    assert wrong == []


def test_no_statement_depends_on_optimization_or_spoils_the_result() -> None:
    """Ansible's sanity tests refuse assert as well; what is printed would stand in the result's way."""
    wrong = []
    for path, node in everything():
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if isinstance(node, ast.Assert) or called in ("print", "input", "eval", "exec", "__import__"):
            wrong.append(place(path, node))
    assert wrong == []
