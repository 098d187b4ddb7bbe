# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Directories as a daemon may know them: keys under which it keeps their last copy, and named contexts.

The daemon keeps the last copy of a directory under `<local name>:<hint of the frontend>:<shared key of the session>`
and takes what has the same size and time for the same (wire §3.6). So two directories must never meet under one key:
the session's key stands for the directories of the reserved local names, and the local name of each further one
holds a key of its own, because hints are the frontend's, and differ between its versions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

CAPABILITY = "moby.buildkit.frontend.contexts+forward"
"""For `frontend.caps`: a frontend that does not know named contexts must refuse the build (wire §5.5)."""
_GENERATION = 0x80087601  # FS_IOC_GETVERSION of 64-bit Linux


def shared_key(client: str, *directories: str) -> str:
    """The session's shared key: unique per client and directories (of the context, of the Dockerfile), plain ASCII.

    client: the id of this host's store. Raises ConfigError when a directory cannot be opened.
    """
    return _digest(client, *map(_identity, directories))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _identity(directory: str) -> str:
    """What a directory is called and which one it is: another that takes its name, by a move, is not the same.

    The number of an inode is used again; file systems that do that at once tell how often.
    """
    path = os.path.realpath(directory)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigError(f"cannot open the directory {directory}: {exc.strerror}") from None
    try:
        info = os.fstat(descriptor)
        return f"{path}\0{info.st_dev}\0{info.st_ino}\0{_generation(descriptor)}"
    finally:
        os.close(descriptor)


def _generation(descriptor: int) -> int:
    import fcntl

    answer = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _GENERATION, answer)
    except OSError:  # a file system without generations
        return 0
    return int.from_bytes(answer[:4], "little")


class NamedContexts(NamedTuple):
    """directories: local name → directory, for FileSync. attrs: what the frontend is told of them."""

    directories: Mapping[str, str]
    attrs: Mapping[str, str]


def named(contexts: Mapping[str, str]) -> NamedContexts:
    """Named contexts that are directories: name → directory. Raises ConfigError that names what cannot be used.

    A name is one of an image, and replaces that image in FROM and COPY --from (wire §5.5). The session's shared key
    is not concerned: each local name has the key of its directory in it.
    """
    directories: dict[str, str] = {}
    attrs: dict[str, str] = {}
    for given, directory in contexts.items():
        name = normalised(given)
        if f"context:{name}" in attrs:
            raise ConfigError(f"the build context {name} is named twice")
        path = os.path.realpath(directory)
        if not os.path.isdir(path):
            raise ConfigError(f"failed to get build context {given}: {directory} is not a directory of the target")
        if not os.access(path, os.R_OK | os.X_OK):
            raise ConfigError(f"failed to get build context {given}: {directory} cannot be read by this user")
        local = f"{name}-{_digest(_identity(path))[:32]}"
        directories[local] = path
        attrs[f"context:{name}"] = f"local:{local}"
    if attrs:
        attrs["frontend.caps"] = CAPABILITY
    return NamedContexts(directories, attrs)


def normalised(name: str) -> str:
    """The name under which the frontend looks: familiar, without the tag `latest`."""
    from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference

    parsed = str(reference.parse(name, what="name of a build context"))
    return parsed[: -len(":latest")] if parsed.endswith(":latest") else parsed
