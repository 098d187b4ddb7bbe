# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Keys under which a daemon keeps its last copies of our directories.

The daemon keeps the last copy of a directory under `<local name>:<hint of the frontend>:<shared key of the session>`
and takes what has the same size and time for the same (wire §3.6). So two directories must never meet under one key:
the session's key stands for the directories of the reserved local names, and the local name of each further one
holds a key of its own (contexts.py), because hints are the frontend's, and differ between its versions.
"""

from __future__ import annotations

import hashlib
import os

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

_GENERATION = 0x80087601  # FS_IOC_GETVERSION of 64-bit Linux


def shared_key(client: str, *directories: str) -> str:
    """The session's shared key: unique per client and directories (of the context, of the Dockerfile), plain ASCII.

    client: the id of this host's store. Raises ConfigError when a directory cannot be opened.
    """
    return _digest(client, *map(_identity, directories))


def directory_key(directory: str) -> str:
    """A key of one directory, shorter than a shared key. Raises ConfigError when it cannot be opened."""
    return _digest(_identity(directory))[:16]


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
