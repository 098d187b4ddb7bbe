# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Limits of a container that no engine would take: found before the old container is stopped for the new one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .spec import ContainerSpec

_LEAST_MEMORY = 6 << 20
_LEAST_QUOTA = 1000
_PERIOD = (1000, 1000000)
_CPUS = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


def findings(spec: ContainerSpec) -> list[str]:
    """Why an engine would refuse the container, [] when it would not."""
    return [*_memory(spec), *_processors(spec), *_restarts(spec)]


def _memory(spec: ContainerSpec) -> Iterator[str]:
    if 0 < spec.memory < _LEAST_MEMORY:
        yield f"memory: {spec.memory} bytes are too few, engines want 6 MiB at least"
    if spec.memory_swap > 0 and not spec.memory:
        yield "memory_swap needs a limit of memory: it counts both together"
    elif 0 < spec.memory_swap < spec.memory:
        yield f"memory_swap ({spec.memory_swap}) is less than memory ({spec.memory}): it counts both together"


def _processors(spec: ContainerSpec) -> Iterator[str]:
    if 0 < spec.cpu_quota < _LEAST_QUOTA:
        yield f"cpu_quota: {spec.cpu_quota} is less than engines take, {_LEAST_QUOTA} microseconds"
    if spec.cpu_period and not _PERIOD[0] <= spec.cpu_period <= _PERIOD[1]:
        yield f"cpu_period: {spec.cpu_period} is not between {_PERIOD[0]} and {_PERIOD[1]} microseconds"
    if spec.cpu_shares < 0:
        yield f"cpu_shares: {spec.cpu_shares} is negative"
    for name, text in (("cpuset_cpus", spec.cpuset_cpus), ("cpuset_mems", spec.cpuset_mems)):
        if text and not _CPUS.fullmatch(text):
            yield f"{name}: {text!r} is no list of numbers and ranges, such as 0-2,4"


def _restarts(spec: ContainerSpec) -> Iterator[str]:
    policy, retries = spec.restart_policy
    if policy not in _POLICIES:
        yield f"restart_policy: {policy!r} is none of {', '.join(_POLICIES[1:])}"
    elif retries and policy != "on-failure":
        yield f"restart_policy: only on-failure counts its attempts, {policy} does not"
