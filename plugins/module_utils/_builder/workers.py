# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The workers of a daemon, and waiting until they answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline, attempts
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import (
    BuilderError,
    BuildkitError,
    EngineError,
    EngineUnreachable,
)

from .names import container_name


class Workers(NamedTuple):
    """What a daemon says of itself.

    version: of BuildKit, "" when it does not say. ids: of its workers, sorted.
    platforms: in order, of all workers, each once. gc_policy, labels: of the first worker, as `ls` lists them.
    """

    version: str
    ids: Sequence[str]
    platforms: Sequence[str]
    gc_policy: Sequence[Mapping[str, Any]]
    labels: Mapping[str, str]


Probe = Callable[[Mapping[str, Any], float], Workers]
"""Ask the daemon of a container: (inspect of the container, seconds) → Workers. Raises BuildkitError."""


def status(inspect: Optional[Mapping[str, Any]]) -> str:
    """The word of `docker buildx ls` for a container (buildx §3.7); restarting and paused count as running there."""
    if inspect is None:
        return "inactive"
    return "running" if inspect["State"].get("Running") else "stopped"


def wait_ready(
    engine: Engine,
    node: str,
    probe: Probe,
    deadline: Deadline,
    sleep: Callable[[float], None] = time.sleep,
) -> Workers:
    """Wait until a node's workers answer.

    Raises BuilderError with the daemon's last words when the container ends, or when the deadline passes.
    """
    name = container_name(node)
    last = "it was not asked"
    for _attempt in attempts(deadline, longest=0.3, sleep=sleep):
        inspect = containers.inspect(engine, name)
        if inspect is None or inspect["State"]["Status"] in ("exited", "dead"):
            code = inspect["State"].get("ExitCode") if inspect else None
            raise _failed(engine, node, f"its container ended with exit code {code}" if inspect else "it is gone")
        if inspect["State"].get("Restarting"):
            last = f"its container restarts again and again (exit code {inspect['State'].get('ExitCode')})"
            continue
        try:
            return probe(inspect, max(1.0, deadline.within(5.0)))
        except EngineUnreachable:
            raise
        except (BuildkitError, EngineError) as exc:
            # The engine refuses what is asked of a container that has ended since it was looked at.
            last = str(exc)
    raise _failed(engine, node, f"no answer within {deadline.seconds:g} s: {last}")


def _failed(engine: Engine, node: str, what: str) -> BuilderError:
    log = containers.logs(engine, container_name(node))
    # A daemon that was started again and again said the same each time.
    tail = "\n".join(list(dict.fromkeys(line for line in log if line.strip()))[-15:])
    return BuilderError(
        f"the BuildKit daemon of the node {node} does not answer: {what}"
        + (f"\nIts last words:\n{tail}" if tail else ""),
        hint="daemon_log in the result has more of its log." if log else None,
        daemon_log=log,
    )
