# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the collection: it may change at any time without notice.

from __future__ import annotations


class ModuleDocFragment:
    """How the Docker engine is reached: the options of community.docker."""

    DOCUMENTATION = r"""
options:
  docker_host:
    description:
      - The Docker engine that the task talks to, as a URL with the scheme V(unix), V(tcp) or V(ssh).
      - If it is not given and the environment variable E(DOCKER_HOST) is not set on the target, the user's current
        docker context is used, and without one V(unix:///var/run/docker.sock).
      - V(ssh) needs the C(ssh) program on the target, and the docker CLI on the host behind it.
    type: str
    aliases: [docker_url]
  tls:
    description:
      - Encrypt the connection to the engine without checking who answers.
      - If not set, the value of the environment variable E(DOCKER_TLS) on the target is used.
    type: bool
    default: false
  validate_certs:
    description:
      - Encrypt the connection to the engine and check its certificate. Wins over O(tls).
      - If not set, the value of the environment variable E(DOCKER_TLS_VERIFY) on the target is used.
    type: bool
    default: false
    aliases: [tls_verify]
  tls_hostname:
    description:
      - Refused. It exists so that a task which sets it for other modules is told so; docker-py 7 and newer cannot
        check a name other than the host's.
      - If not set, the value of the environment variable E(DOCKER_TLS_HOSTNAME) on the target is used.
    type: str
  ca_path:
    description:
      - The certificates that the engine's is checked against.
      - If not set and the environment variable E(DOCKER_CERT_PATH) is set on the target, C(ca.pem) in that directory.
    type: path
    aliases: [ca_cert, tls_ca_cert, cacert_path]
  client_cert:
    description:
      - The client's certificate. Goes together with O(client_key).
      - If not set and the environment variable E(DOCKER_CERT_PATH) is set on the target, C(cert.pem) in that directory.
    type: path
    aliases: [tls_client_cert, cert_path]
  client_key:
    description:
      - The client's key. Goes together with O(client_cert).
      - If not set and the environment variable E(DOCKER_CERT_PATH) is set on the target, C(key.pem) in that directory.
    type: path
    aliases: [tls_client_key, key_path]
  api_version:
    description:
      - The version of the engine's API; V(auto) negotiates it.
      - If not set, the value of the environment variable E(DOCKER_API_VERSION) on the target is used.
    type: str
    default: auto
    aliases: [docker_api_version]
  timeout:
    description:
      - Seconds to wait for one answer of the engine's API.
      - If not set, the value of the environment variable E(DOCKER_TIMEOUT) on the target is used.
    type: int
    default: 60
  use_ssh_client:
    description:
      - Reach V(ssh) hosts through the C(ssh) program. With V(false), docker-py wants paramiko.
    type: bool
    default: true
  debug:
    description:
      - Accepted so that defaults of other modules can be shared; it has no effect.
    type: bool
    default: false
requirements:
  - "Python >= 3.9 on the target"
  - "docker >= 7.0.0"
  - "grpcio >= 1.51.0"
  - "protobuf >= 3.21.0"
notes:
  - Everything happens on the target. Neither the docker CLI nor buildx is needed there; where they are, both see the same builders.
"""
