# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A directory as the stream of fsutil Stats that BuildKit expects: filtered, in order, parents first.

Encoded by hand: a protobuf object per file would cost as much and would bring protobuf into the hot path.
Names are bytes. Nothing is opened here; a directory that another process swaps for a link while it is
listed can show names from elsewhere, never contents (filesync.py opens without following).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Optional

from .patterns import Matcher
from .wirebytes import varint as any_varint

_TYPES = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 0,  # with its bit the daemon refuses it; without, it is an empty file
}
_SMALL = [bytes((number,)) for number in range(128)]
_by_name = attrgetter("name")
_listxattr = getattr(os, "listxattr", None)  # Linux only

DROPPED_MAX = 1000
"""Entries that may be filtered out in a row before others get a turn; a few milliseconds."""

Entry = tuple[bytes, Optional[bytes]]
"""One Stat to send: (encoded fsutil.types.Stat, content).

content: path relative to the root of a file that the daemon may ask for; b"" if that is empty by nature (a
socket), None if the daemon may not ask.
"""


def varint(number: int) -> bytes:
    """Protobuf's encoding of 0 <= number < 2**64, quick for small ones."""
    if number < 0x80:
        return _SMALL[number]
    if number < 0x4000:
        return bytes((number & 127 | 128, number >> 7))
    if number < 0x200000:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    return any_varint(number)


def _time(ns: int) -> bytes:
    """varint of a time in ns, spelled out for those from 1972 to 2262, as each file has one."""
    if not 1 << 56 <= ns < 1 << 63:
        return varint(ns & 0xFFFFFFFFFFFFFFFF)
    low, high = ns & 0xFFFFFFF, ns >> 28 & 0xFFFFFFF
    return bytes((
        low & 127 | 128, low >> 7 & 127 | 128, low >> 14 & 127 | 128, low >> 21 | 128,
        high & 127 | 128, high >> 7 & 127 | 128, high >> 14 & 127 | 128, high >> 21 | 128, ns >> 56,
    ))  # fmt: skip


def go_mode(mode: int) -> int:
    """`st_mode` of lstat as Go's file mode, 32 bits: the permissions stay, all other bits move.

    Raises KeyError for a type of file that Linux does not have. Source: wire §3.4; a raw st_mode is not refused
    by the daemon, directories then arrive as empty files.
    """
    bits = _TYPES[stat.S_IFMT(mode)] | mode & 0o777
    return bits | (mode & 0o6000) << 12 | (mode & 0o1000) << 11


@lru_cache(maxsize=256)
def _mode_field(mode: int) -> bytes:
    bits = go_mode(mode)
    return b"\x10" + varint(bits) if bits else b""


def encode_stat(path: bytes, info: os.stat_result, link: bytes, xattrs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """`fsutil.types.Stat` of an entry, in the order of its fields; owner 0/0 as all Go clients send it (wire §3.5).

    A later name of a hard link keeps its size (wire §3.4 says 0): Go clients send it, and the daemon compares it
    with what it has stored.
    """
    mode, size, time = info.st_mode, info.st_size, info.st_mtime_ns
    parts = [b"\n", varint(len(path)), path, _mode_field(mode)]
    if size and not stat.S_ISDIR(mode):
        parts += (b"(", varint(size))
    if time:
        parts += (b"0", _time(time))
    if link:
        parts += (b":", varint(len(link)), link)
    if info.st_rdev and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        parts += (b"@" + varint(major) if major else b"", b"H" + varint(minor) if minor else b"")
    for key, value in xattrs:
        head = b"\n" + varint(len(key)) + key + b"\x12" + varint(len(value))
        parts += (b"R", varint(len(head) + len(value)), head, value)
    return b"".join(parts)


def _xattrs(path: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Extended attributes that can be read, Apple's left out. Raises OSError when they cannot be listed."""
    if _listxattr is None:
        return ()
    try:
        names = _listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    found = []
    for name in names:
        if not name.startswith("com.apple."):
            with contextlib.suppress(OSError):  # the Go clients leave out what cannot be read as well
                found.append((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)))
    return found


class Selection:
    """What include and exclude patterns let through, and which directories need not be looked into.

    include: patterns of which an entry or one of its parents must match one; [] for everything.
    Raises PatternError, also from judge().
    """

    def __init__(self, include: Sequence[bytes], exclude: Sequence[bytes]) -> None:
        self._include = Matcher(include) if include else None
        self._exclude = Matcher(exclude) if exclude else None
        self._wanted = self._include.bases(exceptions=False) if self._include else None
        self._excepted = self._exclude.bases(exceptions=True) if self._exclude else None

    def judge(self, path: bytes, parent: tuple[int, int]) -> tuple[bool, bool, tuple[int, int]]:
        """(keep it, look into it if it is a directory, what its children are judged with)."""
        keep, included, excluded = True, 0, 0
        if self._include is not None:
            keep, included = self._include.match(path, parent[0])
            if not keep and not _leads_to(path, self._wanted):
                return False, False, parent
        if self._exclude is not None:
            drop, excluded = self._exclude.match(path, parent[1])
            if drop and not _leads_to(path, self._excepted):
                return False, False, parent
            keep = keep and not drop
        return keep, True, (included, excluded)


def _leads_to(path: bytes, bases: Optional[tuple[bytes, ...]]) -> bool:
    inside = path + b"/"
    return bases is None or any(base.startswith(inside) for base in bases)


class _Level:
    """A directory on the way from the root to where the walk is."""

    __slots__ = ("entries", "owed", "prefix", "state")

    def __init__(self, path: bytes, prefix: bytes, state: tuple[int, int], owed: Optional[os.DirEntry[bytes]]) -> None:
        with os.scandir(path) as entries:
            # Siblings by the bytes of their names (wire §3.3), the next one last: it is taken out, because entries
            # keep their stat, and 50,000 of these are 30 MB.
            self.entries = sorted(entries, key=_by_name, reverse=True)
        self.prefix = prefix
        self.state = state
        self.owed = owed  # the directory itself, as long as it was not sent


class Walk:
    """Iterates over the Entries of a tree, lazily, depth first; None after each DROPPED_MAX of what is filtered out.

    root: absolute path of a directory. Raises OSError with the name of what cannot be read; what vanishes while
    the walk goes on is left out, as if it had gone before.
    """

    def __init__(self, root: bytes, selection: Optional[Selection] = None) -> None:
        self._selection = selection
        self._links: dict[tuple[int, int], bytes] = {}
        self._stack = [_Level(root, b"", (0, 0), None)]

    def __iter__(self) -> Iterator[Optional[Entry]]:
        stack, selection = self._stack, self._selection
        keep, state, dropped = True, (0, 0), 0
        while stack:
            level = stack[-1]
            prefix, entries = level.prefix, level.entries
            while entries:
                item = entries.pop()
                path = prefix + item.name
                if selection is not None:
                    keep, enter, state = selection.judge(path, level.state)
                    if not keep:
                        dropped += 1
                        if dropped % DROPPED_MAX == 0:
                            yield None
                        if enter and item.is_dir(follow_symlinks=False) and self._enter(item, path, state, keep):
                            break
                        continue
                try:
                    if level.owed is not None:
                        yield from self._parents()
                    info = item.stat(follow_symlinks=False)
                    entry = self._entry(item, path, info)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                yield entry
                if entry[1] is None and stat.S_ISDIR(info.st_mode) and self._enter(item, path, state, keep):
                    break
            else:
                stack.pop()

    def _enter(self, item: os.DirEntry[bytes], path: bytes, state: tuple[int, int], sent: bool) -> bool:
        try:
            self._stack.append(_Level(item.path, path + b"/", state, None if sent else item))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError:
            if sent:
                raise
            return False  # filtered out itself, so nobody asked for what is in it
        return True

    def _parents(self) -> Iterator[Entry]:
        """Directories that were filtered out themselves and now have something to hold (wire §4.3, last row)."""
        for level in self._stack:
            if level.owed is not None:
                item, level.owed = level.owed, None
                yield self._entry(item, level.prefix[:-1], item.stat(follow_symlinks=False))

    def _entry(self, item: os.DirEntry[bytes], path: bytes, info: os.stat_result) -> Entry:
        kind, xattrs = info.st_mode & 0o170000, _xattrs(item.path)
        link, content = b"", path if kind == stat.S_IFREG else None
        if kind == stat.S_IFLNK:
            link = os.readlink(item.path)
        elif kind != stat.S_IFDIR:
            if kind == stat.S_IFSOCK:
                content = b""
            if info.st_nlink > 1:  # last of what can fail: a name that is remembered here has to be sent
                first = self._links.setdefault((info.st_dev, info.st_ino), path)
                if first is not path:
                    link, content = first, None
        return encode_stat(path, info, link, xattrs), content
