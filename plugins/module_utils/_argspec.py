# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Option groups as values that merge, so that a module states only what is its own.

Each group here has a documentation fragment of the same name in plugins/doc_fragments.
"""

from __future__ import annotations

from ansible.module_utils.basic import env_fallback

Spec = dict[str, dict[str, object]]

ENGINE: Spec = {
    "docker_host": {"type": "str", "aliases": ["docker_url"], "fallback": (env_fallback, ["DOCKER_HOST"])},
    "tls": {"type": "bool", "default": False, "fallback": (env_fallback, ["DOCKER_TLS"])},
    "validate_certs": {
        "type": "bool",
        "default": False,
        "aliases": ["tls_verify"],
        "fallback": (env_fallback, ["DOCKER_TLS_VERIFY"]),
    },
    "tls_hostname": {"type": "str", "fallback": (env_fallback, ["DOCKER_TLS_HOSTNAME"])},
    "ca_path": {"type": "path", "aliases": ["ca_cert", "tls_ca_cert", "cacert_path"]},
    "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
    "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"]},
    "api_version": {
        "type": "str",
        "default": "auto",
        "aliases": ["docker_api_version"],
        "fallback": (env_fallback, ["DOCKER_API_VERSION"]),
    },
    "timeout": {"type": "int", "default": 60, "fallback": (env_fallback, ["DOCKER_TIMEOUT"])},
    "use_ssh_client": {"type": "bool", "default": True},
    "debug": {"type": "bool", "default": False},
}
"""The connection options of community.docker, with its names, defaults and environment."""

STORE: Spec = {"buildx_config": {"type": "path", "fallback": (env_fallback, ["BUILDX_CONFIG"])}}
"""Where the builders are written down."""


def merge(*groups: Spec) -> Spec:
    """One argument_spec from groups that do not overlap."""
    merged: Spec = {}
    for group in groups:
        merged.update(group)
    return merged
