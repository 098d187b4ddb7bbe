# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calls of an engine's API that the demo needs before and after the playbook, when no library may be there."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

ANSWER_SECONDS = 60.0
PULL_SECONDS = 900.0


class EngineError(Exception):
    """The engine cannot be reached, or refused; the message says which."""


class Body(NamedTuple):
    """What is sent: its bytes or a file of them, how many, and their media type."""

    content: bytes | IO[bytes]
    size: int
    kind: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Engine:
    """An engine at a URL: `unix://` or `tcp://` without TLS, which is what the demo speaks."""

    host: str

    @property
    def is_spoken(self) -> bool:
        return urlsplit(self.host).scheme in ("unix", "tcp")

    def version(self) -> str:
        """Its version. Raises EngineError when nothing answers."""
        return str(json.loads(self._call("GET", "/version", timeout=5))["Version"])

    def has_image(self, name: str) -> bool:
        return self._there(f"/images/{_quoted(name)}/json")

    def has_container(self, name: str) -> bool:
        return self._there(f"/containers/{name}/json")

    def has_volume(self, name: str) -> bool:
        return self._there(f"/volumes/{name}")

    def pull(self, name: str) -> None:
        """Pull an image. Raises EngineError when that fails."""
        repository, _colon, tag = name.rpartition(":")
        query = urlencode({"fromImage": repository, "tag": tag})
        _raise_told_failure(self._call("POST", f"/images/create?{query}", timeout=PULL_SECONDS))

    def load(self, archive: Path) -> None:
        """Bring in an image from a file as `docker save` writes it."""
        with archive.open("rb") as content:
            body = Body(content, archive.stat().st_size, "application/x-tar")
            _raise_told_failure(self._call("POST", "/images/load?quiet=1", body, PULL_SECONDS))

    def run_privileged(self, image: str, command: list[str]) -> int:
        """Run a container as a builder is one, privileged and with an init process; its exit status."""
        with self._container(image, {"Cmd": command, "HostConfig": {"Privileged": True, "Init": True}}) as container:
            self._call("POST", f"/containers/{container}/start")
            return int(json.loads(self._call("POST", f"/containers/{container}/wait"))["StatusCode"])

    def export(self, image: str, target: Path) -> None:
        """Write the root file system of an image to a tar file."""
        with (
            self._container(image, {"Cmd": ["true"]}) as container,
            self._response("GET", f"/containers/{container}/export") as response,
            target.open("wb") as file,
        ):
            if response.status != http.HTTPStatus.OK:
                raise EngineError(_refusal("GET", "export", response.read()))
            shutil.copyfileobj(response, file)

    def remove_container(self, name: str) -> None:
        self._remove(f"/containers/{name}?force=1&v=1")

    def remove_volume(self, name: str) -> None:
        self._remove(f"/volumes/{name}?force=1")

    def remove_image(self, name: str) -> None:
        self._remove(f"/images/{_quoted(name)}?force=1")

    @contextmanager
    def _container(self, image: str, settings: dict[str, Any]) -> Iterator[str]:
        text = json.dumps({"Image": image, **settings}).encode()
        body = Body(text, len(text), "application/json")
        made = json.loads(self._call("POST", "/containers/create", body))["Id"]
        try:
            yield made
        finally:
            self.remove_container(made)

    def _there(self, path: str) -> bool:
        with self._response("GET", path) as response:
            if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND):
                raise EngineError(f"the engine answered {response.status} to GET {path}")
            return response.status == http.HTTPStatus.OK

    def _remove(self, path: str) -> None:
        """Remove what may be there."""
        with self._response("DELETE", path) as response:
            gone = response.status < http.HTTPStatus.BAD_REQUEST or response.status == http.HTTPStatus.NOT_FOUND
            if not gone:
                raise EngineError(_refusal("DELETE", path, response.read()))

    def _call(self, method: str, path: str, body: Body | None = None, timeout: float = ANSWER_SECONDS) -> bytes:
        with self._response(method, path, body, timeout) as response:
            content = response.read()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise EngineError(_refusal(method, path, content))
        return content

    @contextmanager
    def _response(
        self, method: str, path: str, body: Body | None = None, timeout: float = ANSWER_SECONDS
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(timeout)
        headers = {"Content-Type": body.kind, "Content-Length": str(body.size)} if body else {}
        try:
            connection.request(method, path, body.content if body else None, headers)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"{self.host}: {error}") from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        url = urlsplit(self.host)
        if url.scheme == "unix":
            return _UnixConnection(url.path, timeout)
        return http.client.HTTPConnection(url.hostname or "localhost", url.port or 2375, timeout=timeout)


def _quoted(image: str) -> str:
    return quote(image, safe="")


def _refusal(method: str, path: str, content: bytes) -> str:
    return f"the engine refused {method} {path}: {content.decode(errors='replace').strip()}"


def _raise_told_failure(stream: bytes) -> None:
    """What takes long is answered with 200 at once, and with a line of JSON when it fails later."""
    for line in stream.splitlines():
        error = json.loads(line).get("error")
        if error:
            raise EngineError(error)
