# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The few calls of the engine's API that the lab needs before any library is installed."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from .errors import LabError


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class EngineApi:
    """An engine behind a unix socket."""

    socket: Path

    def answers(self) -> bool:
        try:
            return self._call("GET", "/_ping", timeout=3) == b"OK"
        except (OSError, http.client.HTTPException, LabError):
            return False

    def version(self) -> str:
        version: str = json.loads(self._call("GET", "/version"))["Version"]
        return version

    def pull(self, name: str, tag: str) -> None:
        """Pull an image; the engine answers 200 and reports failures in the stream."""
        stream = self._call("POST", "/images/create?" + urlencode({"fromImage": name, "tag": tag}), timeout=300)
        for line in stream.splitlines():
            message = json.loads(line)
            if "error" in message:
                raise LabError(f"{name}:{tag} cannot be pulled: {message['error']}")

    def remove_image(self, name: str) -> None:
        self._call("DELETE", f"/images/{quote(name, safe='')}?force=1")

    def has_image(self, name: str) -> bool:
        try:
            self._call("GET", f"/images/{quote(name, safe='')}/json")
        except LabError:
            return False
        return True

    def layers_size(self) -> int:
        """Bytes of all layers that any image holds, with a name or without."""
        size: int = json.loads(self._call("GET", "/system/df?type=image"))["LayersSize"]
        return size

    def run_privileged(self, image: str, command: list[str]) -> int:
        """Run a privileged container with an init process, as a builder is one, and return its exit status."""
        body = {"Image": image, "Cmd": command, "HostConfig": {"Privileged": True, "Init": True}}
        container = json.loads(self._call("POST", "/containers/create", body))["Id"]
        try:
            self._call("POST", f"/containers/{container}/start")
            status: int = json.loads(self._call("POST", f"/containers/{container}/wait"))["StatusCode"]
            return status
        finally:
            self._call("DELETE", f"/containers/{container}?force=1&v=1")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = 60) -> bytes:
        connection = _UnixConnection(self.socket, timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise LabError(f"the engine refused {method} {path}: {content.decode(errors='replace').strip()}")
        return content
