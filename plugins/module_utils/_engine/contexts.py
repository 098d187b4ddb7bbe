# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Which engine is meant: options, environment, docker contexts (buildx §1.6, §1.7).

An *endpoint* is the word that a store entry keeps for a node: the name of a docker context, or the URL
of an engine. A *target* is what can be connected to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_CONTEXT = "default"
SCHEMES = ("unix", "tcp", "http", "https", "ssh", "fd", "npipe")


class Tls(NamedTuple):
    """How to encrypt; paths are absolute. verify False: any certificate will do."""

    verify: bool
    ca: Optional[str] = None
    cert: Optional[str] = None
    key: Optional[str] = None

    def check(self) -> None:
        """Raises ConfigError for a file that is not there; libraries say so without its name."""
        for path in (self.ca, self.cert, self.key):
            if path and not os.path.isfile(path):
                raise ConfigError(f"the file {path} for TLS with the engine is not there")


class Target(NamedTuple):
    """An engine that can be connected to. host is a URL, timeout seconds per answer of the API."""

    host: str
    tls: Optional[Tls] = None
    api_version: str = "auto"
    timeout: int = 60
    use_ssh_client: bool = True


class Contexts:
    """The docker contexts of one user, and the connection options of one task."""

    def __init__(self, docker_config: str, context: Optional[str], asked: Optional[Target], base: Target) -> None:
        """asked: what the task's options name, or None; base: timeout and versions for every other engine."""
        self._directory = docker_config
        self._context = context
        self._asked = asked
        self._base = base

    def current(self) -> str:
        """Name of the current context: an engine that is named by options or environment makes it `default`."""
        if self._asked is not None:
            return DEFAULT_CONTEXT
        return self._context or self._configured() or DEFAULT_CONTEXT

    def key(self) -> str:
        """The endpoint key of the current context, as `current` and new nodes store it (buildx §1.6)."""
        name = self._existing()
        return self.default().host if name == DEFAULT_CONTEXT else name

    def default(self) -> Target:
        """The engine of the context named `default`."""
        return self._asked or self._base._replace(host=DEFAULT_HOST)

    def target(self) -> Target:
        """The engine that the task talks to."""
        return self.resolve(self._existing())

    def _existing(self) -> str:
        """The current context. Raises ConfigError when there is none of that name: it is no host's name either."""
        name = self.current()
        if name != DEFAULT_CONTEXT and name not in self._stored():
            raise ConfigError(
                f'context "{name}" not found',
                hint="DOCKER_CONTEXT or the user's docker configuration names it; docker_host wins over both.",
            )
        return name

    def names(self) -> list[str]:
        """All contexts, `default` among them, sorted."""
        return sorted({DEFAULT_CONTEXT, *self._stored()})

    def resolve(self, endpoint: str) -> Target:
        """The engine behind a stored endpoint. Raises ConfigError when it is neither a context nor a URL."""
        if endpoint == DEFAULT_CONTEXT:
            return self.default()
        stored = self._stored().get(endpoint)
        if stored is not None:
            return self._from_context(endpoint, stored)
        if self._asked is not None and endpoint == self._asked.host:
            return self._asked
        return self._base._replace(host=parse_host(endpoint), tls=None)

    def endpoint(self, text: Optional[str]) -> str:
        """What a store entry keeps for the endpoint that was asked for, None: the current one (buildx §2.3)."""
        if text is None or text == "":
            return self.key()
        if text == DEFAULT_CONTEXT:
            return self.default().host
        return text if text in self._stored() else parse_host(text)

    def _configured(self) -> Optional[str]:
        config = read_json(os.path.join(self._directory, "config.json"))
        name = config.get("currentContext")
        return name if isinstance(name, str) and name else None

    def _stored(self) -> dict[str, Mapping[str, object]]:
        root = os.path.join(self._directory, "contexts", "meta")
        found: dict[str, Mapping[str, object]] = {}
        for entry in sorted(os.listdir(root)) if os.path.isdir(root) else []:
            meta = read_json(os.path.join(root, entry, "meta.json"))
            name = meta.get("Name")
            if isinstance(name, str):
                found[name] = meta
        return found

    def _from_context(self, name: str, meta: Mapping[str, object]) -> Target:
        endpoints = meta.get("Endpoints")
        docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
        host = docker.get("Host") if isinstance(docker, dict) else None
        if not isinstance(docker, dict) or not isinstance(host, str) or not host:
            raise ConfigError(f"the docker context {name} names no engine")
        directory = os.path.join(
            self._directory, "contexts", "tls", hashlib.sha256(name.encode()).hexdigest(), "docker"
        )
        files = {part: os.path.join(directory, f"{part}.pem") for part in ("ca", "cert", "key")}
        there = {part: path if os.path.exists(path) else None for part, path in files.items()}
        tls = Tls(verify=not docker.get("SkipTLSVerify"), **there) if any(there.values()) else None
        return self._base._replace(host=host, tls=tls)


def parse_host(text: str) -> str:
    """The URL of an engine as the CLI writes it: without a scheme it is `tcp://HOST:2375` (buildx §2.3)."""
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "tcp", text
    if scheme not in SCHEMES or not rest:
        raise ConfigError(f"failed to parse endpoint {text}: it is neither a docker context nor the URL of an engine")
    if scheme == "tcp":
        host, slash, path = rest.partition("/")
        port = "" if ":" in host.rpartition("]")[2] else ":2375"
        rest = f"{host}{port}{slash}{path}"
    return f"{scheme}://{rest}"


def from_options(params: Mapping[str, object], cert_path: Optional[str]) -> tuple[Optional[Target], Target]:
    """What the connection options of a task say: (the engine they name or None, the base for all others)."""
    if params.get("tls_hostname"):
        raise ConfigError("tls_hostname is not supported: docker-py 7 and newer cannot check another name")
    base = Target(
        DEFAULT_HOST,
        api_version=str(params["api_version"]),
        timeout=int(str(params["timeout"])),
        use_ssh_client=bool(params["use_ssh_client"]),
    )
    host = params.get("docker_host")
    if not host:
        return None, base
    return base._replace(host=parse_host(str(host)), tls=_tls(params, cert_path)), base


def _tls(params: Mapping[str, object], cert_path: Optional[str]) -> Optional[Tls]:
    verify = bool(params["validate_certs"])
    if not verify and not params["tls"]:
        return None

    def path(option: str, name: str) -> Optional[str]:
        given = params.get(option)
        candidate = os.path.join(cert_path, name) if cert_path else None
        return str(given) if given else candidate if candidate and os.path.exists(candidate) else None

    tls = Tls(verify, path("ca_path", "ca.pem"), path("client_cert", "cert.pem"), path("client_key", "key.pem"))
    if bool(tls.cert) != bool(tls.key):
        raise ConfigError("client_cert and client_key go together")
    return tls


def read_json(path: str) -> dict[str, object]:
    """A JSON object, {} when there is no such file. Raises ConfigError, with the path, when it is not one."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return found
