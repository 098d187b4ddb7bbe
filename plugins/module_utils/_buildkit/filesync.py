# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""FileSync: the daemon's view of our directories (wire §3), the sender's side of DiffCopy.

The listing and the requested files share the budget of each turn half and half, so that files flow while
the listing still runs. Packets are written by hand, one bytes object each (speed.md §4).

A file that cannot be read ends the call with a status that names it, which fails the build; Go clients send
an empty file there, and also for some files that they listed: they match a path anew when its content is asked
for, by a rule that does not always agree with the walk's. A file that changes meanwhile is sent as it is read, to
its end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Optional
from urllib.parse import unquote_to_bytes

from .followpaths import include_patterns
from .patterns import PatternError
from .service import Call, CallFactory, CallStatus, Code, Metadata
from .walk import Entry, Selection, Walk, varint

_SERVICE = "/moby.filesync.v1.FileSync/"
_REQ, _FIN, _ERR = 1, 3, 4  # fsutil.types.Packet.PacketType
_FIN_PACKET = b"\x08\x03"
_OVERHEAD = 12  # bytes, about, of framing and packet around a payload; counts, as many are small
_READ_MIN, _TURN_MAX = 4 << 10, 1 << 20  # bytes; a message may have 16 MiB (wire §2.10)
# O_NONBLOCK: a FIFO that took the file's place must not stop everything.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


class FileSync:
    """Serves directories of this host by the names that a solve gives them ("context", "dockerfile", …).

    directories: dir-name → absolute path. A directory may be asked for any number of times, also at once.
    files_sent, bytes_sent: files whose content the daemon asked for and got, and the size of that content.
    """

    def __init__(self, directories: Mapping[str, str]) -> None:
        self._directories = dict(directories)
        self.files_sent = 0
        self.bytes_sent = 0

    def methods(self) -> Mapping[str, CallFactory]:
        return {_SERVICE + "DiffCopy": self._diff_copy, _SERVICE + "TarStream": _tar_stream}

    def _diff_copy(self, metadata: Metadata) -> Call:
        names = metadata_values(metadata, "dir-name") or [b""]
        name = names[0].decode("utf-8", "surrogateescape")
        if name not in self._directories:  # the daemon turns NOT_FOUND into "not enabled from the client"
            raise CallStatus(Code.NOT_FOUND, f"no directory {name!r} is offered to this build")
        return DiffCopy(self, os.fsencode(self._directories[name]), metadata)


def _tar_stream(metadata: Metadata) -> Call:
    del metadata
    raise CallStatus(Code.UNIMPLEMENTED, "TarStream is not served, DiffCopy is")


def metadata_values(metadata: Metadata, key: str) -> list[bytes]:
    """Values of a key as bytes, unquoted when the daemon says that it quoted them (wire §2.9)."""
    values = [value.encode("utf-8", "surrogateescape") for value in metadata.get(key, ())]
    if metadata.get(key + "-encoded", ())[:1] == ("1",):
        return [unquote_to_bytes(value.replace(b"+", b" ")) for value in values]
    return values


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def decode_packet(message: bytes) -> tuple[int, int, bytes]:
    """(type, ID, data) of a Packet of the daemon. Raises CallStatus when it is none."""
    values, data, at = {1: 0, 3: 0}, b"", 0
    try:
        if message.startswith(b"\x08\x01\x18"):  # a REQ as it is always written; there is one for each file
            number, at = _varint_at(message, 3)
            if at == len(message):
                return _REQ, number, b""
            at = 0
        while at < len(message):
            tag, at = _varint_at(message, at)
            if tag & 7 == 0:
                values[tag >> 3], at = _varint_at(message, at)
            elif tag & 7 == 2:
                size, at = _varint_at(message, at)
                data, at = message[at : at + size] if tag >> 3 == 4 else data, at + size
            else:
                at = len(message) + 1
    except IndexError:
        at = len(message) + 1
    if at > len(message):
        raise CallStatus(Code.INVALID_ARGUMENT, "the daemon sent a malformed packet")
    return values[1], values[3], data


class _Tree:
    """Opens files below a directory, never through a link: neither the file nor a directory on the way may be one.

    The directories on the way stay open, because requests come in the order of the listing.
    """

    def __init__(self, root: bytes) -> None:
        self._fds = [os.open(root, _OPEN_DIRECTORY)]
        self._names: list[bytes] = []
        self._at = b""

    def open(self, path: bytes) -> int:
        directory, _slash, name = path.rpartition(b"/")
        if directory != self._at:
            self._enter(directory)
        return os.open(name, _OPEN_FILE, dir_fd=self._fds[-1])

    def _enter(self, directory: bytes) -> None:
        names = directory.split(b"/") if directory else []
        common = 0
        while self._names[common : common + 1] == names[common : common + 1] != []:
            common += 1
        self._leave(common)
        for name in names[common:]:
            self._fds.append(os.open(name, _OPEN_DIRECTORY, dir_fd=self._fds[-1]))
            self._names.append(name)
        self._at = directory

    def _leave(self, depth: int) -> None:
        del self._names[max(depth, 0) :]
        while len(self._fds) > depth + 1:
            os.close(self._fds.pop())

    def close(self) -> None:
        self._leave(-1)


class DiffCopy(Call):
    """One transfer of a directory: listing out, requests in, contents out, FIN in, FIN out (wire §3.2)."""

    def __init__(self, service: FileSync, root: bytes, metadata: Metadata) -> None:
        self._service = service
        self._root = root
        self._metadata = metadata
        self._tree: Optional[_Tree] = None
        self._listing: Optional[Iterator[Optional[Entry]]] = None
        self._listed = self._over = False
        self._contents: list[Optional[bytes]] = []  # by ID, as in Entry; None again once it was asked for
        self._wanted: deque[tuple[int, bytes]] = deque()
        self._path = b""  # of the file that is being sent
        self._head = b""  # its packets up to the data; b"" when there is none
        self._fd = -1
        self._rest = 0  # bytes that are still expected of it

    def receive(self, message: bytes) -> None:
        kind, number, data = decode_packet(message)
        if kind == _REQ:
            content = self._contents[number] if number < len(self._contents) else None
            if content is None:
                raise self._failed(Code.INVALID_ARGUMENT, f"the daemon asked for entry {number} out of turn")
            self._contents[number] = None
            self._wanted.append((number, content))
        elif kind == _FIN:
            self._over = True
        elif kind == _ERR:
            raise self._failed(Code.UNKNOWN, "error from receiver: " + data.decode("utf-8", "replace"))
        else:
            raise self._failed(Code.INVALID_ARGUMENT, f"the daemon sent a packet of type {kind} out of turn")

    def half_close(self) -> None:
        if not self._over:
            raise self._failed(Code.ABORTED, "the daemon ended the transfer before it was complete")

    def produce(self, budget: int) -> list[bytes]:
        if self._over:
            fin = [] if self.finished else [_FIN_PACKET]
            self.finished = True
            self.cancel()
            return fin
        out: list[bytes] = []
        budget = min(budget, _TURN_MAX)
        try:
            if self._listing is None:
                self._listing = self._start()
            used = self._send_files(out, budget if self._listed else budget // 2)
            if not self._listed:
                used += self._send_stats(out, budget - used)
                self._send_files(out, budget - used)
        except OSError as error:
            raise self._unreadable(error) from None
        except (PatternError, ValueError) as error:  # ValueError: a NUL in what became a path
            raise self._failed(Code.INVALID_ARGUMENT, str(error)) from None
        return out

    def cancel(self) -> None:
        self._listing, self._listed = iter(()), True
        self._contents.clear()
        self._wanted.clear()
        self._close_file()
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def _start(self) -> Iterator[Optional[Entry]]:
        include, exclude, follow = (
            metadata_values(self._metadata, key) for key in ("include-patterns", "exclude-patterns", "followpaths")
        )
        self._root = os.path.realpath(self._root)  # it may be a link; below it none is followed
        self._tree = _Tree(self._root)
        include = include_patterns(self._root, include, follow)
        return iter(Walk(self._root, Selection(include, exclude) if include or exclude else None))

    def _send_stats(self, out: list[bytes], budget: int) -> int:
        """Packets of the listing; the size of them."""
        used = 0
        for entry in self._listing or ():
            if entry is None:  # a long way through what is filtered out: let others have their turn
                self.wake()
                return used
            encoded, content = entry
            self._contents.append(content)
            packet = b"\x12" + varint(len(encoded)) + encoded
            out.append(packet)
            used += len(packet) + _OVERHEAD
            if used >= budget:
                return used
        out.append(b"")  # a STAT without stat ends the listing; as a message it is empty
        self._listed = True
        return used + _OVERHEAD

    def _send_files(self, out: list[bytes], budget: int) -> int:
        """Packets of requested files, one file after the other; the size of them."""
        used = 0
        while used < budget and (self._head or self._wanted):
            if not self._head:
                self._open_next()
            # One byte more than fstat promises. The end is where both agree, or else an empty read: a short one may
            # be an accident.
            size = min(self._rest + 1 if self._rest > 0 else _READ_MIN, max(budget - used, _READ_MIN))
            data = os.read(self._fd, size) if self._fd >= 0 else b""
            if data:
                out.append(b'%b"%b%b' % (self._head, varint(len(data)), data))
                used += len(data) + _OVERHEAD
                self._rest -= len(data)
                self._service.bytes_sent += len(data)
            if not data or (self._rest == 0 and len(data) < size):
                out.append(self._head)
                used += _OVERHEAD
                self._service.files_sent += 1
                self._close_file()
        return used

    def _open_next(self) -> None:
        number, self._path = self._wanted.popleft()
        if self._path and self._tree is not None:
            self._fd = self._tree.open(self._path)
            info = os.fstat(self._fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "no regular file any more")
            self._rest = info.st_size
        self._head = b"\x08\x02\x18" + varint(number) if number else b"\x08\x02"

    def _close_file(self) -> None:
        self._head = b""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unreadable(self, error: OSError) -> CallStatus:
        """The status for what this host cannot read. Never NOT_FOUND: the daemon hides the text of that one."""
        named = error.filename  # absolute from the walk, only the name from _Tree, absent from read()
        path = os.path.join(self._root, self._path)
        if isinstance(named, (str, bytes)) and os.path.isabs(named):
            path = os.fsencode(named)
        code = Code.PERMISSION_DENIED if isinstance(error, PermissionError) else Code.FAILED_PRECONDITION
        return self._failed(code, f"cannot read {path.decode('utf-8', 'backslashreplace')}: {error.strerror}")

    def _failed(self, code: Code, message: str) -> CallStatus:
        self.cancel()
        return CallStatus(code, message)
