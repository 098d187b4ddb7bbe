# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Credential helpers: docker's programs that keep passwords, asked for one registry (wire §9.4)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .credentials import Login

SECONDS = 30.0
"""How long a helper may think. The daemon gives up a call for credentials after 60 s (wire §2.5)."""
NOT_FOUND = "credentials not found in native keychain"
IDENTITY_TOKEN = "<token>"  # noqa: S105 - the word that docker uses for a user's name
MOST_WORDS = 200


Started = Callable[["subprocess.Popen[bytes]"], None]


def ask(name: str, key: str, where: str, deadline: Deadline, started: Started = lambda process: None) -> Login:
    """The credentials that `docker-credential-<name>` has for a key; none when it says that there are none.

    where: the configuration that names it. started: takes the running program, which `end` ends.
    Raises ConfigError, with nothing in it that may be a secret.
    """
    program = f"docker-credential-{name}"
    if "/" in name or "\0" in name:
        raise ConfigError(f"{where}: {name!r} is not the name of a credential helper")
    status, out = _run(program, key, where, deadline.within(SECONDS), started)
    if status == 0:
        return _login(out, program, key)
    words = out.decode("utf-8", "replace").strip()
    if words == NOT_FOUND:
        return Login()
    # What looks like an answer may hold the secret.
    told = "" if "{" in words else f": {words[:MOST_WORDS]}"
    raise ConfigError(
        f"error getting credentials for {key}: {program} ended with exit code {status}{told}",
        hint=_hint(program, key, where),
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a helper with what it started; one that has ended is left alone."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _run(program: str, key: str, where: str, seconds: float, started: Started) -> tuple[int, bytes]:
    """Exit code and what it printed. A helper that does not end in time is ended, with what it started."""
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise ConfigError(
            f"error getting credentials for {key}: {program} cannot be run: {exc.strerror}",
            hint=f"{where} names this helper: install it where the PATH of the task leads, or take it out there.",
        ) from exc
    with process:
        started(process)
        try:
            out, _nothing = process.communicate(key.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process)
            raise ConfigError(
                f"error getting credentials for {key}: {program} did not answer within {seconds:.3g} s",
                hint=_hint(program, key, where),
            ) from None
    return process.returncode, out


def _hint(program: str, key: str, where: str) -> str:
    return f"Try `echo {key} | {program} get` as the task's user on the target; {where} names this helper."


def _login(out: bytes, program: str, key: str) -> Login:
    answer: Any = None
    with contextlib.suppress(ValueError):
        answer = json.loads(out)
    if not isinstance(answer, dict) or not all(isinstance(answer.get(part), str) for part in ("Username", "Secret")):
        raise ConfigError(
            f"error getting credentials for {key}: {program} printed something else than an object "
            "with the texts Username and Secret"
        )
    username = "" if answer["Username"] == IDENTITY_TOKEN else answer["Username"]
    return Login(username, answer["Secret"])
