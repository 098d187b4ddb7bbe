# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every test: `make test`. With names of stages, runs those: `python3 tests/run.py units integration`.

What the tests need is installed by the project's own scripts (tests/lab). Each stage prints what it runs,
its output goes to `.lab/logs/test-STAGE.log` and is shown when it fails. The last line counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[0] = str(CHECKOUT)  # before anything installed that is called `tests` as well

from tests.lab import apt  # noqa: E402
from tests.lab.bring_up import bring_up, changing  # noqa: E402
from tests.lab.errors import LabError, NotAvailableError  # noqa: E402
from tests.lab.instance import MAIN, Instance  # noqa: E402
from tests.lab.places import Places  # noqa: E402
from tests.lab.progress import Progress  # noqa: E402
from tests.lab.shell_environment import search_path, variables  # noqa: E402
from tests.lab.venvs import environment  # noqa: E402

STAGE_SECONDS = 3000
UNITS = "tests/unit"
UNITS_ON_TARGETS = "tests/unit/plugins/module_utils"
CORES = str(min(4, os.cpu_count() or 1))


@dataclass
class Count:
    """How many tests passed, failed and were skipped; skips with their reasons."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.reasons += other.reasons


class Tests:
    """The stages, and what they share: places, environments, the collection as it is installed."""

    def __init__(self, scratch: Path) -> None:
        self.places = Places.of_this_checkout()
        self.progress = Progress(self.places.logs)
        self.scratch = scratch
        self.tree = scratch / "installed"
        self.copy = scratch / "copy" / "ansible_collections" / "buildfleet" / "buildx"
        self._archive: Path | None = None

    def python(self, name: str) -> Path:
        return self.programs(name) / "python"

    def programs(self, name: str) -> Path:
        return environment(name, self.places, self.progress) / "bin"

    # Running things.

    def check(
        self,
        stage: str,
        command: Sequence[str | Path],
        *,
        cwd: Path = CHECKOUT,
        env: dict[str, str] | None = None,
        programs: Path | None = None,
    ) -> Count:
        """One command that must succeed; it counts as one test."""
        code = self._run(stage, command, cwd=cwd, env=env, programs=programs)
        return Count(passed=int(code == 0), failed=int(code != 0))

    def pytest(self, stage: str, python: Path, *arguments: str, env: dict[str, str] | None = None) -> Count:
        report = self.scratch / f"{stage}.xml"
        command: list[str | Path] = [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junit-xml={report}",
            *arguments,
        ]
        code = self._run(stage, command, env={**(env or {}), "PYTHONPATH": str(CHECKOUT / ".collections")})
        count = _counted(report)
        if code and not count.failed:
            count.failed = 1  # it did not get as far as a test
        return count

    def _run(
        self,
        stage: str,
        command: Sequence[str | Path],
        *,
        cwd: Path = CHECKOUT,
        env: dict[str, str] | None = None,
        programs: Path | None = None,
    ) -> int:
        words = [str(word) for word in command]
        log = self.places.logs / f"test-{stage}.log"
        variables_ = {**os.environ, "NO_COLOR": "1", **(env or {})}
        if programs:
            variables_["PATH"] = f"{programs}{os.pathsep}{variables_['PATH']}"
        with log.open("a", encoding="utf-8") as out:
            out.write(f"$ {' '.join(words)}\n")
            out.flush()
            try:
                code = subprocess.run(
                    words, cwd=cwd, env=variables_, stdout=out, stderr=subprocess.STDOUT, check=False,
                    stdin=subprocess.DEVNULL, timeout=STAGE_SECONDS,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                out.write(f"given up after {STAGE_SECONDS} s\n")
                code = 124
        if code:
            print(f"--- {stage}: {' '.join(words)} ended with {code}; the end of {log}:", flush=True)
            print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]), flush=True)
        return code

    # Stages. Each gives its count.

    def lint(self) -> Count:
        """Formatter, linter, type checker, and what is generated."""
        programs, count = self.programs("dev"), Count()
        count.add(self.check("lint", [programs / "ruff", "format", "--check", "--quiet", "."]))
        count.add(self.check("lint", [programs / "ruff", "check", "--quiet", "."]))
        count.add(self.check("lint", [programs / "mypy", "-p", "ansible_collections.buildfleet.buildx.plugins"]))
        typed = ["tests/run.py", "tests/compat.py", "tests/lab", "tests/bench", "tests/fuzz", "tools"]
        count.add(self.check("lint", [programs / "mypy", *typed]))
        count.add(self.check("lint", [programs / "python", "tools/compile_messages.py", "--check"]))
        return count

    def units(self) -> Count:
        """Pure rules, properties and in-memory peers, on the newest Python and libraries."""
        return self.pytest("units", self.python("dev"), "-n", CORES, UNITS)

    def units39(self) -> Count:
        """The same rules on the oldest supported Python."""
        return self._on_target("units39", "target39")

    def unitsfloor(self) -> Count:
        """The same rules with the oldest supported libraries."""
        return self._on_target("unitsfloor", "floor")

    def _on_target(self, stage: str, name: str) -> Count:
        try:
            python = self.python(name)
        except NotAvailableError as exc:
            return Count(skipped=1, reasons=[f"{stage}: {exc}"])
        return self.pytest(stage, python, "-n", CORES, UNITS_ON_TARGETS)

    def sanity(self) -> Count:
        """ansible-test sanity with the newest and the oldest ansible-core, without an ignore file."""
        self._make_copy()
        count = Count()
        if not shutil.which("shellcheck"):
            with self.progress.step("shellcheck") as step:
                apt.install(["shellcheck"], step)
        for name in ("dev", "oldest"):
            count.add(self._sanity(name, self.python(name)))
        try:
            target = self.python("target39")
        except NotAvailableError as exc:
            count.add(Count(skipped=1, reasons=[f"sanity for targets: {exc}"]))
        else:
            count.add(self._sanity("dev", target, "--test", "compile", "--test", "import"))
        return count

    def _sanity(self, name: str, python: Path, *arguments: str) -> Count:
        home = self.places.cache / "ansible-test"
        _pip_stand_in(home)
        ask = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        version = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        programs = self.programs(name)
        command: list[str | Path] = [
            programs / "ansible-test",
            "sanity",
            "--venv",
            "--python",
            version,
            "--color",
            "no",
            *arguments,
        ]
        path = f"{programs}{os.pathsep}{python.parent}{os.pathsep}{os.environ['PATH']}"
        return self.check(f"sanity-{name}", command, cwd=self.copy, env={"HOME": str(home), "PATH": path})

    def collection(self) -> Count:
        """ansible-lint, antsibull-docs and antsibull-changelog on a clean copy."""
        self._make_copy()
        programs, count = self.programs("lint"), Count()
        home = str(self.scratch / "ansible-home")
        env = {"ANSIBLE_COLLECTIONS_PATH": str(self.scratch / "copy"), "ANSIBLE_HOME": home}
        commands: tuple[list[str], ...] = (
            ["ansible-lint", "--offline", "--profile", "production", "--strict"],
            ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "."],
            ["antsibull-changelog", "lint"],
        )
        for command in commands:
            words: list[str | Path] = [programs / command[0], *command[1:]]
            count.add(self.check("collection", words, cwd=self.copy, env=env, programs=programs))
        return count

    def integration(self) -> Count:
        """The installed archive against the lab's engine, BuildKit, registry and the reference CLI."""
        env = {**self.lab_variables("dev"), "BUILDX_TEST_INTERPRETERS": str(self.python("dev"))}
        return self.pytest("integration", self.python("dev"), "-n", CORES, "tests/integration", env=env)

    def oldest(self) -> Count:
        """One path through all rooms with the oldest ansible-core, on the oldest Python and libraries of targets."""
        interpreters, count = [], Count()
        for name in ("target39", "floor"):
            try:
                interpreters.append(str(self.python(name)))
            except NotAvailableError as exc:
                count.add(Count(skipped=1, reasons=[f"a playbook on {name}: {exc}"]))
        interpreters = interpreters or [str(self.python("oldest"))]
        env = {**self.lab_variables("oldest"), "BUILDX_TEST_INTERPRETERS": os.pathsep.join(interpreters)}
        count.add(self.pytest("oldest", self.python("oldest"), "tests/integration/test_smoke.py", env=env))
        return count

    def lab_variables(self, name: str) -> dict[str, str]:
        """The environment of tests against the lab, which is brought up, with the Python of an environment."""
        instance = Instance(self.places, MAIN, ())
        with changing(self.places):
            bring_up(instance, self.progress)
        self._install()
        path = os.pathsep.join([str(self.programs(name)), *search_path(instance), os.environ["PATH"]])
        python = str(self.python(name))
        found = {**variables(instance), "BUILDX_LAB_PYTHON": python, "ANSIBLE_PYTHON_INTERPRETER": python}
        archive = {"BUILDX_TEST_COLLECTIONS": str(self.tree), "BUILDX_TEST_ARCHIVE": str(self._archive)}
        return {**found, **archive, "PATH": path}

    def _install(self) -> None:
        """Build the archive and install it in a tree of its own: what is tested is what users get."""
        if self._archive is not None:
            return
        self._make_copy()
        galaxy = [str(self.programs("dev") / "ansible-galaxy"), "collection"]
        out = self.scratch / "archive"
        env = {**os.environ, "ANSIBLE_HOME": str(self.scratch / "ansible-home")}
        archive = out / "buildfleet-buildx-0.1.0.tar.gz"
        for command in (
            [*galaxy, "build", "--output-path", str(out), str(self.copy)],
            # Forced, or a shell of the lab, which finds the checkout, would have it that all is installed.
            [*galaxy, "install", "--force", "--offline", "-p", str(self.tree), str(archive)],
        ):
            subprocess.run(command, cwd=self.scratch, env=env, check=True, stdout=subprocess.DEVNULL)
        self._archive = next(out.glob("*.tar.gz"))

    def _make_copy(self) -> None:
        """The files that git knows or would take, below a path that Ansible recognises as a collection's."""
        if self.copy.exists():
            return
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            source, target = CHECKOUT / name, self.copy / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)


STAGES: dict[str, Callable[[Tests], Count]] = {
    "lint": Tests.lint,
    "units": Tests.units,
    "units39": Tests.units39,
    "unitsfloor": Tests.unitsfloor,
    "sanity": Tests.sanity,
    "collection": Tests.collection,
    "integration": Tests.integration,
    "oldest": Tests.oldest,
}
LAB_STAGES = ("integration", "oldest")


def _counted(report: Path) -> Count:
    if not report.exists():
        return Count()
    count = Count()
    root = ElementTree.parse(report).getroot()  # noqa: S314 - our own pytest wrote it
    for suite in root.iter("testsuite"):
        total, failed = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        count.add(Count(total - failed - skipped, failed, skipped))
    for case in root.iter("testcase"):
        for skip in case.iter("skipped"):
            count.reasons.append(f"{case.get('name')}: {skip.get('message')}")
    return count


def _pip_stand_in(home: Path) -> None:
    """ansible-test fetches a program that installs pip; Python brings one itself."""
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("get_pip_24_2.py", "get_pip_25_2.py"):
        (cache / name).write_text("import ensurepip\nensurepip.bootstrap(default_pip=True)\n", encoding="utf-8")


def _bring_lab_up(tests: Tests) -> None:
    with changing(tests.places):
        bring_up(Instance(tests.places, MAIN, ()), tests.progress)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"one of: {', '.join(STAGES)}")
    chosen = parser.parse_args().stages or list(STAGES)
    unknown = [name for name in chosen if name not in STAGES]
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}")
    total = Count()
    with tempfile.TemporaryDirectory(prefix="buildx-test-") as scratch:
        tests = Tests(Path(scratch))
        for log in tests.places.logs.glob("test-*.log"):
            log.unlink()
        with ThreadPoolExecutor(1) as background:
            # The lab's parts take minutes when nothing is cached; the stages that need no engine run meanwhile.
            lab: Future[None] | None = (
                background.submit(_bring_lab_up, tests) if any(name in LAB_STAGES for name in chosen) else None
            )
            for name in chosen:
                if lab is not None and name in LAB_STAGES:
                    lab.result()
                total.add(_stage(tests, name))
    for reason in total.reasons:
        print(f"skipped: {reason}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


def _stage(tests: Tests, name: str) -> Count:
    began = time.monotonic()
    print(f"=== {name}: {(STAGES[name].__doc__ or '').strip()}", flush=True)
    count = STAGES[name](tests)
    seconds = time.monotonic() - began
    print(f"    {count.passed} passed, {count.failed} failed, {count.skipped} skipped in {seconds:.0f} s", flush=True)
    return count


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as exc:
        sys.exit(f"tests/run.py: {exc}")
