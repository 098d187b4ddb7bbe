# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo from the look around to the farewell."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.places import Places
from tests.lab.progress import Progress
from tests.lab.venvs import environment

from . import names
from .engine import Engine, EngineError
from .look import RefusalError, look, missing, remove
from .stage import Hands, Stage, set_stage

INTERRUPTED = 130
# How long Ansible may take to end after an interrupt before it is killed.
END_SECONDS = 10.0
# They would lead Ansible or the modules somewhere else.
_FOREIGN = ("ANSIBLE_", "BUILDKIT_", "BUILDX_", "DOCKER_", "PYTHON")


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    places = Places.of_this_checkout()
    progress = Progress(places.logs)
    try:
        with ExitStack() as undo:
            return demonstrate(places, progress, undo)
    except (RefusalError, LabError, EngineError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; what it had made is removed", file=sys.stderr)
        return INTERRUPTED


def demonstrate(places: Places, progress: Progress, undo: ExitStack) -> int:
    """Everything in order; what has to be undone is noted in `undo` before it is done. The playbook's exit status."""
    found = look(progress.print, undo)
    lacks = missing(found, places)
    if lacks:
        raise RefusalError("this machine lacks\n" + "\n".join(f"  - {line}" for line in lacks))
    work = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="buildfleet-demo-")))
    with progress.heartbeat(), ThreadPoolExecutor(max_workers=2) as pool:
        installing = pool.submit(environment, "dev", places, progress)
        try:
            stage = set_stage(found, Hands(places, progress, undo, pool, work))
            programs = installing.result() / "bin"
        except (LabError, EngineError) as error:
            progress.print(
                f"failed: {str(error).splitlines()[0]}; what else is under way is finished, for the next time"
            )
            raise
    undo.callback(_remove_everything, stage.engine, progress)
    progress.print("playbook: playbooks/demo.yml")
    status = _play(stage, work, places.checkout, programs)
    if status == 0:
        print(_farewell(stage, places.checkout, programs), flush=True)
    return status


def _play(stage: Stage, work: Path, checkout: Path, programs: Path) -> int:
    """Run the playbook in a process group of its own, so that an interrupt reaches it through us."""
    variables = {**names.variables(), "demo_root_archive": str(stage.root_archive)}
    (work / "variables.json").write_text(json.dumps(variables))
    python = shlex.quote(str(programs / "python"))
    (work / "inventory").write_text(f"localhost ansible_connection=local ansible_python_interpreter={python}\n")
    command = [
        str(programs / "ansible-playbook"), str(checkout / "playbooks" / "demo.yml"),
        "--inventory", str(work / "inventory"), "--extra-vars", f"@{work / 'variables.json'}",
    ]  # fmt: skip
    env = _environment(stage, work, checkout, programs)
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, process_group=0)
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _environment(stage: Stage, work: Path, checkout: Path, programs: Path) -> dict[str, str]:
    """The caller's environment without what leads elsewhere, and everything temporary below the work directory."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {
        **inherited,
        "PATH": f"{programs}:{inherited.get('PATH', os.defpath)}",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(work),
        "DOCKER_HOST": stage.engine.host,
        "DOCKER_CONFIG": str(work / "docker"),
        "ANSIBLE_CONFIG": str(checkout / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(checkout / ".collections"),
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_REMOTE_TEMP": str(work / "ansible" / "remote"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the playbook's processes to end, then make them."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(END_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _remove_everything(engine: Engine, progress: Progress) -> None:
    """What the playbook makes, and removes itself when it comes to its end. Nothing had these names before."""
    for how, made in (
        (engine.remove_container, names.containers()),
        (engine.remove_volume, names.volumes()),
        (engine.remove_image, names.images()),
    ):
        for name in made:
            remove(how, name, progress.print)


def _farewell(stage: Stage, checkout: Path, programs: Path) -> str:
    """What a newcomer may try next, ready to be pasted."""
    if stage.own:
        shell = 'make lab && eval "$(make -s lab-env)"  # an engine to play with; make lab-down ends it'
    else:
        config = shlex.quote(str(checkout / "ansible.cfg"))
        shell = f'export ANSIBLE_CONFIG={config} PATH={shlex.quote(str(programs))}:"$PATH"'
    return f"""
Everything that the demo made is removed. To go on:

  {shell}
  ansible localhost -m buildx_builder -a 'name=container state=started'
  ansible localhost -m buildx_info
  ansible localhost -m buildx_builder -a 'name=container state=absent'

  playbooks/demo.yml     what was just played
  README.md              the modules, and how to install the collection
  docs/architecture.md   how it works
"""


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt
