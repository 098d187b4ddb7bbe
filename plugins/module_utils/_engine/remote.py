# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Connections to engines that are not behind a socket of this host: TCP, TLS and ssh."""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import urlsplit

from ansible_collections.buildfleet.buildx.plugins.module_utils._sockets import Program, decrypted

from .contexts import Target


def open_socket(target: Target) -> socket.socket:
    """A connected socket; behind TLS and ssh, one of a pair. Raises OSError, and ConfigError for a missing file."""
    url = urlsplit(target.host)
    if url.scheme == "ssh":
        return ssh_program(target.host).socket
    if target.tls is not None:
        target.tls.check()
    plain = socket.create_connection((url.hostname, url.port or 2375), timeout=target.timeout)
    if target.tls is None:
        return plain
    with contextlib.ExitStack() as undo:
        undo.callback(plain.close)
        encrypted = _tls(plain, target, url.hostname or "")
        undo.pop_all()
    return decrypted(encrypted)


def ssh_program(host: str) -> Program:
    """The API through `ssh HOST docker system dial-stdio`, as the docker CLI reaches it."""
    url = urlsplit(host)
    address = f"{url.username}@{url.hostname}" if url.username else str(url.hostname)
    port = ["-p", str(url.port)] if url.port else []
    return Program(["ssh", "-o", "BatchMode=yes", *port, "--", address, "docker", "system", "dial-stdio"])


def _tls(plain: socket.socket, target: Target, name: str) -> ssl.SSLSocket:
    tls = target.tls
    context = ssl.create_default_context(cafile=tls.ca if tls else None)
    if tls is not None and not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls is not None and tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context.wrap_socket(plain, server_hostname=name)
