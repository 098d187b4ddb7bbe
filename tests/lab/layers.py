# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers and images as a registry stores them: compressed once, pushed as they are.

Packing here instead of in the engine means that a lab needs no engine to make its images, that every
clone has byte-identical ones, and that pushing them is a copy.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_CHUNK = 1 << 20
# Speed beats size: the data crosses one loopback.
_COMPRESSION = 1
_CREATED = "2026-01-01T00:00:00Z"

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Layer:
    """A packed layer in the cache: the compressed archive, and a description of both its hashes."""

    directory: Path

    @property
    def archive(self) -> Path:
        return self.directory / "layer.tar.gz"

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.directory / "layer.json").read_text())
        return facts


@dataclass(frozen=True)
class Image:
    """An image that can be pushed: a repository's name as the registry knows it, a tag, and the bytes."""

    repository: str
    tag: str
    config: bytes
    layers: tuple[Layer, ...]

    @property
    def manifest(self) -> bytes:
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": _CONFIG_TYPE, "size": len(self.config), "digest": digest(self.config)},
                "layers": [
                    {"mediaType": _LAYER_TYPE, "size": layer.facts["size"], "digest": layer.facts["digest"]}
                    for layer in self.layers
                ],
            }
        )


def image(repository: str, tag: str, architecture: str, layers: Sequence[Layer], settings: dict[str, object]) -> Image:
    """Describe layers as an image; `settings` is the part that a Dockerfile's ENTRYPOINT, ENV and so on set."""
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": _CREATED,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer.facts["diff_id"] for layer in layers]},
        "history": [{"created": _CREATED, "created_by": "buildfleet.buildx lab"} for _layer in layers],
    }
    return Image(repository, tag, _json(config), tuple(layers))


def pack_stream(source: IO[bytes], directory: Path) -> None:
    """Compress a tar stream into `directory` and note the hashes of both forms."""
    plain = hashlib.sha256()
    archive = directory / "layer.tar.gz"
    with archive.open("wb") as raw, gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as packed:
        while chunk := source.read(_CHUNK):
            plain.update(chunk)
            packed.write(chunk)
    with archive.open("rb") as done:
        compressed = hashlib.file_digest(done, "sha256").hexdigest()
    facts = {
        "diff_id": f"sha256:{plain.hexdigest()}",
        "digest": f"sha256:{compressed}",
        "size": archive.stat().st_size,
    }
    (directory / "layer.json").write_bytes(_json(facts))


def pack_files(directory: Path, fill: Callable[[tarfile.TarFile], None]) -> None:
    """Pack what `fill` adds to a tar file."""
    plain = directory / "plain.tar"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
        fill(archive)
    with plain.open("rb") as stream:
        pack_stream(stream, directory)
    plain.unlink()


def add_program(archive: tarfile.TarFile, source: Path, name: str) -> None:
    """Add an executable owned by root, without the times and owners of the machine that made it."""
    member = tarfile.TarInfo(name)
    member.size = source.stat().st_size
    member.mode = 0o755
    with source.open("rb") as stream:
        archive.addfile(member, stream)


def add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type = tarfile.SYMTYPE
    member.linkname = target
    archive.addfile(member)


def add_directory(archive: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    member.mode = mode
    archive.addfile(member)


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
