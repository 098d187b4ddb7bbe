# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's command line; `make lab`, `make lab-down` and `make -s lab-env` are the ones for every day.

    up | down | destroy | env | status      the lab of this checkout
    engine start|stop|kill                  the engine alone, as an administrator or a crash would
    registry start|stop                     the registry alone; without it nothing can be pulled
    buildkit VERSION                        another BuildKit, served as moby/buildkit:VERSION
    exec COMMAND…                           a command in the engine's root and network
    network COMMAND…                        a command of this machine in the engine's network, with its hosts file
    venv NAME                               prints the path of an environment, made when missing
    program NAME                            the same of a program that only some tests need

`--name` chooses another instance than `main`, with an engine and a registry of its own, and
`--engine-option` gives its engine another option, e.g. `--engine-option=--feature=containerd-snapshotter`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

if not __package__:  # run as a script: the package is found beside it, before anything of the same name
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "tests.lab"

from .bring_up import bring_up, changing, serve_buildkit
from .cache import Cache, remove_tree
from .errors import LabError, NotAvailableError
from .gobuild import compile_program, h2spec
from .instance import MAIN, Instance, known_instances
from .places import Places
from .progress import Progress
from .shell_environment import export_lines
from .venvs import ENVIRONMENTS, environment

NOT_AVAILABLE_STATUS = 3
PROGRAMS = {"h2spec": h2spec}


def up(arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    instance = _instance(arguments, places)
    with changing(places):
        bring_up(instance, progress)
    progress.print(f'the lab is up; in a shell: eval "$(make -s lab-env)"  # engine {instance.engine.api.version()}')
    return 0


def down(_arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    """Every instance of the checkout, so that nothing is left behind."""
    with changing(places):
        for instance in known_instances(places):
            instance.stop()
    progress.print("the lab is down")
    return 0


def destroy(_arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    with changing(places):
        for instance in known_instances(places):
            instance.destroy()
        remove_tree(places.short_directory)
    remove_tree(places.state)
    progress.print("the lab is gone; what the cache holds stays")
    return 0


def env(arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    instance = _instance(arguments, places)
    if not instance.engine.api.answers():
        progress.print("the lab's engine does not answer; run `make lab`")
    print(export_lines(instance))
    return 0


def status(_arguments: argparse.Namespace, places: Places, _progress: Progress) -> int:
    for instance in known_instances(places):
        engine = "up" if instance.engine.api.answers() else "down"
        registry = "up" if instance.machine.holder and instance.registry.answers() else "down"
        print(f"{instance.name}: engine {engine}, registry {registry}, {len(instance.machine.group.pids())} processes")
    return 0


def engine(arguments: argparse.Namespace, places: Places, _progress: Progress) -> int:
    instance = _instance(arguments, places)
    with changing(places):
        getattr(instance.engine, arguments.action)()
    return 0


def registry(arguments: argparse.Namespace, places: Places, _progress: Progress) -> int:
    instance = _instance(arguments, places)
    with changing(places):
        getattr(instance.registry, arguments.action)()
    return 0


def buildkit(arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    with progress.heartbeat():
        serve_buildkit(_instance(arguments, places), arguments.version, progress)
    return 0


def execute(arguments: argparse.Namespace, places: Places, _progress: Progress) -> int:
    command = _instance(arguments, places).machine.command(arguments.command)
    os.execvp(command[0], command)  # noqa: S606


def network(arguments: argparse.Namespace, places: Places, _progress: Progress) -> int:
    command = _instance(arguments, places).machine.network_command(arguments.command)
    os.execvp(command[0], command)  # noqa: S606


def venv(arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    with progress.heartbeat():
        print(environment(arguments.environment, places, progress))
    return 0


def program(arguments: argparse.Namespace, places: Places, progress: Progress) -> int:
    with progress.heartbeat(), progress.step(arguments.program) as step:
        print(compile_program(PROGRAMS[arguments.program](), Cache(places.cache), step))
    return 0


def _instance(arguments: argparse.Namespace, places: Places) -> Instance:
    return Instance(places, arguments.name, tuple(arguments.engine_option))


def _instance_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", text) or text in ("bin", "logs", "docker-config"):
        raise argparse.ArgumentTypeError("a word of small letters and digits")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", type=_instance_name, default=MAIN, help="the instance")
    parser.add_argument("--engine-option", action="append", default=[], help="added to dockerd's command line")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace, Places, Progress], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(name)
        added.set_defaults(run=run)
        return added

    for name, run in (("up", up), ("down", down), ("destroy", destroy), ("env", env), ("status", status)):
        command(name, run)
    command("engine", engine).add_argument("action", choices=("start", "stop", "kill"))
    command("registry", registry).add_argument("action", choices=("start", "stop"))
    command("buildkit", buildkit).add_argument("version", help="for example v0.29.0")
    command("exec", execute).add_argument("command", nargs=argparse.REMAINDER)
    command("network", network).add_argument("command", nargs=argparse.REMAINDER)
    command("venv", venv).add_argument("environment", choices=sorted(ENVIRONMENTS))
    command("program", program).add_argument("program", choices=sorted(PROGRAMS))
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    places = Places.of_this_checkout()
    progress = Progress(places.logs)
    try:
        return int(arguments.run(arguments, places, progress))
    except NotAvailableError as error:
        print(f"not available: {error}", file=sys.stderr)
        return NOT_AVAILABLE_STATUS
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
