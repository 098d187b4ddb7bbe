# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Builders of the driver `remote`: an address and options of the store → a way to the daemon (buildx §8)."""

from __future__ import annotations

import os
import socket
from typing import Optional
from urllib.parse import SplitResult, parse_qs, urlsplit

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import remote
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import Dialer, UnixDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._connect import container_dialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError, ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

TLS_OPTIONS = ("servername", "cacert", "cert", "key")
OPTIONS = (*TLS_OPTIONS, "default-load")


def dialer(task: Task, builder: str, node: NodeEntry) -> Dialer:
    """A way to the daemon of a remote node, which was tried. Raises BuildxError that names builder and address."""
    try:
        made = _dialer(task, node, urlsplit(node.endpoint))
        try:
            remote.check(made)
        except BaseException:
            made.close()
            raise
    except BuildxError as exc:
        raise _named(exc, f"the builder {builder} cannot be reached at {node.endpoint}") from exc
    return RemoteDialer(made, f"the builder {builder} at {node.endpoint}")


def _named(exc: BuildxError, name: str) -> BuildxError:
    return type(exc)(f"{name}: {exc}", hint=exc.hint, **exc.details)


class RemoteDialer:
    """Another dialer, whose errors say whose they are."""

    def __init__(self, inner: Dialer, name: str) -> None:
        self.authority = inner.authority
        self._inner, self._name = inner, name

    def dial(self) -> socket.socket:
        try:
            return self._inner.dial()
        except BuildxError as exc:
            raise _named(exc, self._name) from exc

    def target(self) -> Optional[str]:
        return self._inner.target()

    def explain(self) -> str:
        return self._inner.explain() or self._name

    def close(self) -> None:
        self._inner.close()


def _dialer(task: Task, node: NodeEntry, url: SplitResult) -> Dialer:
    tls = tls_of(node, url)
    if url.scheme == "tcp":
        if not url.hostname or url.port is None:
            raise ConfigError("the address has no host and port")
        return remote.TcpDialer(url.hostname, url.port, tls.name if tls else url.netloc, tls)
    if url.scheme == "unix":
        return UnixDialer(url.netloc + url.path)
    if url.scheme == "ssh":
        return _ssh(url)
    if url.scheme == "docker-container":
        return _in_container(task, url)
    raise ConfigError(
        f"addresses with {url.scheme}:// are not supported",
        hint="Those with tcp://, unix://, ssh:// and docker-container:// are.",
    )


def tls_of(node: NodeEntry, url: SplitResult) -> Optional[remote.Tls]:
    """The TLS that a node's driver options ask for (buildx §8). Raises ConfigError in the CLI's words."""
    given = node.driver_opts
    for key, value in sorted(given.items()):
        if key not in OPTIONS:
            raise ConfigError(f"invalid driver option {key} for remote driver")
        if key in ("cacert", "cert", "key") and not os.path.isabs(value):
            raise ConfigError(f"non-absolute path '{value}' provided for {key}")
    if not any(option in given for option in TLS_OPTIONS):
        return None
    wanted = ["cacert", *(["cert", "key"] if "cert" in given or "key" in given else [])]
    missing = [option for option in wanted if option not in given]
    if missing:
        raise ConfigError(f"tls enabled, but missing keys {', '.join(missing)}")
    name = given.get("servername") or url.hostname or ""
    return remote.Tls(name, given["cacert"], given.get("cert"), given.get("key"))


def _ssh(url: SplitResult) -> Dialer:
    if not url.hostname or url.password or url.query or url.fragment:
        raise ConfigError("an ssh address is ssh://[USER@]HOST[:PORT][/SOCKET], and has no password")
    user = ["-l", url.username] if url.username else []
    port = ["-p", str(url.port)] if url.port else []
    return remote.SshDialer([*user, *port, "--", url.hostname], f"unix://{url.path}" if url.path else None)


def _in_container(task: Task, url: SplitResult) -> Dialer:
    """A daemon in a container that is no builder's, by the name of the container."""
    context = parse_qs(url.query).get("context")
    engine, name = task.engine(context[0] if context else None), url.netloc
    found = containers.inspect(engine, name)
    if found is None or not found["State"].get("Running"):
        raise BuilderError(
            f"there is no container {name}" if found is None else f"the container {name} does not run",
            hint="Start it; what a remote builder runs in is left to others.",
        )
    return container_dialer(engine, found)
