#!/usr/bin/env python3
# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo`: look at this machine, set up what is missing, run playbooks/demo.yml, leave nothing behind.

An engine that runs and can run builders is used, and left as it was found; where there is none, the
lab's engine is started for the time of the demo. What was downloaded and compiled stays in the cache.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# Nothing but the standard library is used, and no installed package called `tests` may come before ours.
sys.path[:] = [str(CHECKOUT), *(path for path in sys.path[1:] if not path.endswith("-packages"))]

from tests.lab import apt  # noqa: E402
from tests.lab.bring_up import changing  # noqa: E402
from tests.lab.buildkit import BUILDKIT_VERSION, DEFAULT_TAG, base_image, buildkit_image  # noqa: E402
from tests.lab.cache import Cache, exclusive  # noqa: E402
from tests.lab.errors import LabError  # noqa: E402
from tests.lab.instance import Instance  # noqa: E402
from tests.lab.places import Places  # noqa: E402
from tests.lab.progress import Progress  # noqa: E402
from tests.lab.roots import engine_root  # noqa: E402
from tests.lab.venvs import environment  # noqa: E402
from tools.demonstration import names  # noqa: E402
from tools.demonstration.engine import Engine, EngineError  # noqa: E402
from tools.demonstration.look import Found, Refusal, look, missing, remove, runs_privileged  # noqa: E402
from tools.demonstration.material import load_buildkit, root_archive  # noqa: E402

PLAYBOOK = CHECKOUT / "playbooks" / "demo.yml"
INSTANCE = "demo"
INTERRUPTED = 130
# How long Ansible may take to end after an interrupt before it is killed.
END_SECONDS = 10.0
# They would lead Ansible or the modules somewhere else.
_FOREIGN = ("ANSIBLE_", "BUILDKIT_", "BUILDX_", "COMPOSE_", "DOCKER_", "PYTHON")


@dataclass(frozen=True)
class Stage:
    """Where the playbook plays. own: the engine was started for it."""

    engine: Engine
    root_archive: Path
    own: bool


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    places = Places.of_this_checkout()
    progress = Progress(places.logs)
    try:
        with ExitStack() as undo:
            return demonstrate(places, progress, undo)
    except (Refusal, LabError, EngineError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; what it had made is removed", file=sys.stderr)
        return INTERRUPTED


def demonstrate(places: Places, progress: Progress, undo: ExitStack) -> int:
    """The demo from look to farewell; whatever has to be undone is noted in `undo` before it is done."""
    found = look(progress.print, undo)
    lacks = missing(found, places)
    if lacks:
        raise Refusal("this machine lacks\n" + "\n".join(f"  - {line}" for line in lacks))
    work = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="buildfleet-demo-")))
    with progress.heartbeat(), ThreadPoolExecutor(max_workers=1) as pool:
        installing = pool.submit(environment, "dev", places, progress)
        stage = set_stage(found, work, places, progress, undo)
        programs = installing.result() / "bin"
    undo.callback(remove_everything, stage.engine, progress)
    progress.print(f"playbook: {PLAYBOOK.relative_to(CHECKOUT)}")
    status = play(stage, work, programs)
    if status == 0:
        print(farewell(stage, programs), flush=True)
    return status


def set_stage(found: Found, work: Path, places: Places, progress: Progress, undo: ExitStack) -> Stage:
    """An engine that has or pulls BuildKit's image, and a root for Dockerfiles."""
    cache = Cache(places.cache)
    if found.engine and not found.has_image:
        undo.callback(remove, found.engine.remove_image, names.BUILDKIT_IMAGE, progress.print)
        load_buildkit(found.engine, work, cache, progress)
        if not runs_privileged(found.engine):
            progress.print("engine: it cannot run a privileged container; the demo starts one of its own")
            found = Found(None)
    if found.engine:
        return Stage(found.engine, root_archive(found.engine, work, progress, undo), own=False)
    return own_stage(places, cache, progress, undo)


def own_stage(places: Places, cache: Cache, progress: Progress, undo: ExitStack) -> Stage:
    """An engine of the lab for this demo alone, beside the one of `make lab`, with a registry to pull from."""
    instance = Instance(places, INSTANCE)
    undo.enter_context(
        exclusive(
            places.state / f"{INSTANCE}.lock", lambda: progress.print("waiting for another demo of this checkout")
        )
    )
    with progress.step("programs of this machine") as step:
        apt.require_program("mmdebstrap", "mmdebstrap", step)
    with ThreadPoolExecutor(max_workers=1) as pool:
        making = pool.submit(buildkit_image, BUILDKIT_VERSION, DEFAULT_TAG, cache, progress)
        with progress.step("engine root") as step:
            root = engine_root(cache, step)
        base = base_image(root, cache, progress)
        undo.callback(_destroy, instance)
        with changing(places), progress.step("engine of the demo") as step:
            instance.destroy()  # what a demo that was killed may have left
            instance.start(root, step)
        image = making.result()
    with changing(places), progress.step("registry of the demo") as step:
        instance.fill_registry([image, base], step)
        instance.prove(step)
    return Stage(Engine(instance.engine.host), base.layers[0].archive, own=True)


def _destroy(instance: Instance) -> None:
    with changing(instance.places):
        instance.destroy()


def play(stage: Stage, work: Path, programs: Path) -> int:
    """Run the playbook in a process group of its own, so that an interrupt ends it in order. Its exit status."""
    variables = {**names.variables(), "demo_root_archive": str(stage.root_archive)}
    (work / "variables.json").write_text(json.dumps(variables))
    python = programs / "python"
    inventory = f"localhost ansible_connection=local ansible_python_interpreter={shlex.quote(str(python))}\n"
    (work / "inventory").write_text(inventory)
    command = [
        str(programs / "ansible-playbook"), str(PLAYBOOK),
        "--inventory", str(work / "inventory"), "--extra-vars", f"@{work / 'variables.json'}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=_environment(stage, work, programs), stdin=subprocess.DEVNULL, process_group=0
    )
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _environment(stage: Stage, work: Path, programs: Path) -> dict[str, str]:
    """The caller's environment without what leads elsewhere, and everything temporary below the work directory."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {
        **inherited,
        "PATH": f"{programs}:{inherited.get('PATH', os.defpath)}",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(work),
        "DOCKER_HOST": stage.engine.host,
        "DOCKER_CONFIG": str(work / "docker"),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_REMOTE_TEMP": str(work / "ansible" / "remote"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        "ANSIBLE_RETRY_FILES_ENABLED": "false",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the playbook's processes to end, then make them."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(END_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def remove_everything(engine: Engine, progress: Progress) -> None:
    """What the playbook makes and, when it comes to its end, removes itself; nothing of these names was there before."""
    for how, made in (
        (engine.remove_container, names.containers()),
        (engine.remove_volume, names.volumes()),
        (engine.remove_image, names.images()),
    ):
        for name in made:
            remove(how, name, progress.print)


def farewell(stage: Stage, programs: Path) -> str:
    """What a newcomer may try next, ready to be pasted."""
    if stage.own:
        shell = 'make lab && eval "$(make -s lab-env)"  # an engine to play with; make lab-down ends it'
    else:
        shell = f"export PATH={shlex.quote(str(programs))}:$PATH ANSIBLE_CONFIG={shlex.quote(str(CHECKOUT / 'ansible.cfg'))}"
    return f"""
Everything that the demo made is removed. To go on:

  {shell}
  ansible localhost -m buildx_builder -a 'name=container state=started'
  ansible localhost -m buildx_info
  ansible localhost -m buildx_builder -a 'name=container state=absent'

  playbooks/demo.yml     what was just played
  README.md              modules, options, and how to install the collection
  docs/architecture.md   how it works
"""


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
