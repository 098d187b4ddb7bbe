# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The entries of a received tree as they get their place on disk, and whether that makes a difference.

What is there and equal stays: its inode, and its name for other names of it. Only the time of a file follows the
result in silence. What differs is replaced as the CLI does it (wire §3.9): files belong to the caller, modes
and times are the result's, extended attributes are set where that is allowed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from .destination import (
    Place,
    Temporaries,
    chmod_unopened,
    continues_with,
    create,
    has_xattr,
    look,
    open_file,
    remove_tree,
    replace,
    set_xattrs,
    write_all,
)
from .listing import Entry, refused
from .replacement import Replacement

SMALL = 128 << 10
"""Bytes of a file that are held in memory and compared before anything is written; a larger one is written aside."""


class Tally:
    """What became different in a destination: how many entries are new, other than before, or gone.

    files, bytes: what came in, different or not.
    """

    def __init__(self) -> None:
        self.created = self.changed = self.deleted = self.files = self.bytes = 0

    @property
    def differs(self) -> bool:
        return bool(self.created or self.changed or self.deleted)


class IncomingFile:
    """A file on its way: its data so far, in memory or aside on disk."""

    __slots__ = ("_chunks", "_received", "aside", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.aside: Optional[Replacement] = None
        self._chunks: list[bytes] = []
        self._received = 0

    def write(self, data: bytes, aside: Callable[[Entry], Replacement]) -> None:
        self._received += len(data)
        if self._received > self.entry.size:
            raise refused(f"more of {self.entry.shown} than the {self.entry.size} bytes that it announced")
        if self.aside is None:
            self._chunks.append(data)
            if self._received <= SMALL:
                return
            self.aside = aside(self.entry)
            data = self._whole()
        self.aside.write(data)

    def end(self) -> bytes:
        """The whole of a small file, b"" of one that is aside. Raises CallStatus when something is missing."""
        if self._received != self.entry.size:
            raise refused(f"{self._received} of {self.entry.size} bytes of {self.entry.shown}")
        if self.aside is not None:
            self.aside.end()
        return self._whole()

    def _whole(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Landing:
    """Puts entries in their place below a root, whose descriptor stays the caller's."""

    def __init__(self, root: int, tally: Tally, temporaries: Temporaries) -> None:
        self._listed = Place(root)
        self._files = Place(root)  # files are complete later than they are listed
        self._tally = tally
        self._temporaries = temporaries
        self._owner = (os.geteuid(), os.getegid())
        self._new: set[bytes] = set()
        self._no_change: dict[bytes, tuple[int, int]] = {}

    def close(self) -> None:
        self._listed.close()
        self._files.close()

    def is_new(self, directory: bytes) -> bool:
        """Whether a directory was made here, and so holds nothing from before."""
        return directory in self._new

    def enter(self, directory: bytes) -> int:
        """Descriptor of a directory, good until the next call."""
        return self._listed.enter(directory)

    # Directories: made at once and open for their owner alone, given their mode and time when all is in them.

    def directory(self, entry: Entry) -> int:
        """Make a directory, or take the one that is there; the mode that it had, -1 for none."""
        parent = self.enter(entry.directory)
        try:
            os.mkdir(entry.name, 0o700, dir_fd=parent)
        except FileExistsError:
            found = look(entry.name, parent)
            if found is not None and stat.S_ISDIR(found.st_mode):
                mode = stat.S_IMODE(found.st_mode)
                narrow = mode & entry.mode | 0o700  # for all that is going to be in it, and for us
                if narrow != mode:
                    chmod_unopened(entry.name, parent, narrow, stat.S_IFDIR)
                return mode
            os.unlink(entry.name, dir_fd=parent)
            os.mkdir(entry.name, 0o700, dir_fd=parent)
            self._tally.changed += 1
        else:
            self._tally.created += 1
        self._new.add(entry.path)
        return -1

    def complete_directory(self, entry: Entry, mode: int) -> None:
        """mode: what `directory` said."""
        opened = self.enter(entry.path)
        changed = self._own(opened)
        os.fchmod(opened, entry.mode)
        changed = set_xattrs(opened, entry.xattrs) or changed
        os.utime(opened, ns=(entry.mtime, entry.mtime))
        self._tally.changed += mode >= 0 and (changed or mode != entry.mode)

    def _own(self, opened: int) -> bool:
        """A directory with the bit for that gives its group to what is made in it; the CLI's files are the caller's."""
        info = os.fstat(opened)
        if (info.st_uid, info.st_gid) == self._owner:
            return False
        os.fchown(opened, *self._owner)
        return True

    # Files.

    def aside(self, entry: Entry) -> Replacement:
        """Where a large file is written until it is complete."""
        return Replacement(entry.name, self._files.enter(entry.directory), self._temporaries.name(), entry.size)

    def file(self, incoming: IncomingFile) -> None:
        """All of a file has come."""
        data, entry, aside = incoming.end(), incoming.entry, incoming.aside
        directory = self._files.enter(entry.directory)
        self._tally.files += 1
        self._tally.bytes += entry.size
        if aside is None:
            old = None if entry.directory in self._new else look(entry.name, directory)
            same = old is not None and _holds(entry, old, data, directory)
        else:
            old, same = aside.old, aside.same
        lacking = self._lacking(entry, directory) if same and old is not None and self._like(entry, old) else None
        if lacking is not None and old is not None:
            if old.st_nlink == 1 or (not lacking and old.st_mtime_ns == entry.mtime):
                self._adjust(entry, old, lacking, directory)
                if aside is not None:
                    aside.discard()
                return
            # Another name may be elsewhere, and is not ours to change.
            self._no_change[entry.path] = (old.st_dev, old.st_ino)
            self._tally.changed -= 1  # which the replacement is going to add
        if aside is None:
            self._write(entry, data, old, directory, lacking or ())
        else:
            self._dress(aside.file, entry, lacking or ())
            self._clear(entry.name, old, directory)
            aside.place()

    def _adjust(self, entry: Entry, old: os.stat_result, lacking: Sequence[str], directory: int) -> None:
        if lacking:
            with _opened(entry.name, directory) as opened:  # what cannot be set here is no change, each time again
                self._tally.changed += set_xattrs(opened, entry.xattrs)
        if old.st_mtime_ns != entry.mtime:
            os.utime(entry.name, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _like(self, entry: Entry, old: os.stat_result) -> bool:
        """Whether type, mode and owner are what they will be."""
        mode = entry.kind | (0o777 if entry.kind == stat.S_IFLNK else entry.mode)
        return old.st_mode == mode and (old.st_uid, old.st_gid) == self._owner

    @staticmethod
    def _lacking(entry: Entry, directory: int) -> list[str]:
        """The attributes that a file does not have like this."""
        if not entry.xattrs:
            return []
        try:
            with _opened(entry.name, directory) as opened:
                return [key for key, value in entry.xattrs.items() if not has_xattr(opened, key, value)]
        except OSError:
            return list(entry.xattrs)

    def _write(
        self, entry: Entry, data: bytes, old: Optional[os.stat_result], directory: int, lacking: Sequence[str]
    ) -> None:
        temporary = self._temporaries.name()
        opened = create(temporary, directory)
        try:
            try:
                if data:
                    write_all(opened, data)
                self._dress(opened, entry, lacking)
            finally:
                os.close(opened)
            self._clear(entry.name, old, directory)
            replace(temporary, entry.name, directory)
        except BaseException:
            _forget(temporary, directory)
            raise

    def _dress(self, opened: int, entry: Entry, lacking: Sequence[str]) -> None:
        self._own(opened)
        os.fchmod(opened, entry.mode)
        set_xattrs(opened, entry.xattrs)
        self._tally.changed += any(has_xattr(opened, key, entry.xattrs[key]) for key in lacking)
        os.utime(opened, ns=(entry.mtime, entry.mtime))

    def _clear(self, name: bytes, old: Optional[os.stat_result], directory: int) -> None:
        """Count what comes in place of another, and take a directory out of its way: a rename cannot."""
        if old is None:
            self._tally.created += 1
            return
        self._tally.changed += 1
        if stat.S_ISDIR(old.st_mode):
            for _removed in remove_tree(name, directory):
                pass

    # Links and nodes.

    def symlink(self, entry: Entry) -> None:
        directory = self.enter(entry.directory)
        old = look(entry.name, directory)
        if old is None or not self._like(entry, old) or os.readlink(entry.name, dir_fd=directory) != entry.link:
            self._put(entry.name, old, directory, lambda name: os.symlink(entry.link, name, dir_fd=directory))
        os.utime(entry.name, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def node(self, entry: Entry) -> None:
        """A device or a pipe, where this process may make it."""
        directory = self.enter(entry.directory)
        old = look(entry.name, directory)
        if old is None or not self._like(entry, old) or old.st_rdev != entry.device:

            def make(name: bytes) -> None:
                os.mknod(name, entry.kind | 0o600, entry.device, dir_fd=directory)
                chmod_unopened(name, directory, entry.mode, entry.kind)

            self._put(entry.name, old, directory, make)
        os.utime(entry.name, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def hard_link(self, entry: Entry) -> None:
        """One more name of what is complete."""
        source, _slash, first = entry.link.rpartition(b"/")
        directory = self.enter(entry.directory)
        sources = self._files.enter(source)
        target, old = os.stat(first, dir_fd=sources, follow_symlinks=False), look(entry.name, directory)
        if old is not None and (old.st_dev, old.st_ino) == (target.st_dev, target.st_ino):
            return
        if old is not None and self._no_change.get(entry.link) == (old.st_dev, old.st_ino):
            self._tally.changed -= 1

        def make(name: bytes) -> None:
            os.link(first, name, src_dir_fd=sources, dst_dir_fd=directory, follow_symlinks=False)

        self._put(entry.name, old, directory, make)

    def _put(self, name: bytes, old: Optional[os.stat_result], directory: int, make: Callable[[bytes], None]) -> None:
        """Make something aside that takes no time, and give it its name."""
        temporary = self._temporaries.name()
        try:
            make(temporary)
            self._clear(name, old, directory)
            replace(temporary, name, directory)
        except BaseException:
            _forget(temporary, directory)
            raise


def _holds(entry: Entry, old: os.stat_result, data: bytes, directory: int) -> bool:
    """Whether a file that is there has exactly this content."""
    if not stat.S_ISREG(old.st_mode) or old.st_size != len(data):
        return False
    try:
        with _opened(entry.name, directory) as opened:
            return continues_with(opened, data)
    except OSError:  # what cannot be read is replaced
        return False


@contextlib.contextmanager
def _opened(name: bytes, directory: int) -> Iterator[int]:
    opened = open_file(name, directory)
    try:
        yield opened
    finally:
        os.close(opened)


def _forget(temporary: bytes, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)
