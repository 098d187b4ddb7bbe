# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The listing of a tree that the daemon sends (wire §3.2 to §3.4): decoded, and held to its rules.

The rules make the rest simple: parents first, siblings in order, each path once. So no path can become a
link after something was put below it, and whoever walks along knows where he is.
"""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require

from .messages import fsutil
from .service import CallStatus, Code

_DIR, _SYMLINK, _DEVICE, _PIPE, _CHAR = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 21  # Go's os.FileMode
_TYPES = _DIR | _SYMLINK | _DEVICE | _PIPE | _CHAR | 1 << 24 | 1 << 19  # and sockets, and what is irregular
_KINDS = {
    0: stat.S_IFREG,
    _DIR: stat.S_IFDIR,
    _SYMLINK: stat.S_IFLNK,
    _DEVICE: stat.S_IFBLK,
    _DEVICE | _CHAR: stat.S_IFCHR,
    _PIPE: stat.S_IFIFO,
}
_UNCLEAN = (b"", b".", b"..")


class Entry(NamedTuple):
    """One entry of a listing.

    directory, name: the path in two parts, directory b"" for what is at the top. kind: S_IFREG, S_IFDIR, ….
    mode: the 12 bits of chmod. size: bytes. mtime: ns. link: target of a symlink as it is, or path of the first
    name of a hard link, else b"". device: for os.mknod.
    """

    directory: bytes
    name: bytes
    kind: int
    mode: int
    size: int
    mtime: int
    link: bytes
    device: int
    xattrs: dict[str, bytes]

    @property
    def path(self) -> bytes:
        return joined(self.directory, self.name)

    @property
    def shown(self) -> str:
        """The path for a message."""
        return shown(self.path)


def joined(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def refused(what: str) -> CallStatus:
    """The status that ends a transfer whose sender breaks the rules."""
    return CallStatus(Code.INVALID_ARGUMENT, f"the daemon sent {what}")


def decode_entry(encoded: bytes) -> Entry:
    """An `fsutil.types.Stat`. Raises CallStatus when it is none, or nothing that could be created.

    What is in front of the path's last name is checked by Order: it has to be a directory that was listed.
    """
    try:
        message = fsutil.Stat.FromString(encoded)
    except require("google.protobuf.message").DecodeError:
        raise refused("a malformed entry") from None
    path, bits = message.path, message.mode
    directory, slash, name = path.rpartition(b"/")
    kind = _KINDS.get(bits & _TYPES)
    if name in _UNCLEAN or (slash and not directory):
        raise refused(f"the path {shown(path)!r}")
    if kind is None:
        raise refused(f"the entry {shown(path)} with the mode {bits:#x}, which is of no type")
    if b"\0" in path or b"\0" in message.linkname or message.size < 0:
        raise refused(f"the entry {shown(path)} with what no file can have")
    if kind == stat.S_IFLNK and not message.linkname:
        raise refused(f"the link {shown(path)} without a target")
    if kind == stat.S_IFDIR and message.linkname:
        raise refused(f"the directory {shown(path)} as a link")
    return Entry(
        directory=directory,
        name=name,
        kind=kind,
        mode=bits & 0o777 | (bits >> 12 & 0o6000) | (bits >> 11 & 0o1000),
        size=message.size,
        mtime=message.modTime,
        link=message.linkname,
        device=_device(message) if bits & _DEVICE else 0,
        xattrs={os.fsdecode(item.key): item.value for item in message.xattrs},
    )


def _device(message: Any) -> int:
    if not (0 <= message.devmajor < 1 << 12 and 0 <= message.devminor < 1 << 20):
        raise refused(f"the device {shown(message.path)} with the numbers {message.devmajor}:{message.devminor}")
    return os.makedev(message.devmajor, message.devminor)


class Level(NamedTuple):
    """A directory on the way from the root to where the listing is. names: what was listed in it, in order."""

    path: bytes
    names: list[bytes]


class Order:
    """Holds a listing to its order (wire §3.3)."""

    def __init__(self) -> None:
        self._levels = [Level(b"", [])]

    def admit(self, entry: Entry) -> list[Level]:
        """The directories that the listing leaves with this entry, deepest first.

        Raises CallStatus when the entry has no place in the listing: out of order, twice, or below what was not
        listed as a directory.
        """
        levels, left = self._levels, []
        while levels[-1].path != entry.directory:
            if len(levels) == 1:
                raise refused(f"the path {entry.shown!r} out of order")
            left.append(levels.pop())
        names = levels[-1].names
        if names and names[-1] >= entry.name:
            raise refused(f"the path {entry.shown!r} out of order")
        names.append(entry.name)
        if entry.kind == stat.S_IFDIR:
            levels.append(Level(entry.path, []))
        return left

    def end(self) -> list[Level]:
        """The directories that are still open when the listing is over, deepest first, the root last."""
        left, self._levels = self._levels[::-1], [Level(b"", [])]
        return left
