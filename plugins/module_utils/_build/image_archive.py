# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Archives of images compared by what they hold: the daemon writes the time of the export into each (wire §7)."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import IO, Any, Optional

INDEX = "index.json"
CREATED = "org.opencontainers.image.created"
LARGEST_INDEX = 4 << 20
_PIECE = 1 << 20

Contents = dict[str, Any]
"""Member → digest of its content; of the index its entries, without their times."""


def same_image(old: int, new: int) -> bool:
    """Whether two archives hold the same image, all of it. old, new: descriptors; what is no archive is another one."""
    if os.fstat(old).st_size < os.fstat(new).st_size // 2:
        return False
    before = _contents(old)
    return before is not None and before == _contents(new)


def _contents(file: int) -> Optional[Contents]:
    """What is in an archive; None when it is none, or is broken off."""
    try:
        with open(os.dup(file), "rb") as stream:
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                return {member.name: _content(archive, member) for member in archive}
    except (tarfile.TarError, OSError, ValueError):
        return None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    stream = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        return member.type
    if member.name == INDEX and member.size <= LARGEST_INDEX:
        return _timeless(json.load(stream))
    return _digest(stream)


def _timeless(index: Any) -> Any:
    for entry in index.get("manifests") or () if isinstance(index, dict) else ():
        annotations = entry.get("annotations") if isinstance(entry, dict) else None
        if isinstance(annotations, dict):
            annotations.pop(CREATED, None)
    return index


def _digest(stream: IO[bytes]) -> str:
    hashed = hashlib.sha256()
    for piece in iter(lambda: stream.read(_PIECE), b""):
        hashed.update(piece)
    return hashed.hexdigest()
