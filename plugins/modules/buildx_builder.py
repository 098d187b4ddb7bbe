#!/usr/bin/python
# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildx_builder
short_description: Manage BuildKit builders
version_added: 0.1.0
author:
  - The Build Fleet Authors (@buildfleet)
description:
  - Creates, repairs, starts, stops and removes builders of the C(docker-container) driver. Such a builder is a BuildKit daemon in
    a container of its own, with its own version, configuration, cache and limits.
  - The builder is shared with C(docker buildx), which lists, uses and removes it like one of its own; and a builder that the
    CLI made is managed here. The CLI itself is not needed.
  - What is declared is compared with the container as it really is and with the store. Differences are repaired by the
    smallest step that the engine allows, and the build cache survives every step but the removal.
extends_documentation_fragment:
  - buildfleet.buildx._engine
  - buildfleet.buildx._store
  - buildfleet.buildx._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description:
      - Name of the builder. It starts with a letter and holds letters, digits, C(.), C(_) and C(-); it is stored in lower case.
      - V(default) belongs to the engine's own builder and is refused, as is the name of a docker context.
    type: str
    required: true
  state:
    description: What should be.
    type: str
    choices:
      started: The builder is as declared, and its daemon runs and answers.
      present:
        The builder is as declared. A running daemon is repaired and kept running, a stopped one stays stopped, and one
        that is missing is not created; the first build or O(state=started) does that.
      stopped: The builder is as declared, and its daemon does not run. A missing one is not created.
      absent:
        There is no builder of this name, no container and no state volume. With a builder that is unknown to this
        store, a container and volume of the builder's first node are removed as well.
    default: started
  driver:
    description:
      - What runs the builder. The other drivers of the CLI are listed by M(buildfleet.buildx.buildx_info) and left alone here.
    type: str
    choices: [docker-container]
    default: docker-container
  image:
    description:
      - The BuildKit image. An empty string means the default, C(moby/buildkit:buildx-stable-1).
      - Another image is put in place by re-creating the container with the same state volume, so that the cache survives. When the
        new daemon does not answer within O(wait_timeout), the old container comes back and the task fails.
    type: str
  pull:
    description: When the image is pulled.
    type: str
    choices:
      auto: When a container is made; if that fails, an image of that name on the engine is used, as the CLI does.
      always: Whenever the registry has another image under the name than the one that runs. The registry is asked every time.
      missing: When a container is made and the engine has no image of that name.
      never: Never. The image must be on the engine.
    default: auto
  env:
    description:
      - Environment variables of the daemon. A dict that is given is exact; C({}) removes all.
      - Like the CLI, the store keeps them in clear text. Values whose names smell of secrets are masked in results.
    type: dict
  memory:
    description:
      - Limit of the container's memory, such as V(512m) or V(2g). An empty string or V(0) takes it away.
      - Raising or lowering the limit is done while the daemon runs; taking it away re-creates the container.
    type: str
  buildkitd_config:
    description:
      - The daemon's configuration, with the structure of C(buildkitd.toml). A dict that is given is exact; C({}) removes it.
      - Files that C(registry) tables name under C(ca) and C(keypair) are read on the target and copied into the container.
      - A new configuration is put in place with a restart of the daemon; the first and the last one re-create the container.
      - A new builder for which it is not given takes C(buildkitd.default.toml) in the store's directory, as the CLI does.
    type: dict
  buildkitd_flags:
    description:
      - Arguments of the daemon, as a list or as one string with the quoting of a shell. An empty value means the CLI's default.
      - As with the CLI, V(--allow-insecure-entitlement=network.host) is added when no entitlement is named.
    type: raw
  endpoint:
    description:
      - Where the builder lives, as the name of a docker context or the URL of an engine. By default the engine of the task.
      - A builder cannot be moved to another endpoint, since its cache would stay behind.
    type: str
  use:
    description:
      - Make this the builder that is used when none is named, for the engine of the task. V(false) leaves the selection as it is.
    type: bool
    default: false
  wait_timeout:
    description: Seconds until the daemon's workers must answer.
    type: int
    default: 60
  force:
    description:
      - With O(state=absent), also remove the running container of a builder that is unknown to this store. Another user's
        store may own it.
    type: bool
    default: false
seealso:
  - module: buildfleet.buildx.buildx_build
  - module: buildfleet.buildx.buildx_info
"""

EXAMPLES = r"""
- name: A builder is there and runs
  buildfleet.buildx.buildx_builder:
    name: ci

- name: A builder with a mirror, limits and a pinned BuildKit
  buildfleet.buildx.buildx_builder:
    name: ci
    image: moby/buildkit:v0.34.2
    memory: 4g
    env:
      BUILDKIT_STEP_LOG_MAX_SIZE: "10485760"
    buildkitd_config:
      registry:
        docker.io:
          mirrors: [mirror.example.com]
      worker:
        oci:
          max-parallelism: 4
    use: true

- name: A builder is declared now and boots with its first build
  buildfleet.buildx.buildx_builder:
    name: nightly
    state: present

- name: A builder and its cache are gone
  buildfleet.buildx.buildx_builder:
    name: nightly
    state: absent
"""

RETURN = r"""
builder:
  description:
    - The builder as it is afterwards, with the keys of C(docker buildx ls --format json); see RV(buildfleet.buildx.buildx_info#module:builders).
      In check mode, as it is before. V({}) when there is none.
  returned: success
  type: dict
  sample: {"Name": "ci", "Driver": "docker-container", "Nodes": [{"Name": "ci0", "Status": "running", "Version": "v0.34.2"}]}
steps:
  description: What was done, in order; in check mode what would be. On failure, what had been done before.
  returned: success, and when a step failed
  type: list
  elements: dict
  contains:
    step:
      description:
        - One of V(register), V(pull), V(create), V(start), V(unpause), V(update), V(configure), V(restart), V(recreate), V(stop),
          V(restore), V(discard), V(use), V(remove), V(remove_volume), V(unregister).
      type: str
      sample: recreate
    node:
      description: The node, or an empty string for a step on the builder.
      type: str
      sample: ci0
    reasons:
      description: The attributes that differ, or a word such as V(missing).
      type: list
      elements: str
      sample: [image]
    disruption:
      description: V(none), V(builds) when running builds are cut off, V(cache) when the build cache is lost.
      type: str
      sample: builds
daemon_log:
  description: The last lines of the daemon's log.
  returned: when the daemon does not answer
  type: list
  elements: str
rolled_back:
  description: Whether the container or the configuration that was there before was put back.
  returned: when a re-creation or a new configuration failed
  type: bool
error:
  description: What kind of failure it is, for playbooks that tell failures apart.
  returned: failure
  type: dict
  contains:
    kind:
      description:
        - V(config) for an option or a file that cannot be used, V(missing_library) for a Python library that the target lacks,
          V(store) for the builders' store, V(engine_unreachable) for an engine that does not answer, V(engine) for one that refuses,
          V(builder) for a builder that is not there or does not become what it should.
      type: str
      sample: engine_unreachable
    hint:
      description: What to do next; it also ends the message. Null when there is no advice.
      type: str
      sample: Is the engine running, and may this user talk to it? docker_host names another one.
status:
  description: The HTTP status of the engine's answer.
  returned: when the engine refused
  type: int
  sample: 409
"""

from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.buildfleet.buildx.plugins.module_utils import _argspec
from ansible_collections.buildfleet.buildx.plugins.module_utils._module import run_module
from ansible_collections.buildfleet.buildx.plugins.module_utils._reconcile import ensure
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping


def reconcile(module: AnsibleModule) -> Mapping[str, object]:
    """The body of the module."""
    with Task(module) as task:
        return ensure(task, module.params, check_mode=module.check_mode, warn=module.warn)


def main() -> None:
    module = AnsibleModule(
        argument_spec=_argspec.merge(
            _argspec.ENGINE,
            _argspec.STORE,
            {
                "name": {"type": "str", "required": True},
                "state": {"type": "str", "default": "started", "choices": ["started", "present", "stopped", "absent"]},
                "driver": {"type": "str", "default": "docker-container", "choices": ["docker-container"]},
                "image": {"type": "str"},
                "pull": {"type": "str", "default": "auto", "choices": ["auto", "always", "missing", "never"]},
                "env": {"type": "dict"},
                "memory": {"type": "str"},
                "buildkitd_config": {"type": "dict"},
                "buildkitd_flags": {"type": "raw"},
                "endpoint": {"type": "str"},
                "use": {"type": "bool", "default": False},
                "wait_timeout": {"type": "int", "default": 60},
                "force": {"type": "bool", "default": False},
            },
        ),
        supports_check_mode=True,
    )
    run_module(module, reconcile)


if __name__ == "__main__":
    main()
