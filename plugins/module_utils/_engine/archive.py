# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Small trees of files in and out of a container, through the engine's archive calls."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping, Sequence

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .client import Engine

LARGEST = 16 << 20
"""A tree of configuration larger than this is refused: it would be read into memory whole."""


def read_tree(engine: Engine, container: str, path: str) -> dict[str, bytes]:
    """The regular files below a directory of a container, running or not: relative path → content.

    {} when there is no such directory.
    """
    try:
        with engine.errors(f"read {path} of the container {container}"):
            chunks, _stat = engine.api.get_archive(container, path)
            content = _collect(chunks, container, path)
    except EngineError as exc:
        if exc.details.get("status") == 404:
            return {}
        raise
    base = posixpath.basename(path) + "/"
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                files[member.name[len(base) :] if member.name.startswith(base) else member.name] = stream.read()
    return files


def _collect(chunks: object, container: str, path: str) -> bytes:
    content = bytearray()
    for chunk in chunks:  # type: ignore[attr-defined]  # docker-py has no types
        content += chunk
        if len(content) > LARGEST:
            raise EngineError(f"{path} of the container {container} is larger than {LARGEST >> 20} MiB")
    return bytes(content)


def write_tree(engine: Engine, container: str, parent: str, files: Mapping[str, bytes]) -> None:
    """Put files below `parent` of a container; keys are relative paths. Others that are there stay."""
    with engine.errors(f"write {parent} of the container {container}"):
        engine.api.put_archive(container, parent, pack(files))


def pack(files: Mapping[str, bytes]) -> bytes:
    """A tar of the files and of the directories above them: root's, 0755 and 0644, mtime 0, sorted.

    The same bytes for the same files, as the CLI writes them since v0.37 (buildx §3.5). Raises EngineError for a path
    that leads elsewhere.
    """
    directories: set[str] = set()
    for path in files:
        parts = path.split("/")
        if path.startswith("/") or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise EngineError(f"invalid config file path {path!r}")
        directories.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for path in sorted(directories.intersection(files)):
        raise EngineError(f"config file path {path!r} conflicts with directory")
    try:
        return _tar(sorted(directories), files)
    except ValueError as exc:  # tarfile's word for a name that the format cannot hold
        raise EngineError(f"invalid config file path: {exc}") from exc


def _tar(directories: Sequence[str], files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in directories:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for path in sorted(files):
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = 0o644, len(files[path])
            archive.addfile(entry, io.BytesIO(files[path]))
    return buffer.getvalue()
