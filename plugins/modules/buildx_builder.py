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
      - A rootless image, such as V(moby/buildkit:rootless), is named here like any other one. Rootless images are not tested.
    type: str
  version:
    description:
      - A release of BuildKit, such as V(v0.34.2). It stands for the image C(moby/buildkit) of that release, and for O(image).
      - It is a text of three numbers. An empty string means the default image.
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
  memory_swap:
    description:
      - Limit of memory and swap together, such as V(4g); V(-1) for no limit of swap. It needs O(memory).
      - An empty string or V(0) means the engine's default, twice the memory. Every change is done while the daemon runs, as long as
        there is a limit of memory.
    type: str
  cpu_quota:
    description:
      - Microseconds of processor time that the container gets in each O(cpu_period). V(0) takes the limit away.
      - Every change is done while the daemon runs.
    type: int
  cpu_period:
    description:
      - The period of O(cpu_quota) in microseconds. V(0) means the engine's default, 100000.
      - Every change is done while the daemon runs.
    type: int
  cpu_shares:
    description:
      - Weight of the container when processors are short; other containers have 1024. V(0) means the engine's default.
      - A change is done while the daemon runs; taking it away re-creates the container.
    type: int
  cpuset_cpus:
    description:
      - Processors that the container may use, such as V(0-2,4). An empty string means all.
      - A change is done while the daemon runs; taking it away re-creates the container.
    type: str
  cpuset_mems:
    description: The same for memory nodes.
    type: str
  cgroup_parent:
    description:
      - Control group below which the container's own is made. An empty string means C(/docker/buildx).
      - Like the CLI, an engine with another cgroup driver than C(cgroupfs) is not told of it.
    type: str
  network:
    description:
      - Network of the container, V(host), V(none), or the name of a network of the engine, which must be there. An empty string means the
        engine's bridge. Another network re-creates the container.
      - With V(host) the flag V(--allow-insecure-entitlement=network.host) is added, as with the CLI.
    type: str
  restart_policy:
    description:
      - When the engine starts the container again, V(no), V(always), V(unless-stopped), V(on-failure) or V(on-failure:3).
        An empty string means V(unless-stopped). A change is done while the daemon runs.
    type: str
  default_load:
    description: Whether the result of a build goes to the engine when the build says nothing of outputs.
    type: bool
  platforms:
    description:
      - Platforms that builds of this builder's node are for, such as V(linux/arm64), even if the daemon says others. An empty list means
        what the daemon says.
      - They are the store's alone; the container is not touched.
    type: list
    elements: str
  driver_opts:
    description:
      - All options of the driver as the CLI's C(--driver-opt) takes them, as a dict or as a list of texts such as V(memory=2g), under
        either spelling (C(memory-swap), C(memory_swap)). Options with a name of their own here are better given by that.
      - What is given is exact. A stored option that neither this nor an option with a name of its own says is back to its default,
        variables (C(env.NAME)) among them.
      - C(provenance-add-gha) and C(allow-untrusted-image) are kept for the CLI; they mean nothing to this module.
    type: raw
  buildkitd_config:
    description:
      - The daemon's configuration, with the structure of C(buildkitd.toml). A dict that is given is exact; C({}) removes it.
      - Files that C(registry) tables name under C(ca) and C(keypair) are read on the target and copied into the container.
      - A new configuration is put in place with a restart of the daemon; the first and the last one re-create the container.
      - A new builder for which it is not given takes C(buildkitd.default.toml) in the store's directory, as the CLI does.
      - Texts are taken for the type that BuildKit's configuration has, so that what a template gives (V("true"), V("4")) is right.
      - Keys that BuildKit does not know, or not yet in the release that is asked for, are refused, since it would ignore them.
    type: dict
  buildkitd_config_file:
    description:
      - The path of a C(buildkitd.toml) on the target, in place of O(buildkitd_config). An empty string removes the configuration.
      - The CLI's C(--buildkitd-config). Paths in it are relative to the working directory, so write them absolute.
    type: path
  registries:
    description:
      - The C(registry) tables of the configuration, by the registry's name, HOST or HOST:PORT. They replace those of the stored
        configuration, and join an O(buildkitd_config) that has none. C({}) removes them.
      - C(mirrors), a list of HOST[:PORT][/PATH]. C(http), whether it speaks plain HTTP. C(insecure), whether its certificate is not
        verified. C(ca), a list of files on the target with certificates of authorities. C(keypair), a list of client certificates,
        each with the files C(key) and C(cert) on the target. C(tlsconfigdir), a list of directories in the container.
      - The files are copied into the container. As with the CLI they are readable for every process in it, and the store has them too.
    type: dict
  gc:
    description:
      - What the daemon keeps of its cache, under the names of BuildKit's configuration. It replaces these keys of the table
        C(worker.oci) of the stored configuration, and joins an O(buildkitd_config) that has none. C({}) removes them.
      - A space is bytes, a size such as V(10GB), in which a GB is 1024 MB, or a part of the disk such as V(20%).
    type: dict
    suboptions:
      enabled:
        description: Whether the daemon collects garbage at all. BuildKit's key C(gc).
        type: bool
      reservedSpace:
        description: Space that is never collected.
        type: str
      maxUsedSpace:
        description: Space that the cache never exceeds.
        type: str
      minFreeSpace:
        description: Space on the disk that is to stay free.
        type: str
      gckeepstorage:
        description: The name of O(gc.reservedSpace) before BuildKit 0.17.
        type: str
      gcpolicy:
        description:
          - Rules, one after another, in place of the default ones. What a rule matches is collected until its limits are kept; a
            rule without any limit collects all that it matches.
        type: list
        elements: dict
        suboptions:
          all:
            description: Whether internal and shared records are collected too.
            type: bool
          filters:
            description: Which records; one of them must match, such as V(type==source.local).
            type: list
            elements: str
          keepDuration:
            description: Records that were used in this time stay. Seconds, or a duration such as V(48h).
            type: str
          keepBytes:
            description: The name of O(gc.gcpolicy[].reservedSpace) before BuildKit 0.17.
            type: str
          reservedSpace:
            description: Space that this rule never collects.
            type: str
          maxUsedSpace:
            description: Space that this rule lets the cache have.
            type: str
          minFreeSpace:
            description: Space on the disk that this rule tries to free.
            type: str
  buildkitd_flags:
    description:
      - Arguments of the daemon, as a list or as one string with the quoting of a shell. An empty value means the CLI's default.
      - As with the CLI, V(--allow-insecure-entitlement=network.host) is added when no entitlement is named.
      - A flag that the daemon does not know is refused. For that the image is pulled and run once, without network and volume, as
        C(buildkitd --help); check mode does not do so, and warns of what it has not checked.
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
    version: v0.34.2
    memory: 4g
    env:
      BUILDKIT_STEP_LOG_MAX_SIZE: "10485760"
    buildkitd_config:
      worker:
        oci:
          max-parallelism: 4
    registries:
      docker.io:
        mirrors: [mirror.example.com]
    use: true

- name: Registries with an authority and a client certificate of their own, and one without TLS
  buildfleet.buildx.buildx_builder:
    name: ci
    registries:
      registry.example.com:
        ca: [/etc/ssl/registry/ca.pem]
        keypair:
          - key: /etc/ssl/registry/client.key
            cert: /etc/ssl/registry/client.pem
      localhost:5000:
        http: true

- name: The cache keeps to 100 GB and leaves a fifth of the disk free
  buildfleet.buildx.buildx_builder:
    name: ci
    gc:
      reservedSpace: 10GB
      maxUsedSpace: 100GB
      minFreeSpace: 20%

- name: Own rules of garbage collection
  buildfleet.buildx.buildx_builder:
    name: ci
    gc:
      gcpolicy:
        - filters: [type==source.local, type==exec.cachemount]
          keepDuration: 48h
          maxUsedSpace: 2GB
        - all: true
          maxUsedSpace: 50GB

- name: A configuration that is a file of the host already
  buildfleet.buildx.buildx_builder:
    name: ci
    buildkitd_config_file: /etc/buildkit/buildkitd.toml

- name: Two of the host's processors, and no swap
  buildfleet.buildx.buildx_builder:
    name: ci
    memory: 4g
    memory_swap: 4g
    cpu_quota: 200000
    cpu_period: 100000
    restart_policy: on-failure:5

- name: A builder on the host's network that loads its results
  buildfleet.buildx.buildx_builder:
    name: local
    network: host
    default_load: true

- name: Options as the CLI takes them
  buildfleet.buildx.buildx_builder:
    name: ci
    driver_opts: [image=moby/buildkit:v0.34.2, memory=4g, "env.no_proxy=localhost"]

- name: A builder that is used for one platform only
  buildfleet.buildx.buildx_builder:
    name: arm
    platforms: [linux/arm64]

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
findings:
  description: Everything that is wrong with what is declared, one text each. Nothing was changed.
  returned: when what is declared cannot work
  type: list
  elements: str
  sample: ["worker.oci.max-paralelism: BuildKit has no such key and would ignore it; did you mean max-parallelism?"]
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

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.buildfleet.buildx.plugins.module_utils import _argspec
from ansible_collections.buildfleet.buildx.plugins.module_utils._module import run_module
from ansible_collections.buildfleet.buildx.plugins.module_utils._reconcile import ensure
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping


SPACES: dict[str, Any] = {name: {"type": "str"} for name in ("reservedSpace", "maxUsedSpace", "minFreeSpace")}
GC: dict[str, Any] = {
    "enabled": {"type": "bool"},
    "gckeepstorage": {"type": "str"},
    **SPACES,
    "gcpolicy": {
        "type": "list",
        "elements": "dict",
        "options": {
            "all": {"type": "bool"},
            "filters": {"type": "list", "elements": "str"},
            "keepDuration": {"type": "str"},
            "keepBytes": {"type": "str"},
            **SPACES,
        },
    },
}


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
                "version": {"type": "str"},
                "pull": {"type": "str", "default": "auto", "choices": ["auto", "always", "missing", "never"]},
                "env": {"type": "dict"},
                "memory": {"type": "str"},
                "memory_swap": {"type": "str"},
                "cpu_quota": {"type": "int"},
                "cpu_period": {"type": "int"},
                "cpu_shares": {"type": "int"},
                "cpuset_cpus": {"type": "str"},
                "cpuset_mems": {"type": "str"},
                "cgroup_parent": {"type": "str"},
                "network": {"type": "str"},
                "restart_policy": {"type": "str"},
                "default_load": {"type": "bool"},
                "platforms": {"type": "list", "elements": "str"},
                "driver_opts": {"type": "raw"},
                "buildkitd_config": {"type": "dict"},
                "buildkitd_config_file": {"type": "path"},
                "registries": {"type": "dict"},
                "gc": {"type": "dict", "options": GC},
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
