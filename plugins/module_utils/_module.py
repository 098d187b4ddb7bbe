# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The border to Ansible: the only reader of the environment and the only caller of fail_json."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import MissingLibrary
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Body = Callable[["AnsibleModule"], Mapping[str, object]]


class Parameters(Protocol):
    """What is read of an AnsibleModule below its body."""

    params: Mapping[str, Any]


class Surroundings(NamedTuple):
    """What a module takes from its process: nothing below the module's body reads it again.

    docker_config: the directory of docker's config.json ($DOCKER_CONFIG, else ~/.docker).
    store:         the directory of the builders' store (buildx §1.1).
    cert_path:     $DOCKER_CERT_PATH, or None.
    context:       $DOCKER_CONTEXT, or None.
    builder:       $BUILDX_BUILDER, or None.
    absolute:      a path as a user writes it, with ~, variables or relative → the absolute path.
    variable:      name of any other variable of the environment → its value, or None.
    """

    docker_config: str
    store: str
    cert_path: Optional[str]
    context: Optional[str]
    builder: Optional[str]
    absolute: Callable[[str], str]
    variable: Callable[[str], Optional[str]]


def surroundings(module: Parameters) -> Surroundings:
    """Read the environment of the module's process and the options that override it."""
    env = os.environ
    docker_config = env.get("DOCKER_CONFIG") or os.path.join(env.get("HOME") or "/root", ".docker")
    return Surroundings(
        docker_config=docker_config,
        store=os.path.abspath(module.params["buildx_config"] or os.path.join(docker_config, "buildx")),
        cert_path=env.get("DOCKER_CERT_PATH") or None,
        context=env.get("DOCKER_CONTEXT") or None,
        builder=env.get("BUILDX_BUILDER") or None,
        absolute=lambda path: os.path.abspath(os.path.expanduser(os.path.expandvars(path))),
        variable=env.get,
    )


def run_module(module: AnsibleModule, body: Body) -> None:
    """Run the body of a module and end the process with its result, or with what went wrong."""
    try:
        with _ended_by_signals():
            result = body(module)
    except KeyboardInterrupt as exc:
        module.fail_json(msg=f"the task was ended from outside, by {exc}", error={"kind": "interrupted", "hint": None})
    except MissingLibrary as exc:
        module.fail_json(msg=missing_required_lib(exc.library), error=exc.to_result())
    except BuildxError as exc:
        module.debug(traceback.format_exc())
        message = _with_hint(str(exc), exc.hint)
        facts = {"changed": False, **exc.details}
        module.fail_json(msg=printable(message), error=exc.to_result(), **_printable_facts(facts))
    module.exit_json(**_printable_facts(result))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A signal that would end the process unwinds it instead: a build is cancelled, connections are closed.

    One is enough; more of them do not disturb the end, whose waits are bounded.
    """

    def unwind(number: int, _frame: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {one: handler for one, handler in before.items() if handler != signal.SIG_IGN}  # as nohup wants it
    for one in before:
        signal.signal(one, unwind)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _with_hint(message: str, hint: Optional[str]) -> str:
    """Two sentences; below the frame of an excerpt, a line of its own."""
    if not hint:
        return message
    return f"{message}\n{hint}" if "\n" in message else f"{message.rstrip('.')}. {hint}"


def printable(text: str) -> str:
    """Text that Ansible can carry: lone surrogates, from bytes that are not UTF-8, would lose the whole result."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _printable_facts(value: Mapping[str, object]) -> dict[str, object]:
    return {key: _printable(item) for key, item in value.items()}


def _printable(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value
