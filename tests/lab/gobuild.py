# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs compiled from the Go module proxy: BuildKit, the CLI to compare with, and its buildx.

`go install MODULE@VERSION` is refused for modules with `exclude` lines, so each module is downloaded
and built in its own directory, where its own go.mod and go.sum apply.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .cache import Cache
from .errors import LabError
from .progress import Step


@dataclass(frozen=True)
class GoProgram:
    """A command of a module.

    vendor_mod: the module has no go.mod and keeps its list as vendor.mod.
    listed:     the module has no list at all, and this directory of ours has go.mod and go.sum for it.
    """

    module: str
    version: str
    command: str
    version_variable: str
    module_version: str = ""
    vendor_mod: bool = False
    listed: Path | None = None


def buildkit_program(name: str, version: str) -> GoProgram:
    module = "github.com/moby/buildkit"
    return GoProgram(module, version, name, f"{module}/version.Version")


def docker_buildx(version: str) -> GoProgram:
    module = "github.com/docker/buildx"
    return GoProgram(module, version, "buildx", f"{module}/version.Version")


def docker_cli(version: str) -> GoProgram:
    module = "github.com/docker/cli"
    return GoProgram(module, version, "docker", f"{module}/cli/version.Version", f"v{version}+incompatible", True)


def h2spec() -> GoProgram:
    """The conformance tests of HTTP/2."""
    module, version = "github.com/summerwind/h2spec", "2.2.1"
    listed = Path(__file__).parent / "h2spec"
    return GoProgram(module, version, "h2spec", "main.VERSION", f"v{version}+incompatible", listed=listed)


def compile_program(program: GoProgram, cache: Cache, step: Step) -> Path:
    """The compiled program's path; static, so that it runs in any root."""

    def make(directory: Path) -> None:
        go = _go()
        module = f"{program.module}@{program.module_version or program.version}"
        step.say(f"downloading {module}")
        source = Path(json.loads(step.capture([go, "mod", "download", "-json", module]))["Dir"])
        if program.vendor_mod or program.listed:
            source = _with_go_mod(source, directory / "source", program.listed)
        step.say(f"compiling {program.command} {program.version}")
        step.run(_build_command(go, program, directory), cwd=source, env={**os.environ, "CGO_ENABLED": "0"})
        shutil.rmtree(directory / "source", ignore_errors=True)

    return (
        cache.obtain("go", f"{program.command}-{program.version}", ingredients(program), step, make) / program.command
    )


def program_path(program: GoProgram, cache: Cache) -> Path:
    """Where the compiled program is or would be."""
    return cache.entry("go", f"{program.command}-{program.version}", ingredients(program)) / program.command


def ingredients(program: GoProgram) -> dict[str, object]:
    found: dict[str, object] = {"module": program.module, "version": program.version, "command": program.command}
    if program.listed:
        found["listed"] = (program.listed / "go.sum").read_text(encoding="ascii")
    return {**found, "recipe": 1}


def _build_command(go: str, program: GoProgram, directory: Path) -> list[str]:
    flags = f"-s -w -X {program.version_variable}={program.version}"
    # Old modules carry part of a vendor folder, hence readonly; and no checkout is there to stamp a revision from.
    return [
        go, "build", "-mod=readonly", "-buildvcs=false",
        "-o", str(directory / program.command), "-ldflags", flags, f"./cmd/{program.command}",
    ]  # fmt: skip


def _with_go_mod(source: Path, copy: Path, listed: Path | None) -> Path:
    """A writable copy of a module with a list where the compiler looks for it: ours, else its vendor.mod."""
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("vendor", "testdata"), copy_function=_copy_writable)
    for directory in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        directory.chmod(0o755)
    shutil.copyfile(listed / "go.mod" if listed else copy / "vendor.mod", copy / "go.mod")
    shutil.copyfile(listed / "go.sum" if listed else copy / "vendor.sum", copy / "go.sum")
    return copy


def _copy_writable(source: str, target: str) -> str:
    """The module cache is read-only; a copy with its modes could neither be changed nor removed."""
    return shutil.copyfile(source, target)


def _go() -> str:
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if not found:
        raise LabError("Go is not on the PATH; BuildKit and the reference CLI are compiled with Go 1.26 or newer")
    return found
