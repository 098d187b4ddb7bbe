# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One build by the collection's client, in this process, and the same one by the real CLI.

Both make an image in their daemon whose bytes depend on nothing but what was sent: no cache, no attestations, and
SOURCE_DATE_EPOCH for what has the time of the build.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import contexts
from ansible_collections.buildfleet.buildx.plugins.module_utils._build import request as requests
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.directory_keys import shared_key
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import solve
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._connect import DirectDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import direct
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError
from ansible_collections.buildfleet.buildx.plugins.module_utils._identifiers import new_ref

from .trees import EPOCH

SECONDS = 120
LAYERS = {"rewrite-timestamp": "true", "compression": "uncompressed"}


@dataclass(frozen=True)
class Inputs:
    """What is built.

    context: absolute path. dockerfile: path, None for the context's own. contexts: name → directory, of further ones.
    """

    context: str
    dockerfile: str | None = None
    contexts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a build came to: the digests of the image and of its configuration, or why there is none."""

    image: str = ""
    config: str = ""
    error: str = ""


class Ours:
    """The collection's client on the daemon in a container; the rooms of a module, without the module's process.

    key: makes the session's shared key of the inputs.
    sent: (files, bytes) that the daemon asked for in the last build.
    """

    def __init__(self, container: Mapping[str, Any], key: Callable[[Inputs], str] | None = None) -> None:
        directory = direct.open_directory(container)
        assert directory is not None, "the daemon's socket cannot be reached directly"
        self._dialer = DirectDialer(directory)
        self._client = Client(self._dialer)
        self._key = key or _key
        self.sent = (0, 0)
        self.progress = Progress()

    def close(self) -> None:
        self._client.close()
        self._dialer.close()

    def build(self, inputs: Inputs, *, cached: bool = False) -> Result:
        request = requests.BuildRequest(
            requests.source(inputs.context, inputs.dockerfile),
            contexts=contexts.named(inputs.contexts),
            args={"SOURCE_DATE_EPOCH": str(EPOCH)},
            no_cache=not cached,
        )
        files = FileSync(requests.local_directories(request))
        session = Session(self._dialer, new_ref(), self._key(inputs), [Health(), files])
        attrs = requests.frontend_attrs(request, engine_store=False, attest=False)
        message = control.SolveRequest(
            Ref=new_ref(), Session=session.id, Frontend=requests.FRONTEND, FrontendAttrs=attrs
        )
        message.Exporters.add(Type="image", Attrs=LAYERS)
        message.ExporterDeprecated = "image"
        message.ExporterAttrsDeprecated.update(LAYERS)
        self.progress = Progress()
        try:
            response = solve.run(self._client, session, message, self.progress, Deadline(SECONDS))
        except BuildxError as exc:
            return Result(error=str(exc))
        finally:
            self.sent = (files.files_sent, files.bytes_sent)
        return Result(response["containerimage.digest"], response["containerimage.config.digest"])


def _key(inputs: Inputs) -> str:
    source = requests.source(inputs.context, inputs.dockerfile)
    return shared_key("fuzz", source.context, source.directory)


class Theirs:
    """The real CLI on a builder."""

    def __init__(self, builder: str, environment: Mapping[str, str]) -> None:
        self._builder = builder
        self._environment = dict(environment)

    def build(self, inputs: Inputs) -> Result:
        with tempfile.TemporaryDirectory() as directory:
            metadata = Path(directory, "metadata.json")
            done = self.run(inputs, f"--metadata-file={metadata}", output={"type": "image", **LAYERS})
            if done.returncode:
                return Result(error=done.stderr[-2000:])
            made = json.loads(metadata.read_text(encoding="utf-8"))
        return Result(made["containerimage.digest"], made["containerimage.config.digest"])

    def run(self, inputs: Inputs, *more: str, output: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        command = [
            self._environment["BUILDX_LAB_BUILDX"], "build", "--builder", self._builder, "--no-cache",
            "--provenance=false", f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}", "--progress=plain",
            "--output", ",".join(f"{key}={value}" for key, value in output.items()), *more,
        ]  # fmt: skip
        if inputs.dockerfile:
            command += ["--file", inputs.dockerfile]
        for name, directory in inputs.contexts.items():
            command += ["--build-context", f"{name}={directory}"]
        return subprocess.run(
            [*command, inputs.context],
            env=self._environment, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip


class Entry(NamedTuple):
    """An entry of a layer. about: all that its header says of it but the size."""

    name: str
    about: str
    size: int
    content: str

    def lost(self) -> Entry:
        """The entry with the content lost."""
        return self._replace(size=0, content=_digest(b"")) if self.content else self


def listing(container: str, image: str, environment: Mapping[str, str]) -> list[Entry]:
    """The entries of all layers of an image that a daemon holds, for telling two images apart."""

    def blob(digest: str) -> bytes:
        path = f"/var/lib/buildkit/runc-overlayfs/content/blobs/{digest.replace(':', '/')}"
        return subprocess.run(
            ["docker", "exec", container, "cat", path], env=dict(environment), capture_output=True, check=True
        ).stdout

    entries = []
    for number, layer in enumerate(json.loads(blob(image))["layers"]):
        with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"])), errors="surrogateescape") as archive:
            for entry in archive:
                held = archive.extractfile(entry) if entry.isreg() else None
                about = (
                    f"layer {number} {entry.type!r} {entry.mode:o} {entry.uid}:{entry.gid} {entry.mtime} "
                    f"{entry.linkname!r} {entry.devmajor}:{entry.devminor} {entry.pax_headers}"
                )
                entries.append(Entry(entry.name, about, entry.size, _digest(held.read()) if held else ""))
    return entries


def only_lost(theirs: Sequence[Entry], ours: Sequence[Entry]) -> bool:
    """Whether the images differ only by files that the CLI left empty.

    It matches a file's path once for the listing and once more, by another rule (patternmatcher's, for a path
    without what its parents were matched with), when the daemon asks for the content; where the two disagree, it
    sends none and says nothing. Ours sends what it listed.
    """
    return len(theirs) == len(ours) and all(their in (our, our.lost()) for their, our in zip(theirs, ours))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
