# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The blobs of an OCI layout on disk: read, and written aside until their digest has proven them.

The daemon chooses digests and refs; neither becomes a path as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from typing import Optional

from .destination import make_directories, remove_tree, write_all
from .oci_layout import blob_path
from .service import CallStatus, Code

CACHE_LOCK_SECONDS = 5.0
"""How long a clean-up of the CLI may take that has begun before us; less than the daemon waits for an answer."""
_PREFIX = "buildx-"


class Blob:
    """A blob that is open for reading. size: bytes."""

    def __init__(self, file: int, info: os.stat_result) -> None:
        self.file = file
        self.size = info.st_size
        self.mtime = info.st_mtime_ns

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


class Ingest:
    """A blob that is being written. offset: bytes so far; total: bytes that are announced, 0 for not at all."""

    def __init__(self, path: str, ref: str) -> None:
        self.path = path
        self.ref = ref
        self.offset = self.total = 0
        self.expected = ""
        self.busy = self.gone = False
        self.started = self.updated = time.time_ns()
        self._hash = hashlib.sha256()
        self._file = -1

    def open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.lseek(self._file, self.offset, os.SEEK_SET)
        self.busy = True

    def write(self, offset: int, data: bytes) -> None:
        """Raises CallStatus when the bytes do not continue what is there; from 0 on, they begin anew."""
        if self.gone:
            raise CallStatus(Code.ABORTED, f"the write of {self.ref} was aborted")
        if offset and offset != self.offset:
            raise CallStatus(Code.OUT_OF_RANGE, f"write @{offset} must occur at current offset {self.offset}")
        if offset == 0 and self.offset:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            self._hash, self.offset = hashlib.sha256(), 0
        if self.total and self.offset + len(data) > self.total:
            raise CallStatus(Code.OUT_OF_RANGE, f"more of {self.ref} than the {self.total} bytes that it announced")
        if data:
            write_all(self._file, data)
            self._hash.update(data)
            self.offset += len(data)
            self.updated = time.time_ns()

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return "sha256:" + self._hash.hexdigest()

    def sync(self) -> None:
        """Wait until the disk has it; may be called in another thread."""
        os.fsync(self._file)

    def release(self) -> None:
        """Nobody writes it for now; what is there may be continued."""
        self.busy = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        self.gone = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class Blobs:
    """The blobs of one layout.

    writable: whether the daemon may add to it. locked: it is a cache, held against the clean-up of others from the
    first write to `close`. written: how many blobs, and bytes, became new.
    """

    def __init__(self, directory: str, *, writable: bool = False, locked: bool = False) -> None:
        self.directory = directory
        self.writable = writable
        self.ingests: dict[str, Ingest] = {}
        self.written = self.bytes_written = 0
        self._locks = locked
        self._lock = -1
        self._aside = ""  # directory of our own for what is being written
        self._aside_lock = -1

    def open(self, digest: str) -> Blob:
        """Raises CallStatus when there is no such blob."""
        path = blob_path(digest)
        if path is None:
            raise CallStatus(Code.INVALID_ARGUMENT, f"{digest!r} failed validation")
        try:
            file = os.open(os.path.join(self.directory, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise CallStatus(Code.NOT_FOUND, f"content {digest}: not found") from None
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            os.close(file)
            raise CallStatus(Code.NOT_FOUND, f"content {digest}: not found")
        return Blob(file, info)

    def has(self, digest: str) -> bool:
        try:
            self.open(digest).close()
        except CallStatus as status:
            if status.code != Code.NOT_FOUND:
                raise
            return False
        return True

    def ingest(self, ref: str) -> Ingest:
        """Begin or continue to write under a ref, for one writer at a time. Raises CallStatus."""
        if not self.writable:
            raise CallStatus(Code.PERMISSION_DENIED, f"{self.directory} is for reading only")
        self._prepare()
        found = self.ingests.get(ref)
        if found is None:
            name = hashlib.sha256(ref.encode("utf-8", "surrogatepass")).hexdigest()
            found = self.ingests[ref] = Ingest(os.path.join(self._aside, name), ref)
        elif found.busy:
            raise CallStatus(Code.UNAVAILABLE, f"ref {ref} locked: it is being written")
        found.open()
        return found

    def commit(self, ingest: Ingest, digest: str) -> None:
        """Give a blob that was written, and is on disk, the name of its digest."""
        path = os.path.join(self.directory, blob_path(digest) or "")
        make_directories(os.path.dirname(path), 0o755)
        os.chmod(ingest.path, 0o444)
        os.rename(ingest.path, path)
        self.written += 1
        self.bytes_written += ingest.offset
        self.forget(ingest)

    def forget(self, ingest: Ingest) -> None:
        ingest.release()
        ingest.discard()
        self.ingests.pop(ingest.ref, None)

    def close(self) -> None:
        """Remove what was not committed, give the cache free. After the index was written, or the build has failed."""
        for ingest in list(self.ingests.values()):
            self.forget(ingest)
        if self._aside:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self._aside)
            self._aside = ""
        for lock in (self._lock, self._aside_lock):
            if lock >= 0:
                os.close(lock)
        self._lock = self._aside_lock = -1

    def _prepare(self) -> None:
        if self._aside:
            return
        ingest = os.path.join(self.directory, "ingest")
        make_directories(ingest, 0o755)
        if self._locks and self._lock < 0:
            self._lock = _shared_lock(os.path.join(self.directory, "cache.lock"))
        _sweep(ingest)
        word = os.urandom(8).hex()
        fresh, aside = os.path.join(ingest, word), os.path.join(ingest, _PREFIX + word)
        os.mkdir(fresh, 0o700)
        self._aside_lock = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._aside_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(fresh, aside)  # with that name it is swept as soon as nobody holds it
        self._aside = aside


def _shared_lock(path: str) -> int:
    opened: Optional[int] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + CACHE_LOCK_SECONDS
    while opened is not None:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(opened)
                break
            time.sleep(0.05)
        else:
            return opened
    raise CallStatus(Code.UNAVAILABLE, f"the cache is being cleaned up by another process, which holds {path}")


def _sweep(ingest: str) -> None:
    """Remove what a process of ours left that was killed: its directory is there, and nobody holds it."""
    for name in os.listdir(ingest):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):  # another sweeps as well
                parent = os.open(ingest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    for _removed in remove_tree(os.fsencode(name), parent):
                        pass
                finally:
                    os.close(opened)
                    os.close(parent)
