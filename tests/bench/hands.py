# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a row has to work with: one builder, and the ways to run a build on it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from tests.lab.engine_api import EngineApi

from . import processes
from .processes import MeasuringError, Sample

DIRECT, EXEC = "direct", "exec"
WAYS: Mapping[str, tuple[str, ...]] = {
    DIRECT: (),
    # In a pid namespace of its own a module cannot prove whose the engine's pids are, and takes an exec.
    EXEC: ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
}
COMMAND_SECONDS = 900

_RUNNER = """
import sys, runpy
file = sys.argv[1]
sys.path.insert(0, file.split("/ansible_collections/")[0])
import ansible.module_utils.basic as basic
basic._ANSIBLE_PROFILE = "legacy"
sys.argv = [file]
runpy.run_path(file, run_name="__main__")
"""
_EMPTY = """
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}).exit_json(changed=False)
"""


@dataclass(frozen=True)
class Build:
    """What both sides are asked for. image: loaded under this name. output: written below this directory."""

    context: Path
    args: Mapping[str, str] = field(default_factory=dict)
    image: Optional[str] = None
    output: Optional[Path] = None

    def words(self) -> list[str]:
        """For the CLI."""
        found = [f"--build-arg={name}={value}" for name, value in self.args.items()]
        if self.image:
            found += ["--load", f"--tag={self.image}"]
        if self.output:
            found += [f"--output=type=local,dest={self.output}"]
        return [*found, str(self.context)]

    def options(self) -> dict[str, Any]:
        """For the module."""
        found: dict[str, Any] = {"path": str(self.context), "args": dict(self.args)}
        if self.image:
            found["name"] = self.image
        if self.output:
            found["outputs"] = [{"type": "local", "dest": str(self.output)}]
        return found


class Hands:
    """A builder that both sides use, in a store that both sides know.

    environment: a shell of the lab, with BUILDX_TEST_COLLECTIONS naming the tree with the installed archive.
    """

    def __init__(self, environment: Mapping[str, str], scratch: Path, builder: str) -> None:
        # A module comes to a target as an archive without bytecode: its own code is compiled in every run.
        self.environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}
        self.scratch = scratch
        self.builder = builder
        self.engine = EngineApi(Path(environment["DOCKER_HOST"].removeprefix("unix://")))
        self._empty = scratch / "empty.py"
        self._empty.write_text(_EMPTY, encoding="utf-8")

    # What is measured.

    def cli(self, build: Build) -> Sample:
        command = ["docker", "buildx", "build", f"--builder={self.builder}", *build.words()]
        return processes.run(command, self.environment, "", self.scratch / "cli.out")

    def module(self, build: Build, way: str = DIRECT) -> Sample:
        return self._module("buildx_build", {"builder": self.builder, **build.options()}, way)

    def empty(self, way: str) -> Sample:
        """A module that does nothing: what Ansible itself costs."""
        return self._python(self._empty, {}, way)

    def _module(self, name: str, options: Mapping[str, Any], way: str) -> Sample:
        tree = Path(self.environment["BUILDX_TEST_COLLECTIONS"])
        return self._python(tree / f"ansible_collections/buildfleet/buildx/plugins/modules/{name}.py", options, way)

    def _python(self, file: Path, options: Mapping[str, Any], way: str) -> Sample:
        command = [*WAYS[way], self.environment["BUILDX_LAB_PYTHON"], "-c", _RUNNER, str(file)]
        given = json.dumps({"ANSIBLE_MODULE_ARGS": dict(options)})
        return processes.run(command, self.environment, given, self.scratch / "module.out")

    # What is not.

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The builder, while it is needed.

        A log of a million lines would be cut without its variables, and the garbage collection of a small disk
        would take from one side what it had sent before.
        """
        env = {"BUILDKIT_STEP_LOG_MAX_SIZE": "-1", "BUILDKIT_STEP_LOG_MAX_SPEED": "-1"}
        config = {"worker": {"oci": {"gc": False}}}
        options = {"name": self.builder, "env": env, "buildkitd_config": config}
        try:
            self._module("buildx_builder", options, DIRECT)
            yield
        finally:
            self.docker("buildx", "rm", "--force", self.builder, check=False)

    def docker(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=True, text=True, check=False,
            timeout=COMMAND_SECONDS,
        )  # fmt: skip
        if check and done.returncode:
            raise MeasuringError(f"docker {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def forget_contexts(self) -> None:
        """Take from the daemon every directory that was sent to it: the next sync is a first one."""
        which = (f"--builder={self.builder}", "--filter=type=source.local")
        self.docker("buildx", "prune", "--all", "--force", *which)
        left = self.docker("buildx", "du", "--format={{.ID}}", *which).split()
        if left:
            raise MeasuringError(f"the daemon keeps {len(left)} directories that it should forget")

    def has_option(self, name: str) -> bool:
        """Whether buildx_build has an option, by its documentation."""
        command = ["ansible-doc", "--type=module", "--json", "buildfleet.buildx.buildx_build"]
        known = {"ANSIBLE_COLLECTIONS_PATH": self.environment["BUILDX_TEST_COLLECTIONS"]}
        done = subprocess.run(command, env={**self.environment, **known}, capture_output=True, text=True, check=True)
        return name in json.loads(done.stdout)["buildfleet.buildx.buildx_build"]["doc"]["options"]

    def check_ways(self) -> None:
        """Each way of the module is the one that its column names, by the engine's own events."""
        context = self.scratch / "ways"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n", encoding="utf-8")
        build = Build(context)
        for way in WAYS:
            since = f"{time.time():.9f}"
            self.module(build, way)
            until = f"{time.time():.9f}"
            container = f"--filter=container=buildx_buildkit_{self.builder}0"
            events = self.docker(
                "events", "--since", since, "--until", until, container, "--filter", "event=exec_create"
            )
            if bool(events) is not (way == EXEC):
                raise MeasuringError(f"the module did not take the way {way}: {events.strip() or 'no exec was made'}")

    def base(self, directory: Path) -> None:
        """The lab's base image as `root.tar` in a context: builders see no images of the engine."""
        image = self.environment["BUILDX_LAB_BASE_IMAGE"]
        self.docker("pull", "--quiet", image)
        container = self.docker("create", image).strip()
        try:
            self.docker("export", "--output", str(directory / "root.tar"), container)
        finally:
            self.docker("rm", "--force", container)


def result(sample: Sample) -> dict[str, Any]:
    """The result of a module."""
    found: dict[str, Any] = json.loads(next(line for line in sample.lines() if line.startswith("{")))
    return found


def executed(sample: Sample) -> set[str]:
    """The steps of the Dockerfile that were not cached, by the log of the CLI or by the module's result."""
    with contextlib.suppress(StopIteration):
        return set(result(sample)["executed"])
    return executed_steps(sample.lines())


def executed_steps(lines: Iterable[str]) -> set[str]:
    """The same of the lines of a plain log."""
    steps: dict[str, str] = {}
    for line in lines:
        match = re.match(r"#(\d+) (\[(?:\S+ )?\d+/\d+\] .*|CACHED)$", line)
        if match and match[2] == "CACHED":
            steps.pop(match[1], None)
        elif match:
            steps[match[1]] = match[2]
    return set(steps.values())
