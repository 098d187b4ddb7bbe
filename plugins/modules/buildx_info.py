#!/usr/bin/python
# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildx_info
short_description: List BuildKit builders
version_added: 0.1.0
author:
  - The Build Fleet Authors (@buildfleet)
description:
  - Reports the builders of a user as C(docker buildx ls) does, without the docker CLI. Builders that were made by the CLI
    and builders that were made by M(buildfleet.buildx.buildx_builder) are the same thing.
  - An engine that does not answer, or an entry of the store that cannot be read, is a builder with C(Err), not a failure.
  - Nothing is changed, neither on the engine nor in the store.
extends_documentation_fragment:
  - buildfleet.buildx._engine
  - buildfleet.buildx._store
  - buildfleet.buildx._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full
options:
  name:
    description:
      - The builders to report, and no others. The name of a docker context is the builder inside that context's engine.
      - A name that does not exist is a failure, which names those that do.
    type: list
    elements: str
    aliases: [names]
seealso:
  - module: buildfleet.buildx.buildx_builder
"""

EXAMPLES = r"""
- name: List the builders of this host
  buildfleet.buildx.buildx_info:
  register: listing

- name: Show which BuildKit each builder runs
  ansible.builtin.debug:
    msg: "{{ item.Name }}: {{ item.Nodes | map(attribute='Version', default='not running') | join(', ') }}"
  loop: "{{ listing.builders }}"
  loop_control:
    label: "{{ item.Name }}"

- name: Look at one builder
  buildfleet.buildx.buildx_info:
    name: [ci]
"""

RETURN = r"""
builders:
  description:
    - One object a builder, with the keys of C(docker buildx ls --format json). Those of the store come first, then the
      docker contexts, each group sorted by name; builders that cannot be reached at all come last.
    - Unlike there, file contents are given as digests, and values of environment variables whose names smell of
      secrets are masked.
  returned: success
  type: list
  elements: dict
  contains:
    Name:
      description: Name of the builder.
      type: str
      sample: ci
    Driver:
      description: V(docker-container), V(docker) for the builder inside an engine, or the name of a driver that is only listed here.
      type: str
      sample: docker-container
    Dynamic:
      description: Whether the builder's nodes come and go by themselves.
      type: bool
    Current:
      description: Whether this is the builder that is used when none is named.
      type: bool
    LastActivity:
      description: When the builder was last used, in RFC 3339; V(0001-01-01T00:00:00Z) when that is not known.
      type: str
      sample: "2026-11-23T02:44:14Z"
    Err:
      description: Why nothing is known of the builder. Only there when that is so.
      type: str
    Nodes:
      description: The builder's nodes. Keys without a value are left out.
      type: list
      elements: dict
      contains:
        Name:
          description: Name of the node; its container is C(buildx_buildkit_NAME).
          type: str
          sample: ci0
        Endpoint:
          description: The engine of the node, as a docker context's name or a URL.
          type: str
          sample: unix:///var/run/docker.sock
        Status:
          description: V(running), V(stopped), V(inactive) when there is no container, or V(error).
          type: str
          sample: running
        Err:
          description: Why the node's state is not known.
          type: str
        Version:
          description: Version of the BuildKit that runs.
          type: str
          sample: v0.34.2
        IDs:
          description: The ids of the daemon's workers.
          type: list
          elements: str
        Platforms:
          description: The platforms that the node builds for.
          type: list
          elements: str
          sample: [linux/amd64, linux/386]
        Flags:
          description: Arguments of the daemon.
          type: list
          elements: str
        DriverOpts:
          description: The driver options of the node.
          type: dict
        Files:
          description: Files below C(/etc/buildkit) that come with the node, with the digests of their contents.
          type: dict
          sample: {"buildkitd.toml": "sha256:0b5c5b3e"}
        GCPolicy:
          description: The rules by which the daemon throws away cache. Durations are in nanoseconds, sizes in bytes.
          type: list
          elements: dict
        Labels:
          description: The labels of the daemon's worker.
          type: dict
current:
  description:
    - Name of the builder that is used when none is named. Empty, with a warning, when the store's selection cannot be read.
  returned: success
  type: str
  sample: default
error:
  description: What kind of failure it is, for playbooks that tell failures apart.
  returned: failure
  type: dict
  contains:
    kind:
      description:
        - V(config) for an option or a file that cannot be used, V(missing_library) for a Python library that the target lacks,
          V(store) for a store that cannot be read, V(builder) for a name that does not exist.
      type: str
      sample: builder
    hint:
      description: What to do next; it also ends the message. Null when there is no advice.
      type: str
      sample: "There are: ci, default."
"""

from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.buildfleet.buildx.plugins.module_utils import _argspec
from ansible_collections.buildfleet.buildx.plugins.module_utils._fleet import current, rows
from ansible_collections.buildfleet.buildx.plugins.module_utils._module import run_module
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping


def report(module: AnsibleModule) -> Mapping[str, object]:
    """The body of the module."""
    with Task(module) as task:
        builders = rows(task, module.params["name"])
        return {"changed": False, "builders": builders, "current": current(task, module.warn)}


def main() -> None:
    module = AnsibleModule(
        argument_spec=_argspec.merge(
            _argspec.ENGINE,
            _argspec.STORE,
            {"name": {"type": "list", "elements": "str", "aliases": ["names"]}},
        ),
        supports_check_mode=True,
    )
    run_module(module, report)


if __name__ == "__main__":
    main()
