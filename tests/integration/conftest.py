# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the integration tests: the collection as it is installed, against the lab's real engine.

tests/run.py brings the lab up, installs the built archive in a temporary tree, and starts pytest with
BUILDX_TEST_COLLECTIONS naming that tree. Each test has a docker configuration, and so a store, of its own,
and a builder name of its own; what it leaves on the engine is removed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 300
TESTED_VERSION = os.environ.get("BUILDX_COMPAT_VERSION", "")
"""Which BuildKit the builders of the tests run, "": the one of the lab (`make compat`)."""
BUILDKIT_IMAGE = f"moby/buildkit:{TESTED_VERSION}" if TESTED_VERSION else ""


def older_than(minor: int) -> bool:
    """Whether the BuildKit that is tested is one before 0.`minor`."""
    found = re.match(r"v0\.(\d+)\.", TESTED_VERSION)
    return found is not None and int(found[1]) < minor


@dataclass
class Bench:
    """One test's hands: a store of its own, the modules, Ansible, and the reference CLI.

    prefix: a command that modules are started through, such as `unshare --pid …`.
    first:  Python that a module's process runs before the module, to make a time shorter.
    """

    environment: dict[str, str]
    directory: Path
    name: str
    prefix: tuple[str, ...] = ()
    first: str = ""

    older_than = staticmethod(older_than)

    @property
    def store(self) -> Path:
        return Path(self.environment["DOCKER_CONFIG"]) / "buildx"

    def module(self, module: str, *, check: bool = False, diff: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run a module as Ansible would, without Ansible's own start-up. The result, `failed` included."""
        return self.finish(self.begin(module, check=check, diff=diff, **arguments))

    def begin(self, module: str, *, check: bool = False, diff: bool = False, **arguments: Any) -> subprocess.Popen[str]:
        """Start a module and leave it running; `finish` gives its result."""
        file = Path(self.environment["BUILDX_TEST_COLLECTIONS"])
        file = file / "ansible_collections/buildfleet/buildx/plugins/modules" / f"{module}.py"
        wanted = {**arguments, "_ansible_check_mode": check, "_ansible_diff": diff}
        process = subprocess.Popen(
            [*self.prefix, self.environment["BUILDX_LAB_PYTHON"], "-c", _RUNNER.format(first=self.first), str(file)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": wanted}))
        process.stdin.close()
        process.stdin = None
        return process

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        assert lines, f"the module gave no result (exit {process.returncode}):\n{out}\n{err}"
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    def builder(self, **arguments: Any) -> dict[str, Any]:
        """buildx_builder on this test's builder, with the BuildKit that is tested; it must not fail."""
        tested = {"image": BUILDKIT_IMAGE} if BUILDKIT_IMAGE else {}
        result = self.module("buildx_builder", **{"name": self.name, **tested, **arguments})
        assert not result.get("failed"), result
        return result

    def build(self, path: Path, **arguments: Any) -> dict[str, Any]:
        """buildx_build of a context on this test's builder; it must not fail."""
        result = self.module("buildx_build", **{"builder": self.name, "path": str(path), **arguments})
        assert not result.get("failed"), result
        return result

    def failed_build(self, path: Path, **arguments: Any) -> dict[str, Any]:
        """The same; it must fail, and with a message rather than a traceback."""
        result = self.module("buildx_build", **{"builder": self.name, "path": str(path), **arguments})
        assert result.get("failed"), result
        assert "Traceback" not in result["msg"], result
        return result

    def trusting_builder(self) -> None:
        """This test's builder, on the lab's network, with the authority of the private registry."""
        config = self.environment["BUILDX_LAB_PRIVATE_BUILDKITD_CONFIG"]
        self.buildx(
            "create", "--name", self.name, "--driver-opt", "network=host", "--buildkitd-config", config, "--bootstrap"
        )

    def docker_config(self, **config: Any) -> None:
        """Docker's config.json of this test."""
        file = Path(self.environment["DOCKER_CONFIG"]) / "config.json"
        file.write_text(json.dumps(config), encoding="utf-8")

    def log_in(self, password: str) -> None:
        """Docker's configuration with this password for the private registry."""
        user, registry = (self.environment[f"BUILDX_LAB_PRIVATE_{word}"] for word in ("USER", "REGISTRY"))
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.docker_config(auths={registry: {"auth": login}})

    @staticmethod
    def warnings(result: dict[str, Any]) -> list[str]:
        """The texts of a result's warnings, which a module hands to Ansible as objects."""
        found = result.get("warnings") or []
        return [item if isinstance(item, str) else item["event"]["msg"] for item in found]

    def image(self) -> str:
        """A new name for an image, which is removed with the builder."""
        return f"{self.name}/{uuid.uuid4().hex[:8]}"

    def files(self, image: str) -> set[str]:
        """The paths of what is no directory in an image, which need not have a shell to list them."""
        container = self.docker("create", image, "none").strip()
        try:
            archive = self.directory / "image.tar"
            self.docker("export", "-o", str(archive), container)
        finally:
            self.docker("rm", container)
        made = ("dev/", "etc/", "proc/", "sys/", ".dockerenv")  # by the engine, in every container
        listed = self.run("tar", "-tf", str(archive)).stdout.splitlines()
        return {line for line in listed if not line.startswith(made) and not line.endswith("/")}

    def row(self, name: str | None = None) -> dict[str, Any]:
        """What buildx_info says of this test's builder."""
        result = self.module("buildx_info", name=[name or self.name])
        assert not result.get("failed"), result
        row: dict[str, Any] = result["builders"][0]
        return row

    def play(self, tasks: str, *arguments: str, fail: bool = False) -> str:
        """Run a playbook with these tasks through ansible-playbook; what it printed."""
        file = self.directory / "play.yml"
        file.write_text(f"- hosts: localhost\n  gather_facts: false\n  tasks:\n{tasks}", encoding="utf-8")
        done = self.run("ansible-playbook", str(file), *arguments, check=False)
        assert (done.returncode != 0) is fail, done.stdout + done.stderr
        return done.stdout + done.stderr

    def docker(self, *arguments: str, check: bool = True) -> str:
        return self.run("docker", *arguments, check=check).stdout

    def buildx(self, *arguments: str, check: bool = True) -> str:
        """The reference CLI, whose builders run the BuildKit that is tested; what it printed on both channels."""
        if BUILDKIT_IMAGE and arguments[0] == "create" and "remote" not in arguments:
            arguments = ("create", "--driver-opt", f"image={BUILDKIT_IMAGE}", *arguments[1:])
        done = self.run("docker", "buildx", *arguments, check=check)
        return done.stdout + done.stderr

    def inspect(self, container: str | None = None) -> dict[str, Any]:
        """The engine's inspect of a container, by default that of this test's first node."""
        found: dict[str, Any] = json.loads(self.docker("inspect", container or self.container))[0]
        return found

    @property
    def container(self) -> str:
        return f"buildx_buildkit_{self.name}0"

    @property
    def volume(self) -> str:
        """The state volume of this test's first node."""
        return f"{self.container}_state"

    @property
    def entry(self) -> Path:
        """The file of this test's builder in the store."""
        return self.store / "instances" / self.name

    def stored(self) -> dict[str, Any]:
        """The first node of this test's builder, as the store has it."""
        node: dict[str, Any] = json.loads(self.entry.read_text(encoding="utf-8"))["Nodes"][0]
        return node

    def in_container(self, script: str, container: str | None = None) -> str:
        """What a shell in a container prints, by default in that of this test's first node."""
        return self.docker("exec", container or self.container, "sh", "-c", script)

    @staticmethod
    def processes(*command: str) -> list[int]:
        """The processes of exactly this command: those of the lab's containers are seen in this machine's /proc."""
        wanted, found = "".join(f"{word}\0" for word in command).encode(), []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if process.read_bytes() == wanted:
                    found.append(int(process.parent.name))
        return found

    def runs(self, *command: str) -> bool:
        """Whether there is a process of exactly this command."""
        return bool(self.processes(*command))

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """Wait until a condition holds, and return its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.05)
        return value

    def tree(self, directory: Path | None = None) -> dict[str, tuple[str, bytes]]:
        """Every file and directory below one, by default the store: path → (mode, content)."""
        root = directory or self.store
        return {
            str(path.relative_to(root)): (
                oct(path.lstat().st_mode),
                path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
            )
            for path in sorted(root.rglob("*"))
        }

    def hide(self, package: str) -> None:
        """Let the modules' Python miss a package, as on a target where it was never installed."""
        (self.directory / "sitecustomize.py").write_text(
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if (name + '.').startswith('{package}.'):\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Missing())\n",
            encoding="utf-8",
        )
        self.environment["PYTHONPATH"] = str(self.directory)

    def lab(self, *arguments: str) -> None:
        """A command of the lab: `registry stop`, `engine kill` …"""
        _lab(*arguments)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done


@dataclass
class Driven:
    """The client without the module: one solve of a context on a running builder, with services of the test's own."""

    bench: Bench
    docker_host: str

    @staticmethod
    def older_than(minor: int) -> bool:
        return older_than(minor)

    def solve(
        self,
        context: Path,
        *,
        services: Iterable[Any] = (),
        exporters: Iterable[tuple[str, Mapping[str, str]]] = (),
        cache_exports: Iterable[tuple[str, Mapping[str, str]]] = (),
        frontend: Mapping[str, str] | None = None,
        progress: Any = None,
    ) -> Mapping[str, str]:
        """The exporters' response. Raises BuildxError. frontend: attributes of dockerfile.v0."""
        from ansible_collections.buildfleet.buildx.plugins.module_utils import _connect as connect
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import solve
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
        from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
        from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
        from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
        from ansible_collections.buildfleet.buildx.plugins.module_utils._identifiers import new_ref

        with Engine(Target(self.docker_host)) as engine:
            dialer = connect.container_dialer(engine, self.bench.inspect())
            try:
                with Client(dialer) as client:
                    files = FileSync({"context": str(context), "dockerfile": str(context)})
                    session = Session(dialer, new_ref(), uuid.uuid4().hex, [Health(), files, *services])
                    request = control.SolveRequest(
                        Ref=new_ref(), Session=session.id, Frontend="dockerfile.v0", FrontendAttrs=frontend or {}
                    )
                    request.Cache.SetInParent()
                    for kind, attrs in exporters:
                        request.Exporters.add(Type=kind, Attrs=attrs)
                        request.ExporterDeprecated = kind  # what a daemon up to 0.12 reads
                        request.ExporterAttrsDeprecated.update(attrs)
                    for kind, attrs in cache_exports:
                        request.Cache.Exports.add(Type=kind, Attrs=attrs)
                    return solve.run(client, session, request, progress or Progress(), Deadline(COMMAND_SECONDS))
            finally:
                dialer.close()


_RUNNER = """
import sys, runpy
file = sys.argv[1]
sys.path.insert(0, file.split("/ansible_collections/")[0])
import ansible.module_utils.basic as basic
basic._ANSIBLE_PROFILE = "legacy"
sys.argv = [file]
{first}
runpy.run_path(file, run_name="__main__")
"""


@pytest.fixture
def bench(tmp_path: Path, ansible_config: Path) -> Iterator[Bench]:
    made = _make(tmp_path, ansible_config)
    yield made
    _clean(made)


@pytest.fixture(scope="session", autouse=True)
def tested_buildkit() -> None:
    """The version of $BUILDX_COMPAT_VERSION is there to be pulled."""
    if TESTED_VERSION:
        _lab("buildkit", TESTED_VERSION)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, ansible_config: Path) -> Iterator[Bench]:
    """A builder that runs, made once: take `ready`."""
    made = _make(tmp_path_factory.mktemp("running"), ansible_config)
    made.builder()
    yield made
    _clean(made)


@pytest.fixture(scope="session")
def containerd_engine() -> str:
    """The address of a second engine of the lab, with the containerd image store; it ends with the lab."""
    instance = ("--name", "containerd", "--engine-option=--feature=containerd-snapshotter")
    _lab(*instance, "up")
    words = shlex.split(_lab(*instance, "env"))
    return next(word.partition("=")[2] for word in words if word.startswith("DOCKER_HOST="))


@pytest.fixture
def ready(running: Bench, tmp_path: Path) -> Bench:
    """A builder that runs and that all tests share which only build: names of images come from `image`."""
    return replace(running, directory=tmp_path, environment=dict(running.environment))


@pytest.fixture
def driven(ready: Bench) -> Driven:
    """The client on the builder that tests share."""
    return Driven(ready, os.environ["DOCKER_HOST"])


@pytest.fixture
def driven_alone(bench: Bench) -> Driven:
    """The client on a builder of the test's own, whose cache may be thrown away."""
    bench.builder()
    return Driven(bench, os.environ["DOCKER_HOST"])


@pytest.fixture(scope="session")
def trusting(tmp_path_factory: pytest.TempPathFactory, ansible_config: Path) -> Iterator[Bench]:
    """A builder on the lab's network that trusts its private registry, made once: take `there`."""
    made = _make(tmp_path_factory.mktemp("trusting"), ansible_config)
    lab = ("python3", str(CHECKOUT / "tests/lab/lab.py"), "--name", made.environment["BUILDX_LAB_NAME"])
    made.prefix = (*lab, "network")
    made.trusting_builder()
    yield made
    _clean(made)


@pytest.fixture
def there(trusting: Bench, tmp_path: Path) -> Bench:
    """A builder that all tests with registries share, used from where they are, with a login to the private one."""
    trusting.log_in(trusting.environment["BUILDX_LAB_PRIVATE_PASSWORD"])
    return replace(trusting, directory=tmp_path, environment=dict(trusting.environment))


class Mortal:
    """An engine of the lab that tests may kill. It ends with the lab."""

    instance = ("--name", "mortal")

    def __init__(self) -> None:
        _lab(*self.instance, "up")
        words = shlex.split(_lab(*self.instance, "env"))
        self.host = next(word for word in words if word.startswith("DOCKER_HOST=")).partition("=")[2]

    def kill(self) -> None:
        _lab(*self.instance, "engine", "kill")

    def start(self) -> None:
        _lab(*self.instance, "engine", "start")


@pytest.fixture(scope="session")
def mortal_engine() -> Mortal:
    return Mortal()


def _lab(*arguments: str) -> str:
    command = [sys.executable, str(CHECKOUT / "tests/lab/lab.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * COMMAND_SECONDS, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def _make(directory: Path, ansible_config: Path) -> Bench:
    config = directory / "docker"
    config.mkdir()
    plugins = Path(os.environ["DOCKER_CONFIG"]) / "cli-plugins"
    if plugins.exists():
        (config / "cli-plugins").symlink_to(plugins)
    environment = {**os.environ, "DOCKER_CONFIG": str(config), "ANSIBLE_CONFIG": str(ansible_config)}
    if BUILDKIT_IMAGE:
        environment["BUILDX_LAB_BUILDKIT_IMAGE"] = BUILDKIT_IMAGE
    environment["HOME"] = str(directory)
    return Bench(environment, directory, f"t{uuid.uuid4().hex[:8]}")


def _clean(bench: Bench) -> None:
    """Remove what the test left on the engine; its name is in the name of everything."""
    for kind, remove in ((["ps", "-aq"], ["rm", "-fv"]), (["volume", "ls", "-q"], ["volume", "rm", "-f"])):
        found = bench.docker(*kind, "--filter", f"name={bench.name}", check=False).split()
        if found:
            bench.docker(*remove, *found, check=False)
    images = bench.docker("images", "--format", "{{.Repository}}:{{.Tag}}", check=False).split()
    mine = [image for image in images if bench.name in image]
    if mine:
        bench.docker("rmi", "-f", *mine, check=False)


@pytest.fixture(scope="session")
def ansible_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that finds the installed archive and nothing of the checkout."""
    file = tmp_path_factory.mktemp("ansible") / "ansible.cfg"
    file.write_text(
        f"[defaults]\ncollections_path = {os.environ['BUILDX_TEST_COLLECTIONS']}\n"
        f"interpreter_python = {os.environ['BUILDX_LAB_PYTHON']}\nlocalhost_warning = False\n"
        f"[inventory]\ninventory_unparsed_warning = False\n",
        encoding="utf-8",
    )
    return file


@pytest.fixture
def mark() -> str:
    """An argument of `sleep` that no other test has."""
    return f"600.{uuid.uuid4().int % 10**9}"


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A directory for the temporary files of a module."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


@pytest.fixture
def context(tmp_path: Path, root_archive: Path) -> Callable[..., Path]:
    """Make a build context: `context(dockerfile, **files)`; `root.tar` in it is a root file system with a shell."""

    def make(dockerfile: str, directory: str = "context", **files: str) -> Path:
        path = tmp_path / directory
        path.mkdir(exist_ok=True)
        if not (path / "root.tar").exists():
            (path / "root.tar").write_bytes(root_archive.read_bytes())
        (path / "Dockerfile").write_text(dockerfile, encoding="utf-8")
        for name, content in files.items():
            (path / name.replace("__", ".")).write_text(content, encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def root_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's base image as a tar: builders see no images of the engine, so that builds start from it."""
    file = tmp_path_factory.mktemp("root") / "root.tar"
    image = os.environ["BUILDX_LAB_BASE_IMAGE"]

    def docker(*arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS
        )
        return done.stdout.strip()

    docker("pull", "-q", image)
    container = docker("create", image)
    try:
        docker("export", "-o", str(file), container)
    finally:
        docker("rm", "-f", container)
    return file
