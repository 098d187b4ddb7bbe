#!/usr/bin/python
# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: buildx_build
short_description: Build with a BuildKit builder
version_added: 0.1.0
author:
  - The Build Fleet Authors (@buildfleet)
description:
  - Builds a directory of the target with a Dockerfile, on a builder that M(buildfleet.buildx.buildx_builder) or C(docker buildx create)
    made, or on the BuildKit inside the engine.
  - BuildKit is spoken to directly; neither the docker CLI nor buildx is needed on the target.
  - A task is changed when the result is another one than before, not when a build was run. BuildKit's cache decides how
    much work that is.
  - The options of C(community.docker.docker_image_build) that are here have the same names and meanings.
extends_documentation_fragment:
  - buildfleet.buildx._engine
  - buildfleet.buildx._store
  - buildfleet.buildx._attributes
attributes:
  check_mode:
    support: partial
    details:
      - What a build results in is not known without building. In check mode nothing is booted or built, and the task is
        changed when a build would be run.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - As far as the Dockerfile is reproducible. A step that BuildKit's cache has forgotten runs again, and may result in another image.
options:
  builder:
    description:
      - The builder that builds. A builder that does not run is booted.
      - If not set, the value of the environment variable E(BUILDX_BUILDER) on the target is used, else the builder that was selected
        with C(use), else the one inside the engine.
    type: str
  name:
    description:
      - The name of the image, as C([HOST[:PORT]/]PATH[:TAG]). A tag in it wins over O(tag).
      - With a name the image is loaded into the engine, unless O(load) says otherwise.
    type: str
  tag:
    description: The tag of the image. Quote it, since YAML reads V(1.10) as the number 1.1.
    type: str
    default: latest
  tags:
    description:
      - More names of the image, each as C([HOST[:PORT]/]PATH[:TAG]), as the CLI's C(--tag) takes them.
      - They are loaded and pushed together with O(name), and stand for it when it is not given.
    type: list
    elements: str
  path:
    description: The build's context, a directory on the target.
    type: path
    required: true
    aliases: [context]
  dockerfile:
    description: The Dockerfile, relative to O(path) or absolute. By default C(Dockerfile).
    type: str
    aliases: [file]
  args:
    description: Build arguments.
    type: dict
    aliases: [build_args]
  target:
    description: The stage to build, by default the last.
    type: str
  labels:
    description: Labels of the image.
    type: dict
  platform:
    description:
      - The platforms to build for, such as V(linux/arm64). By default that of the builder.
      - An engine without the containerd image store takes an image of one platform only.
    type: list
    elements: str
    aliases: [platforms]
  nocache:
    description: Run every step, whatever the cache has.
    type: bool
    default: false
    aliases: [no_cache]
  pull:
    description: Ask the registry for newer base images, even when the builder has them.
    type: bool
    default: false
  load:
    description:
      - Load the result into the engine of the task.
      - By default, V(true) when there is a O(name) or the builder's driver option C(default-load) says so, and neither O(push) nor O(outputs)
        says where else the result goes. With V(false) and without these, the result stays in the builder's cache.
    type: bool
  push:
    description:
      - Push the image to the registries of all its names.
      - The credentials are those of docker's configuration of the user that runs the task, credential helpers included.
      - The task is changed when a registry had another image under one of the names. Attestations do not count, since they hold times.
    type: bool
    default: false
  outputs:
    description:
      - Where the result goes, besides what O(load) and O(push) say. An empty list is as if it were not given.
      - Each entry is a mapping, or text as the CLI's C(--output) takes it, such as V(type=local,dest=/srv/site).
      - The keys of a mapping are C(type), C(dest), C(name) and C(context), and any attribute that BuildKit's exporter of that type knows, such as
        C(compression), C(oci-mediatypes), C(rewrite-timestamp), C(platform-split), C(mode) or C(tar).
      - C(type) is V(local) for the files of the result in the directory C(dest), V(tar) for them in an archive, V(oci) and V(docker) for an image
        in an archive (with C(tar=false), an OCI layout in a directory), V(image) for an image in the builder, with C(push=true) also
        in the registries of its names, V(registry) for the same in short, V(cacheonly) for nothing.
      - C(docker) without C(dest) is a load, into the engine of the docker context C(context) when that is given.
      - C(name) is a name or a list of names that this output gives to the image, in place of O(name) and O(tags).
      - C(dest) is a path on the target. Files are written completely or not at all; V(local) adds to a directory and replaces, with C(mode=delete) the
        directory has nothing but the result afterwards.
      - BuildKit before 0.13 takes one output.
    type: list
    elements: raw
  cache_from:
    description:
      - Caches that the build may take results from, besides what the builder itself has. One that is not there is passed over.
      - Each entry is the name of an image in a registry, a mapping with C(type) and its attributes, or text as the CLI's C(--cache-from) takes it.
      - C(type) is V(registry) with C(ref), or V(local) with C(src), a directory of the target, and C(tag) or C(digest).
    type: list
    elements: raw
  cache_to:
    description:
      - Where the build's cache is exported to, for other builders.
      - Each entry is the name of an image in a registry, V(inline), a mapping with C(type) and its attributes, or text as the CLI's C(--cache-to)
        takes it.
      - C(type) is V(registry) with C(ref), V(local) with C(dest), a directory of the target, and C(tag), or V(inline), which goes into the image.
      - Among the attributes are C(mode), V(max) for the results of all steps and not only those of the image, C(compression) and C(ignore-error).
      - Exporting a cache does not make a task changed.
    type: list
    elements: raw
  secrets:
    description:
      - Secrets that steps of the Dockerfile mount, by their O(secrets[].id).
      - A value goes to the daemon when a step asks for it, and nowhere else. It may have 500 KiB.
    type: list
    elements: dict
    suboptions:
      id:
        description: The name of the secret in the Dockerfile.
        type: str
        required: true
      type:
        description:
          - Where the value comes from.
          - By default from the one of O(secrets[].src), O(secrets[].env) and O(secrets[].value) that is given; without any, from the
            environment variable or the file that is called like the secret.
        type: str
        choices:
          file: The file O(secrets[].src) of the target.
          env: The environment variable O(secrets[].env) of the module on the target.
          value: The text O(secrets[].value).
      src:
        description: A file of the target.
        type: path
      env:
        description: The name of an environment variable of the module on the target. One that is not set is an empty secret.
        type: str
      value:
        description: The value itself, as from a vault.
        type: str
  build_contexts:
    description:
      - Further contexts by their names, which C(FROM) and C(COPY --from) of the Dockerfile use in place of an image of that name.
      - A value is a directory of the target, V(docker-image://NAME), or the URL of a git repository or a file.
    type: dict
  rebuild:
    description: When to build.
    type: str
    choices:
      auto: Always. The task is changed when the image under the name is another one than before; without a load, when a step of the Dockerfile had to run.
      always: Always, and the task is always changed.
      never: When the engine has no image of that name.
    default: auto
  build_timeout:
    description: Seconds after which the build is cut off. By default it may take as long as it needs.
    type: int
seealso:
  - module: buildfleet.buildx.buildx_builder
  - module: buildfleet.buildx.buildx_info
"""

EXAMPLES = r"""
- name: Build an image and load it into the engine
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/app
    name: registry.example.com/app
    tag: "1.10"

- name: Warm the cache of a builder
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/app
    target: tests

- name: Build with the engine's own BuildKit
  buildfleet.buildx.buildx_build:
    builder: default
    path: /srv/app
    name: app
    args:
      VERSION: "2.4"
    labels:
      org.opencontainers.image.version: "2.4"

- name: Push an image under two names
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/app
    tags:
      - registry.example.com/app:2.4
      - registry.example.com/app:latest
    push: true

- name: Build with a cache that other builders share, in a registry and in a directory
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/app
    name: app
    cache_from:
      - registry.example.com/app:cache
      - type: local
        src: /var/cache/app
    cache_to:
      - type: registry
        ref: registry.example.com/app:cache
        mode: max

- name: Write the files of a result to a directory, and the image to an archive
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/site
    outputs:
      - type: local
        dest: /var/www/site
        mode: delete
      - type=oci,dest=/srv/images/site.tar,compression=zstd

- name: Give secrets to the steps that mount them
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/app
    name: app
    secrets:
      - id: npm_token
        value: "{{ vault_npm_token }}"
      - id: netrc
        src: /root/.netrc

- name: Use directories where the Dockerfile names images
  buildfleet.buildx.buildx_build:
    builder: ci
    path: /srv/app
    name: app
    build_contexts:
      shared: /srv/shared
      base: docker-image://registry.example.com/base:12
"""

RETURN = r"""
image:
  description: The image under the name, as the engine describes it. V({}) when there is none.
  returned: success
  type: dict
  sample: {"Id": "sha256:1a0d9ddd5c5a", "RepoTags": ["app:latest"]}
log_tail:
  description: The last lines of the build in the plain form of the CLI, the boot of the builder and the load included.
  returned: success, and when a build failed
  type: list
  elements: str
  sample: ["#1 [internal] load build definition from Dockerfile", "#1 DONE 0.0s"]
steps:
  description: What was done to boot the builder; see RV(buildfleet.buildx.buildx_builder#module:steps).
  returned: success, and when a build failed
  type: list
  elements: dict
executed:
  description: The steps of the Dockerfile that were not in the cache.
  returned: success
  type: list
  elements: str
  sample: ["[2/3] RUN make"]
digest:
  description: The digest of the result's manifest.
  returned: when the result was exported
  type: str
load:
  description:
    - How the image came into the engine, and what moved.
    - C(way) is V(unchanged), nothing moved; V(tagged), the engine had it under another name; V(missing), only the layers that it lacked; V(all), every
      layer; V(pipe), the builder's own archive.
  returned: when a builder outside of the engine loaded an image
  type: dict
  contains:
    way:
      description: One of V(unchanged), V(tagged), V(missing), V(all), V(pipe).
      type: str
    bytes:
      description: Bytes that were sent to the engine.
      type: int
    layers:
      description: Layers among them.
      returned: unless the way is V(pipe)
      type: int
  sample: {"way": "missing", "bytes": 1051648, "layers": 1}
ref:
  description: BuildKit's name of the build, as C(docker buildx history ls) shows it.
  returned: when a build was run
  type: str
step:
  description: The step that failed.
  returned: when a step of the build failed
  type: str
exit_code:
  description: The exit code of the command that failed.
  returned: when a command of the build failed
  type: int
excerpt:
  description: The lines of the Dockerfile around the failure, as the CLI prints them.
  returned: when the failure has a place in the Dockerfile
  type: list
  elements: str
  sample: ["Dockerfile:2", "--------------------", "   1 |     FROM alpine", "   2 | >>> RUN exit 7", "--------------------"]
dockerfile:
  description: The file of the RV(excerpt).
  returned: when the failure has a place in the Dockerfile
  type: str
dockerfile_line:
  description: The first line in it that failed, counted from 1.
  returned: when the failure has a place in the Dockerfile
  type: int
step_log:
  description: The last lines of the output of RV(step).
  returned: when a step of the build failed and had said something
  type: list
  elements: str
code:
  description: The gRPC status with which the daemon ended the build, such as V(UNKNOWN) or V(CANCELLED).
  returned: when the daemon ended the build
  type: str
error:
  description: What kind of failure it is, for playbooks that tell failures apart.
  returned: failure
  type: dict
  contains:
    kind:
      description:
        - V(config) for an option or a file that cannot be used, V(missing_library) for a Python library that the target lacks,
          V(store) for the builders' store, V(engine_unreachable) for an engine that does not answer, V(engine) for one that refuses,
          V(builder) for a builder that is not there or does not become what it should, V(solve) for a step,
          the Dockerfile or an export that failed, V(registry) for a registry that refuses, V(timeout) for O(build_timeout),
          V(buildkit) and V(protocol) for a connection to the daemon that broke, V(internal) for the rest.
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
from ansible_collections.buildfleet.buildx.plugins.module_utils._builds import ensure
from ansible_collections.buildfleet.buildx.plugins.module_utils._module import run_module
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping


def build(module: AnsibleModule) -> Mapping[str, object]:
    """The body of the module."""
    with Task(module) as task:
        return ensure(task, module.params, check_mode=module.check_mode, warn=module.warn)


def main() -> None:
    module = AnsibleModule(
        argument_spec=_argspec.merge(
            _argspec.ENGINE,
            _argspec.STORE,
            {
                "builder": {"type": "str"},
                "name": {"type": "str"},
                "tag": {"type": "str", "default": "latest"},
                "tags": {"type": "list", "elements": "str"},
                "path": {"type": "path", "required": True, "aliases": ["context"]},
                "dockerfile": {"type": "str", "aliases": ["file"]},
                "args": {"type": "dict", "aliases": ["build_args"]},
                "target": {"type": "str"},
                "labels": {"type": "dict"},
                "platform": {"type": "list", "elements": "str", "aliases": ["platforms"]},
                "nocache": {"type": "bool", "default": False, "aliases": ["no_cache"]},
                "pull": {"type": "bool", "default": False},
                "load": {"type": "bool"},
                "push": {"type": "bool", "default": False},
                "outputs": {"type": "list", "elements": "raw"},
                "cache_from": {"type": "list", "elements": "raw"},
                "cache_to": {"type": "list", "elements": "raw"},
                "secrets": {
                    "type": "list",
                    "elements": "dict",
                    "no_log": False,
                    "options": {
                        "id": {"type": "str", "required": True},
                        "type": {"type": "str", "choices": ["file", "env", "value"]},
                        "src": {"type": "path"},
                        "env": {"type": "str"},
                        "value": {"type": "str", "no_log": True},
                    },
                },
                "build_contexts": {"type": "dict"},
                "rebuild": {"type": "str", "default": "auto", "choices": ["auto", "always", "never"]},
                "build_timeout": {"type": "int"},
            },
        ),
        supports_check_mode=True,
    )
    run_module(module, build)


if __name__ == "__main__":
    main()
