# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a node's container is: one vocabulary for what is wanted and for what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from . import names, sizes
from .instance import NodeEntry

DEFAULT_IMAGE = "moby/buildkit:buildx-stable-1"
CONFIG_DIRECTORY = "/etc/buildkit"
CONFIG_FILE = "buildkitd.toml"
STATE_DIRECTORY = "/var/lib/buildkit"
CGROUPFS_PARENT = "/docker/buildx"
DEFAULT_RESTART_POLICY = "unless-stopped"


def previous_name(node: str) -> str:
    """Name of a node's container while it is set aside for a new one; no node's own container can be called so."""
    return f"buildx_previous_{node}"


@dataclass(frozen=True)
class ContainerSpec:
    """The attributes of a container that a builder decides (buildx §3.2, §3.4).

    command:  buildkitd's arguments. env: NAME → value, without what the image sets.
    memory, memory_swap: bytes, 0: no limit, and the engine's default. cpu_*: as the engine counts.
    other_limits: the engine's name → value of limits that no option has, and that a container should not have.
    restart_policy: (name, maximum retries).
    files:    path below /etc/buildkit → digest of the content in canonical form.
    mount:    the volume at the state directory.
    """

    image: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    mount: str
    network: str = ""
    memory: int = 0
    memory_swap: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    other_limits: tuple[tuple[str, int], ...] = ()
    restart_policy: tuple[str, int] = (DEFAULT_RESTART_POLICY, 0)
    userns: str = ""
    privileged: bool = True
    init: bool = True


@dataclass(frozen=True)
class EngineFacts:
    """What an engine decides for every builder on it (buildx §3.3 step 5)."""

    cgroupfs: bool = False
    userns: bool = False
    swap_limit: bool = True


def engine_facts(info: Mapping[str, Any]) -> EngineFacts:
    """Read `/info`."""
    options = [str(option) for option in info.get("SecurityOptions") or []]
    return EngineFacts(
        cgroupfs=info.get("CgroupDriver") == "cgroupfs",
        userns=any("name=userns" in option.split(",") for option in options),
        swap_limit=info.get("SwapLimit") is not False,
    )


@dataclass(frozen=True)
class NodeState:
    """A container as it was found.

    status: missing does not occur here; `created`, `running`, `restarting`, `paused`, `exited`, `dead`, `removing`.
    image_id: what it runs, whatever the name means by now.
    body:     parts of the container that no option names and that a re-created one keeps (GPU devices).
    """

    spec: ContainerSpec
    status: str
    container_id: str
    image_id: str
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


def wanted(node: NodeEntry, facts: EngineFacts) -> ContainerSpec:
    """The container that the CLI would make for a node. Raises ConfigError for an option it would refuse."""
    options = dict(node.driver_opts)
    env = {key[4:]: options.pop(key) for key in sorted(options) if key.startswith("env.")}
    config = ("--config", f"{CONFIG_DIRECTORY}/{CONFIG_FILE}") if CONFIG_FILE in node.files else ()
    cgroup_parent = options.get("cgroup-parent") or CGROUPFS_PARENT
    return ContainerSpec(
        image=options.get("image") or DEFAULT_IMAGE,
        command=(*config, *(node.flags or ())),
        env=tuple(sorted(env.items())),
        files=digests(node.files),
        mount=names.volume_name(node.name),
        network=options.get("network", ""),
        memory=sizes.ram_in_bytes(options["memory"]) if options.get("memory") else 0,
        # Where the kernel counts no swap the engine drops the limit, and says so only in a warning.
        memory_swap=sizes.swap_in_bytes(options.get("memory-swap") or "0") if facts.swap_limit else 0,
        cpu_quota=max(_integer(options, "cpu-quota"), 0),  # -1 is the kernel's word for none
        cpu_period=_integer(options, "cpu-period"),
        cpu_shares=_integer(options, "cpu-shares"),
        cpuset_cpus=options.get("cpuset-cpus", ""),
        cpuset_mems=options.get("cpuset-mems", ""),
        cgroup_parent=cgroup_parent if facts.cgroupfs else "",
        restart_policy=restart_policy(options.get("restart-policy", DEFAULT_RESTART_POLICY)),
        userns="host" if facts.userns else "",
    )


def digests(files: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    """path → sha256 of the content; TOML counts by what it says, not by how it is written."""
    return tuple((path, hashlib.sha256(_canonical(path, files[path])).hexdigest()) for path in sorted(files))


def _canonical(path: str, content: bytes) -> bytes:
    if not path.endswith(".toml"):
        return content
    from . import toml

    try:
        return toml.dumps(toml.loads(content.decode("utf-8"))).encode()
    except (ConfigError, UnicodeDecodeError):
        return content  # somebody wrote what is no TOML: it differs from whatever is


def _integer(options: Mapping[str, str], key: str) -> int:
    text = options.get(key) or "0"
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"the driver option {key} must be a whole number, it is {text!r}") from None


def restart_policy(text: str) -> tuple[str, int]:
    """`on-failure:3` as its name and number. Raises ConfigError in the CLI's words."""
    name, colon, retries = text.partition(":")
    if colon and not name:
        raise ConfigError("invalid restart policy format: no policy provided before colon")
    if colon and not retries.isdigit():
        raise ConfigError("invalid restart policy format: maximum retry count must be an integer")
    return name, int(retries or 0)
