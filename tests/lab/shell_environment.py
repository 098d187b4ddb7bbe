# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `make lab-env` prints: the variables with which a shell or a test finds the lab."""

from __future__ import annotations

import shlex

from . import reference_cli
from .buildkit import BASE_REPOSITORY, BUILDKIT_REPOSITORY, BUILDKIT_VERSION, DEFAULT_TAG
from .cache import Cache
from .gobuild import program_path
from .instance import Instance
from .private_registry import ADDRESS, USER
from .registry import FROM_CONTAINERS, MIRROR
from .venvs import environment_path


def variables(instance: Instance) -> dict[str, str]:
    """Every variable by name but the PATH; nothing is made or started to answer this."""
    places = instance.places
    cache = Cache(places.cache)
    python = str(environment_path("dev", places) / "bin" / "python")
    return {
        "DOCKER_HOST": instance.engine.host,
        "DOCKER_CONFIG": str(places.docker_config),
        "ANSIBLE_CONFIG": str(places.checkout / "ansible.cfg"),
        "ANSIBLE_PYTHON_INTERPRETER": python,
        "BUILDX_LAB_NAME": instance.name,
        "BUILDX_LAB_STATE": str(places.state),
        "BUILDX_LAB_PYTHON": python,
        "BUILDX_LAB_DOCKER": str(program_path(reference_cli.DOCKER, cache)),
        "BUILDX_LAB_BUILDX": str(program_path(reference_cli.BUILDX, cache)),
        "BUILDX_LAB_REGISTRY": MIRROR,
        "BUILDX_LAB_REGISTRY_FROM_CONTAINERS": FROM_CONTAINERS,
        "BUILDX_LAB_BUILDKITD_CONFIG": str(instance.builder_configuration),
        "BUILDX_LAB_PRIVATE_REGISTRY": ADDRESS,
        "BUILDX_LAB_PRIVATE_CA": str(instance.private_registry.authority),
        "BUILDX_LAB_PRIVATE_USER": USER,
        "BUILDX_LAB_PRIVATE_PASSWORD": instance.private_registry.password,
        "BUILDX_LAB_PRIVATE_BUILDKITD_CONFIG": str(instance.private_registry.builder_configuration),
        "BUILDX_LAB_BUILDKIT_IMAGE": f"{BUILDKIT_REPOSITORY}:{DEFAULT_TAG}",
        "BUILDX_LAB_BUILDKIT_VERSION": BUILDKIT_VERSION,
        "BUILDX_LAB_BASE_IMAGE": f"{BASE_REPOSITORY.removeprefix('library/')}:latest",
    }


def search_path(instance: Instance) -> list[str]:
    """What goes in front of the PATH: the reference CLI, and the programs of the environment."""
    places = instance.places
    return [str(places.programs), str(environment_path("dev", places) / "bin")]


def export_lines(instance: Instance) -> str:
    """The caller's own PATH is extended, not ours: a version manager may have changed the one we were given."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables(instance).items()]
    front = "".join(f"{shlex.quote(directory)}:" for directory in search_path(instance))
    lines.append(f'export PATH={front}"$PATH"')
    # These would lead the CLI and the modules past the lab.
    lines.append("unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH BUILDX_CONFIG BUILDX_BUILDER")
    return "\n".join(lines)
