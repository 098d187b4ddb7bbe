# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry of an instance: Debian's, plain HTTP, in the instance's own network and nowhere else.

The engine has it as the mirror of the public registry, so pulling `moby/buildkit` or `busybox` is a
real pull. Tests stop it to see what happens when nothing can be pulled.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .daemon import Daemon, written
from .errors import LabError, StepError
from .layers import MANIFEST_TYPE, Image, digest
from .processes import wait_until

PORT = 5001
MIRROR = f"127.0.0.1:{PORT}"
# The engine's end of its bridge: the same registry as containers see it that have a network of their own.
BRIDGE_ADDRESS = "172.17.0.1"
FROM_CONTAINERS = f"{BRIDGE_ADDRESS}:{PORT}"


@dataclass(frozen=True)
class Registry(Daemon):
    """docker-registry in a machine."""

    NAME = "registry"

    @property
    def running(self) -> bool:
        """Whether it answers, with the configuration that we would give it."""
        return self.process is not None and written(self._configuration_file) == _configuration() and self.answers()

    def start(self) -> None:
        if self.running:
            return
        self.stop()
        self._configuration_file.write_text(_configuration())
        self.machine.spawn(self.pidfile, ["docker-registry", "serve", "/var/lib/registry/config.yml"], self.log)
        wait_until(lambda: self.process is None or self.answers(), 20)
        if not self.answers():
            raise StepError(f"the registry of {self.machine.name} does not answer", self.log)

    @property
    def _configuration_file(self) -> Path:
        return self.machine.state / "registry" / "config.yml"

    def answers(self) -> bool:
        try:
            return self.request("GET", "/v2/")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException, LabError):
            return False

    def request(
        self, method: str, path: str, body: bytes | BinaryIO | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request from inside the instance's network: status, headers in lower case, body."""
        return self.machine.in_network(lambda: _request(method, path, body, headers or {}))

    def holds(self, image: Image) -> bool:
        """Whether the tag is there and means exactly this image."""
        path = f"/v2/{image.repository}/manifests/{image.tag}"
        status, headers, _content = self.request("HEAD", path, headers={"Accept": MANIFEST_TYPE})
        return status == http.HTTPStatus.OK and headers.get("docker-content-digest") == digest(image.manifest)

    def push(self, image: Image) -> None:
        """Push an image: the blobs that are missing, then the manifest."""
        for layer in image.layers:
            with layer.archive.open("rb") as content:
                self._push_blob(image.repository, layer.facts["digest"], content, layer.facts["size"])
        self._push_blob(image.repository, digest(image.config), image.config, len(image.config))
        path = f"/v2/{image.repository}/manifests/{image.tag}"
        self._expect(http.HTTPStatus.CREATED, "PUT", path, image.manifest, {"Content-Type": MANIFEST_TYPE})

    def _push_blob(self, repository: str, blob: str, content: bytes | BinaryIO, size: int) -> None:
        if self.request("HEAD", f"/v2/{repository}/blobs/{blob}")[0] == http.HTTPStatus.OK:
            return
        started = self._expect(http.HTTPStatus.ACCEPTED, "POST", f"/v2/{repository}/blobs/uploads/")
        location = started["location"].removeprefix(f"http://{MIRROR}")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        target = f"{location}{'&' if '?' in location else '?'}digest={blob}"
        self._expect(http.HTTPStatus.CREATED, "PUT", target, content, headers)

    def _expect(
        self,
        status: int,
        method: str,
        path: str,
        body: bytes | BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        got, answer, content = self.request(method, path, body, headers)
        if got != status:
            raise LabError(f"the registry answered {got} to {method} {path}: {content.decode(errors='replace')}")
        return answer


def _request(
    method: str, path: str, body: bytes | BinaryIO | None, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def _configuration() -> str:
    """JSON is YAML too."""
    return json.dumps(
        {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}, "delete": {"enabled": True}},
            "http": {"addr": f":{PORT}"},
            "log": {"level": "info"},
        }
    )


def builder_configuration() -> str:
    """A buildkitd.toml with which builders on the bridge pull from the registry, as the engine does."""
    return f"""\
[registry."docker.io"]
  mirrors = ["{FROM_CONTAINERS}"]

[registry."{FROM_CONTAINERS}"]
  http = true
"""
