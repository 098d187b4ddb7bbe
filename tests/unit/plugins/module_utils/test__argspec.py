# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options are those of community.docker: names, types, defaults, aliases, environment."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic", reason="a target has no ansible-core of its own")

from ansible.module_utils.basic import env_fallback

from ansible_collections.buildfleet.buildx.plugins.module_utils import _argspec as argspec

ENVIRONMENT = {
    "docker_host": "DOCKER_HOST",
    "tls": "DOCKER_TLS",
    "validate_certs": "DOCKER_TLS_VERIFY",
    "tls_hostname": "DOCKER_TLS_HOSTNAME",
    "api_version": "DOCKER_API_VERSION",
    "timeout": "DOCKER_TIMEOUT",
}
TYPES: dict[str, tuple[str, Any]] = {
    # docker_host has a default there; here its absence means the current docker context (DESIGN §5).
    "docker_host": ("str", None),
    "tls": ("bool", False),
    "validate_certs": ("bool", False),
    "tls_hostname": ("str", None),
    "ca_path": ("path", None),
    "client_cert": ("path", None),
    "client_key": ("path", None),
    "api_version": ("str", "auto"),
    "timeout": ("int", 60),
    # Its default is False there; docker-py's own way needs paramiko.
    "use_ssh_client": ("bool", True),
    "debug": ("bool", False),
}


def test_the_options_of_community_docker() -> None:
    assert {name: (spec["type"], spec.get("default")) for name, spec in argspec.ENGINE.items()} == TYPES


def test_their_environment() -> None:
    found = {name: spec["fallback"] for name, spec in argspec.ENGINE.items() if "fallback" in spec}
    assert found == {name: (env_fallback, [variable]) for name, variable in ENVIRONMENT.items()}


def test_no_alias_is_the_name_of_another_option() -> None:
    words: list[str] = []
    for group in (argspec.ENGINE, argspec.STORE):
        for name, spec in group.items():
            words += [name, *(spec.get("aliases") or [])]  # type: ignore[misc]
    assert len(words) == len(set(words))


def test_groups_are_joined_and_stay_what_they_are() -> None:
    own: argspec.Spec = {"name": {"type": "str"}}
    merged = argspec.merge(argspec.ENGINE, argspec.STORE, own)
    assert set(merged) == {*argspec.ENGINE, *argspec.STORE, "name"}
    assert "name" not in argspec.ENGINE
    assert argspec.merge() == {}
