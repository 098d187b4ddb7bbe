# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A directory that results are written to, and nothing outside of it, whatever others do to it meanwhile.

Each step on the way down is opened by its name in the directory above, never through a link, and each change
names its object in an open directory. What is there is replaced by a rename, so that nobody sees a half.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import Optional

from .listing import joined
from .service import CallStatus, Code

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 100
"""Levels whose directories stay open; deeper ones are opened anew from there. A process may have 1024 files."""
_LONGEST_READ = 1 << 20

_getxattr = getattr(os, "getxattr", None)  # Linux only


class Place:
    """Walks below a root, one directory open at a time; ways that resemble the last one are short."""

    def __init__(self, root: int) -> None:
        """root: descriptor of the destination, which stays the caller's."""
        self._root = root
        self._names: list[bytes] = []
        self._fds: list[int] = []  # of the first _KEPT_OPEN names
        self._deep = -1  # of the last name, when it is deeper than that
        self._path = b""

    def enter(self, path: bytes) -> int:
        """Descriptor of a directory below the root, good until the next call. Raises OSError when it is none."""
        if path == self._path:
            return self._here()
        names = path.split(b"/") if path else []
        common = 0
        while common < len(self._fds) and self._names[common : common + 1] == names[common : common + 1] != []:
            common += 1
        self._leave(common)
        for name in names[common:]:
            opened = os.open(name, DIRECTORY, dir_fd=self._here())
            self._names.append(name)
            self._path = joined(self._path, name)
            if len(self._fds) < _KEPT_OPEN:
                self._fds.append(opened)
            else:
                self._close_deep()
                self._deep = opened
        return self._here()

    def close(self) -> None:
        self._leave(0)

    def _here(self) -> int:
        if self._deep >= 0:
            return self._deep
        return self._fds[-1] if self._fds else self._root

    def _leave(self, depth: int) -> None:
        self._close_deep()
        del self._names[depth:]
        while len(self._fds) > depth:
            os.close(self._fds.pop())
        self._path = b"/".join(self._names)

    def _close_deep(self) -> None:
        if self._deep >= 0:
            os.close(self._deep)
            self._deep = -1


class Temporaries:
    """Names for what is not complete yet, which nothing else has."""

    def __init__(self) -> None:
        self._prefix = b".buildx-" + secrets.token_hex(8).encode() + b"-"
        self._count = 0

    def name(self) -> bytes:
        self._count += 1
        return b"%b%d" % (self._prefix, self._count)

    def made(self, name: bytes) -> bool:
        return name.startswith(self._prefix)


def look(name: bytes, directory: int) -> Optional[os.stat_result]:
    """lstat of what has a name, None when nothing has."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def create(name: bytes, directory: int, mode: int = 0o600) -> int:
    """Descriptor of a new file of that name, by default for its writer alone."""
    return os.open(name, _CREATE, mode, dir_fd=directory)


def open_file(name: bytes, directory: int) -> int:
    """Descriptor of a regular file for reading. Raises OSError, also when it is something else by now."""
    opened = os.open(name, _READ, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "no regular file")
    return opened


def write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        data = data[written:]
        written = os.write(file, data)


def continues_with(file: int, data: bytes) -> bool:
    """Whether the next bytes of a file are these."""
    while data:
        found = os.read(file, min(len(data), _LONGEST_READ))
        if not found or not data.startswith(found):
            return False
        data = data[len(found) :]
    return True


def replace(temporary: bytes, name: bytes, directory: int) -> None:
    """Give something its name; what had it is gone."""
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def set_xattrs(file: int, wanted: Mapping[str, bytes]) -> bool:
    """Set those extended attributes that may be set here; whether one became another. As the CLI, in silence."""
    changed = False
    if _getxattr is not None:
        for key, value in wanted.items():
            with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in the name
                if not has_xattr(file, key, value):
                    os.setxattr(file, key, value)
                    changed = True
    return changed


def has_xattr(file: int, key: str, value: bytes) -> bool:
    try:
        return os.getxattr(file, key) == value
    except OSError:
        return False


def chmod_unopened(name: bytes, directory: int, mode: int, kind: int) -> None:
    """The mode of what cannot be opened, or must not be: a device could begin to do something.

    kind: S_IFDIR, …; anything else that has the name by now is left alone.
    """
    opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_IFMT(os.fstat(opened).st_mode) == kind:
            os.chmod(f"/proc/self/fd/{opened}", mode)
    finally:
        os.close(opened)


def make_directories(path: str, mode: int) -> None:
    """Make a directory and those on the way to it, all with this mode less the umask; what is there stays.

    Raises OSError when something on the way is no directory.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent in ("", path):
            raise
        make_directories(parent, mode)
        make_directories(path, mode)


def remove_tree(name: bytes, directory: int) -> Iterator[int]:
    """Remove a name and all that is below it, links not followed. Yields 1 for each entry, as it may take long.

    A directory that cannot be written is made so first: its owner may.
    """
    if _unlink(name, directory):
        yield 1
        return
    place, waiting = Place(directory), [(name, False)]
    try:
        while waiting:
            path, emptied = waiting.pop()
            parent, _slash, last = path.rpartition(b"/")
            if emptied:
                os.rmdir(last, dir_fd=place.enter(parent))
                yield 1
                continue
            waiting.append((path, True))
            opened = _enter_to_empty(place, path)
            for item in os.listdir(opened):
                child = os.fsencode(item)
                if _unlink(child, opened):
                    yield 1
                else:
                    waiting.append((joined(path, child), False))
    finally:
        place.close()


def _enter_to_empty(place: Place, path: bytes) -> int:
    try:
        opened = place.enter(path)
        if os.fstat(opened).st_mode & 0o700 == 0o700:
            return opened
    except PermissionError:
        pass
    parent, _slash, name = path.rpartition(b"/")
    chmod_unopened(name, place.enter(parent), 0o700, stat.S_IFDIR)
    return place.enter(path)


def _unlink(name: bytes, directory: int) -> bool:
    """Remove what is no directory; False for a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):  # EPERM is what POSIX has for a directory
        found = look(name, directory)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise
        return False
    return True


def unwritable(path: str, exc: OSError) -> CallStatus:
    """The status for what this host does not let us write; the daemon makes it the build's error."""
    code = Code.PERMISSION_DENIED if isinstance(exc, PermissionError) else Code.FAILED_PRECONDITION
    if exc.errno in (errno.ENOTDIR, errno.ELOOP):
        return CallStatus(code, f"cannot write {path}: something on the way is no directory, or has become a link")
    return CallStatus(code, f"cannot write {path}: {exc.strerror}")
