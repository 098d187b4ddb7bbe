# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The attributes of a node's container: how each is read, written, compared and repaired.

One row an attribute. What is wanted comes from the store entry (spec.wanted), what is found from the
engine's inspect and from /etc/buildkit; both are a ContainerSpec, so that a row compares plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference

from .spec import CONFIG_DIRECTORY, CONFIG_FILE, STATE_DIRECTORY, ContainerSpec, NodeState

UPDATE, CONFIGURE, RECREATE = "update", "configure", "recreate"
"""Ways to repair a difference, from the smallest: live, by new files and a restart, by a new container."""

OWNED_DIRECTORIES = ("certs/",)
OTHER_LIMITS = (
    *("NanoCpus", "MemoryReservation", "PidsLimit", "BlkioWeight"),
    *("CpuRealtimePeriod", "CpuRealtimeRuntime"),
)
"""What `docker update` can change besides a builder's own limits."""
DEFAULT_PERIOD = 100000
"""What the kernel takes for cpu_period where none is set."""


def parse(
    inspect: Mapping[str, Any],
    image: Optional[Mapping[str, Any]],
    files: Mapping[str, str],
    wish: ContainerSpec,
    *,
    swap_limit: bool = True,
) -> NodeState:
    """What was found, in the words of the spec.

    inspect: the engine's answer. image: inspect of the image that the container runs, None when it is gone.
    files: path below /etc/buildkit → canonical digest. wish: what is wanted; a variable, a network or a
    limit that the engine or the image sets by itself counts as declared only when it is wanted as well.
    swap_limit: whether the engine can limit swap; where it cannot, it says -1 of every container.
    """
    config, host = inspect["Config"], inspect["HostConfig"]
    defaults = (image or {}).get("Config") or {}
    spec = ContainerSpec(
        image=config["Image"],
        command=_command(config, defaults, wish.command),
        env=_env(config.get("Env") or [], None if image is None else defaults.get("Env") or [], dict(wish.env)),
        files=tuple(sorted((path, digest) for path, digest in files.items() if _is_ours(path))),
        mount=_state_volume(inspect),
        network=_network(host.get("NetworkMode") or "", wish.network),
        memory=host.get("Memory") or 0,
        memory_swap=_memory_swap(host.get("Memory") or 0, host.get("MemorySwap") or 0, wish, swap_limit),
        cpu_quota=max(host.get("CpuQuota") or 0, 0),
        cpu_period=host.get("CpuPeriod") or 0,
        cpu_shares=host.get("CpuShares") or 0,
        cpuset_cpus=host.get("CpusetCpus") or "",
        cpuset_mems=host.get("CpusetMems") or "",
        cgroup_parent=host.get("CgroupParent") or "",
        restart_policy=_policy(host.get("RestartPolicy") or {}, wish.restart_policy),
        other_limits=_other_limits(host),
        userns=host.get("UsernsMode") or "",
        privileged=bool(host.get("Privileged")),
        init=bool(host.get("Init")),
    )
    kept = {"DeviceRequests": host["DeviceRequests"]} if host.get("DeviceRequests") else {}
    return NodeState(spec, inspect["State"]["Status"], inspect["Id"], inspect["Image"], kept)


def _command(config: Mapping[str, Any], defaults: Mapping[str, Any], wish: tuple[str, ...]) -> tuple[str, ...]:
    """buildkitd's arguments; an entrypoint other than the image's is part of what is found, and so a difference."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    if not defaults or entrypoint == (defaults.get("Entrypoint") or []):
        inherited = command == (defaults.get("Cmd") or []) and tuple(command) != wish
        return () if inherited else tuple(command)
    return (*entrypoint, *command)


def _env(found: list[str], of_image: Optional[list[str]], wish: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """of_image None: what the image sets is not known; then only what is wanted can be told from it."""
    inherited = dict(pair.partition("=")[::2] for pair in of_image or ())
    declared = {}
    for pair in found:
        name, _equals, value = pair.partition("=")
        if name in wish or (of_image is not None and inherited.get(name) != value):
            declared[name] = value
    return tuple(sorted(declared.items()))


def _is_ours(path: str) -> bool:
    """The image, or the CLI in GitHub's runners, may put other files there; they are no drift."""
    return path == CONFIG_FILE or path.startswith(OWNED_DIRECTORIES)


def _state_volume(inspect: Mapping[str, Any]) -> str:
    for mount in inspect.get("Mounts") or []:
        if mount.get("Destination") == STATE_DIRECTORY:
            return str(mount.get("Name") or mount.get("Source") or "")
    return ""


def _network(found: str, wish: str) -> str:
    return wish if found in ("", "default", "bridge") and wish in ("", "default", "bridge") else found


def _memory_swap(memory: int, swap: int, wish: ContainerSpec, swap_limit: bool) -> int:
    """Where none is wanted the engine takes twice the memory."""
    if not swap_limit:
        return wish.memory_swap
    return 0 if not wish.memory_swap and swap == 2 * memory else swap


def _other_limits(host: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Limits that no builder has, and that somebody gave the container by hand."""
    return tuple((key, host[key]) for key in OTHER_LIMITS if (host.get(key) or 0) > 0)


def _policy(found: Mapping[str, Any], wish: tuple[str, int]) -> tuple[str, int]:
    """The CLI sends no name for an empty option, and engines say `no` for that."""
    name, retries = str(found.get("Name") or ""), int(found.get("MaximumRetryCount") or 0)
    return wish if name in ("", "no") and wish[0] in ("", "no") else (name, retries)


def create_body(spec: ContainerSpec, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the engine's create call: what the CLI sends for the same settings (buildx §3.4)."""
    host: dict[str, Any] = {
        "Privileged": spec.privileged,
        "Init": spec.init,
        "RestartPolicy": {"Name": spec.restart_policy[0], "MaximumRetryCount": spec.restart_policy[1]},
        "Mounts": [{"Type": "volume", "Source": spec.mount, "Target": STATE_DIRECTORY}],
        **kept,
    }
    for key, value in (
        ("NetworkMode", spec.network),
        ("Memory", spec.memory),
        ("MemorySwap", spec.memory_swap),
        ("CpuQuota", spec.cpu_quota),
        ("CpuPeriod", spec.cpu_period),
        ("CpuShares", spec.cpu_shares),
        ("CpusetCpus", spec.cpuset_cpus),
        ("CpusetMems", spec.cpuset_mems),
        ("CgroupParent", spec.cgroup_parent),
        ("UsernsMode", spec.userns),
    ):
        if value:
            host[key] = value
    body: dict[str, Any] = {"Image": spec.image, "Cmd": list(spec.command) or None, "HostConfig": host}
    if spec.env:
        body["Env"] = [f"{name}={value}" for name, value in spec.env]
    return body


@dataclass(frozen=True)
class Attribute:
    """A row of the table.

    repair: how a difference is mended, given (wanted, found, the wanted spec).
    live:   for UPDATE, the arguments of docker-py's update_container for the wanted spec.
    """

    name: str
    repair: Callable[[Any, Any, ContainerSpec], str]
    same: Callable[[Any, Any], bool] = lambda wanted, found: bool(wanted == found)
    live: Callable[[ContainerSpec], dict[str, Any]] = lambda spec: {}


def _always(way: str) -> Callable[[Any, Any, ContainerSpec], str]:
    return lambda wanted, found, spec: way


def _limit(wanted: Any, found: Any, spec: ContainerSpec) -> str:
    """The engine changes a limit in place, but cannot take one away: 0 and "" mean "as it is" to it."""
    return UPDATE if wanted else RECREATE


def _swap(wanted: Any, found: Any, spec: ContainerSpec) -> str:
    """Without a limit of its own swap has one that follows from the memory's."""
    return UPDATE if wanted or spec.memory else RECREATE


def _files(wanted: Any, found: Any, spec: ContainerSpec) -> str:
    """New content goes in beside what is there; a file cannot be removed from a container."""
    return RECREATE if {path for path, _digest in found} - {path for path, _digest in wanted} else CONFIGURE


def _memory(spec: ContainerSpec) -> dict[str, Any]:
    # Both in one call: the engine refuses memory above the old swap limit, which it had set to twice the old memory.
    return {"mem_limit": spec.memory, "memswap_limit": spec.memory_swap or 2 * spec.memory}


def _same_period(wanted: int, found: int) -> bool:
    return (wanted or DEFAULT_PERIOD) == (found or DEFAULT_PERIOD)


def _period(spec: ContainerSpec) -> dict[str, Any]:
    return {"cpu_period": spec.cpu_period or DEFAULT_PERIOD}


def _policy_update(spec: ContainerSpec) -> dict[str, Any]:
    return {"restart_policy": {"Name": spec.restart_policy[0], "MaximumRetryCount": spec.restart_policy[1]}}


ATTRIBUTES: dict[str, Attribute] = {
    row.name: row
    for row in (
        Attribute("image", _always(RECREATE), same=reference.same),
        Attribute("command", _always(RECREATE)),
        Attribute("env", _always(RECREATE)),
        Attribute("files", _files),
        Attribute("mount", _always(RECREATE)),
        Attribute("network", _always(RECREATE)),
        Attribute("memory", _limit, live=_memory),
        Attribute("memory_swap", _swap, live=_memory),
        # These two can be taken away in place: there are words for what the kernel does without them.
        Attribute("cpu_quota", _always(UPDATE), live=lambda spec: {"cpu_quota": spec.cpu_quota or -1}),
        Attribute("cpu_period", _always(UPDATE), same=_same_period, live=_period),
        Attribute("cpu_shares", _limit, live=lambda spec: {"cpu_shares": spec.cpu_shares}),
        Attribute("cpuset_cpus", _limit, live=lambda spec: {"cpuset_cpus": spec.cpuset_cpus}),
        Attribute("cpuset_mems", _limit, live=lambda spec: {"cpuset_mems": spec.cpuset_mems}),
        Attribute("cgroup_parent", _always(RECREATE)),
        Attribute("other_limits", _always(RECREATE)),
        Attribute("restart_policy", _always(UPDATE), live=_policy_update),
        Attribute("userns", _always(RECREATE)),
        Attribute("privileged", _always(RECREATE)),
        Attribute("init", _always(RECREATE)),
    )
}


def differences(wanted: ContainerSpec, found: ContainerSpec) -> dict[str, str]:
    """What differs: attribute → the smallest way that repairs it."""
    drift = {}
    for field in fields(ContainerSpec):
        attribute = ATTRIBUTES[field.name]
        one, other = getattr(wanted, field.name), getattr(found, field.name)
        if not attribute.same(one, other):
            drift[field.name] = attribute.repair(one, other, wanted)
    return drift


def live_limits(spec: ContainerSpec, attributes: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of one update call for all attributes that changed."""
    limits: dict[str, Any] = {}
    for name in attributes:
        limits.update(ATTRIBUTES[name].live(spec))
    return limits


__all__ = ["CONFIG_DIRECTORY", "create_body", "differences", "live_limits", "parse"]
