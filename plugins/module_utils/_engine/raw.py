# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Raw byte streams through an engine's API: the upgraded connection of `/grpc` and of an exec.

docker-py hands such connections out differently for every transport, and bytes that came with the
answer may stay in its buffers; so the connection is opened and upgraded here, byte by byte.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Optional, Union
from urllib.parse import urlsplit

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, EngineUnreachable

from .contexts import Target

LONGEST_HEAD = 64 << 10


def open_socket(target: Target) -> socket.socket:
    """A connected socket to the engine's API, which can be polled whatever is behind it. Raises EngineUnreachable."""
    url = urlsplit(target.host)
    try:
        if url.scheme == "unix":
            return _unix(url.netloc + url.path, target.timeout)
        from . import remote

        return remote.open_socket(target)
    except OSError as exc:
        raise EngineUnreachable(
            f"no Docker engine answers at {target.host}: {exc.strerror or exc}", hint=EngineUnreachable.ADVICE
        ) from exc


def _unix(path: str, timeout: float) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(timeout)
        stream.connect(path)
    except OSError:
        stream.close()
        raise
    return stream


def upgrade(stream: socket.socket, path: str, protocol: str, *, body: Optional[Mapping[str, object]] = None) -> None:
    """Turn a connection to the API into a raw stream: POST with `Upgrade`. The socket then blocks without limit.

    Raises EngineError with the engine's words when it does not switch.
    """
    content = json.dumps(body).encode() if body is not None else b""
    head = [
        f"POST {path} HTTP/1.1",
        "Host: docker",
        "Connection: Upgrade",
        f"Upgrade: {protocol}",
        f"Content-Length: {len(content)}",
        "Content-Type: application/json",
    ]
    try:
        stream.sendall("\r\n".join([*head, "", ""]).encode() + content)
        answer = _head(stream)
        status = int(answer.split(None, 2)[1])
        if status not in (101, 200):
            raise EngineError(f"the engine refused {path}: {_words(answer, stream)}", status=status)
        stream.settimeout(None)
    except (OSError, ValueError, IndexError) as exc:
        raise EngineError(f"the engine did not answer {path} as an engine does: {exc}") from exc


def _head(stream: socket.socket) -> str:
    """The answer's head, not one byte more: what follows belongs to the stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte or len(head) > LONGEST_HEAD:
            raise ValueError("the connection ended within the answer's head")
        head += byte
    return head.decode("latin-1")


def _words(head: str, stream: socket.socket) -> str:
    status_line = head.split("\r\n", 1)[0]
    try:
        text = stream.recv(4096).decode("utf-8", "replace").strip()
        return str(json.loads(text)["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return status_line


def api_prefix(version: Union[str, None]) -> str:
    """`/v1.45` for a negotiated version of the API, "" when it is not known."""
    return f"/v{version}" if version and version != "auto" else ""
