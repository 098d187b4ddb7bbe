# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Results that the daemon sends as a tree of files: the local exporter, the receiver's side (wire §3.9).

The listing comes in, requests go out, contents come in, and when everything has its place FIN goes out and
comes back. Directories and links are made as they are listed, files when they are complete; hard links, the
removal of what is no part of the result, and the times of directories come last.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .destination import Temporaries, make_directories, remove_tree, unwritable
from .landing import IncomingFile, Landing, Tally
from .listing import Entry, Level, Order, decode_entry, joined, refused, shown
from .messages import fsutil
from .service import Call, CallStatus, Code, Metadata
from .walk import varint

MULTI_PLATFORM = "buildkit-exporter-multi-platform"
OUTSTANDING = 256
"""Files that are asked for at once: enough that the daemon never waits, few enough if it sends a bit of each."""
LISTING = 256 << 20
"""Bytes of entries that may wait for their content; millions of files, and no listing without an end."""
SLICE = 200
"""Entries that are completed before others get a turn."""
_STAT, _REQ, _DATA, _FIN, _ERR = range(5)  # fsutil.types.Packet.PacketType
_FIN_PACKET = b"\x08\x03"


class TreeReceiver(Tally):
    """A CallFactory for a destination directory; afterwards it knows what became different there.

    destination: absolute path, made when the result comes. delete: it becomes exactly the result.
    protected: directories of which none may be the destination or in it when delete is set.
    Several platforms may come in one call each, at the same time, into one destination.
    """

    def __init__(self, destination: str, *, delete: bool = False, protected: Sequence[str] = ()) -> None:
        """Raises ConfigError when the destination cannot be one."""
        super().__init__()
        self.destination = destination
        self.delete = delete
        if os.path.lexists(destination) and not os.path.isdir(destination):
            raise ConfigError(f"destination directory {destination} is a file")
        if delete:
            _refuse_deletion(destination, protected)

    def __call__(self, metadata: Metadata) -> Call:
        return ReceivedTree(self, metadata)


def _refuse_deletion(destination: str, protected: Sequence[str]) -> None:
    real = os.path.realpath(destination)
    for path in ("/", *protected):
        inner = os.path.realpath(path)
        if inner == real or inner.startswith(real.rstrip("/") + "/"):
            raise ConfigError(
                f"a local output with mode=delete would remove everything else in {destination}, and so in {path}",
                hint="Name a directory that holds nothing but the result.",
            )


def decode_packet(message: bytes) -> tuple[int, int, Optional[bytes]]:
    """(type, ID, encoded stat or data) of a Packet of a sender; None is the end of the listing.

    Raises CallStatus when it is none.
    """
    if message[:1] == b"\x12" and len(message) > 1 and len(message) == message[1] + 2 < 0x82:
        return _STAT, 0, message[2:]  # as nearly all entries come
    try:
        packet = fsutil.Packet.FromString(message)
    except require("google.protobuf.message").DecodeError:
        raise refused("a malformed packet") from None
    if packet.type != _STAT:
        return packet.type, packet.ID, packet.data
    return _STAT, 0, packet.stat.SerializeToString() if packet.HasField("stat") else None


class ReceivedTree(Call):
    """One transfer.

    What goes wrong is told in a packet: the sender, who is busy sending, would only learn of a status that the stream
    is over, and say "EOF". Then it is for him to end; whatever else he sends is let go by.
    """

    def __init__(self, receiver: TreeReceiver, metadata: Metadata) -> None:
        self._receiver = receiver
        self._root = -1
        self._temporaries = Temporaries()
        self._order = Order()
        self._at = b""  # what is worked on
        self._count = 0
        self._listed = self._complete = False
        self._waiting: deque[tuple[int, bytes]] = deque()  # files that were not asked for yet
        self._waiting_bytes = 0
        self._asked: dict[int, IncomingFile] = {}
        self._linkable: set[bytes] = set()
        self._links: list[bytes] = []
        self._directories: list[tuple[bytes, int]] = []
        self._surplus: list[bytes] = []
        self._ending: Optional[Iterator[int]] = None
        self._failure: Optional[CallStatus] = None
        self._last_words: list[bytes] = []
        try:
            self._open(metadata)
        except OSError as exc:
            self._broken(exc)
        except CallStatus as status:
            self._fail(status)

    def _open(self, metadata: Metadata) -> None:
        if self._receiver.delete and "1" not in metadata.get(MULTI_PLATFORM, ()):
            raise CallStatus(
                Code.FAILED_PRECONDITION,
                "mode=delete of a local output needs a daemon that sends all platforms at once: v0.31 or newer",
            )
        make_directories(self._receiver.destination, 0o700)
        self._root = os.open(self._receiver.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._landing = Landing(self._root, self._receiver, self._temporaries)

    def receive(self, message: bytes) -> None:
        if self._failure is not None:
            return
        try:
            self._packet(message)
        except OSError as exc:
            self._broken(exc)
        except CallStatus as status:
            self._fail(status)

    def _packet(self, message: bytes) -> None:
        kind, number, payload = decode_packet(message)
        if kind == _DATA:
            self._take(number, payload or b"")
        elif kind == _STAT and not self._listed:
            self._list(payload)
        elif kind == _FIN and self._complete:
            self.finished = True
        elif kind == _ERR:
            raise CallStatus(Code.UNKNOWN, "error from sender: " + shown(payload or b""))
        else:
            raise refused(f"a packet of type {kind} out of turn")

    def half_close(self) -> None:
        if not self.finished:
            raise self._failure or CallStatus(Code.ABORTED, "the daemon ended the transfer before it was complete")

    def produce(self, budget: int) -> list[bytes]:
        out: list[bytes] = []
        try:
            if self._failure is None:
                self._say(out, budget)
        except OSError as exc:
            self._broken(exc)
        except CallStatus as status:
            self._fail(status)
        last, self._last_words = self._last_words, []
        return out + last

    def cancel(self) -> None:
        for incoming in self._asked.values():
            if incoming.aside is not None:
                incoming.aside.discard()
        self._asked.clear()
        self._waiting.clear()
        self._ending = None  # which closes what it has open
        if self._root >= 0:
            self._landing.close()
            os.close(self._root)
            self._root = -1

    def _broken(self, exc: OSError) -> None:
        path = os.path.join(self._receiver.destination, shown(self._at)) if self._at else self._receiver.destination
        self._fail(unwritable(path, exc))

    def _fail(self, status: CallStatus) -> None:
        self._failure = status
        self._last_words = [
            fsutil.Packet(type=_ERR, data=status.message.encode("utf-8", "replace")).SerializeToString()
        ]
        self.cancel()
        self.wake()

    def _say(self, out: list[bytes], budget: int) -> None:
        while self._waiting and len(self._asked) < OUTSTANDING and len(out) << 4 < budget:
            number, encoded = self._waiting.popleft()
            self._waiting_bytes -= len(encoded)
            self._asked[number] = IncomingFile(decode_entry(encoded))
            out.append(b"\x08\x01\x18" + varint(number))
        if self._listed and not self._asked and not self._waiting and not self._complete:
            self._complete = self._end_slice()
            out += [_FIN_PACKET] if self._complete else []
            self.wake()

    def _list(self, encoded: Optional[bytes]) -> None:
        if encoded is None:
            self._listed = True
            self._leave(self._order.end())
            return
        entry = decode_entry(encoded)
        self._leave(self._order.admit(entry))
        self._at = path = entry.path
        if entry.link and entry.kind != stat.S_IFLNK:
            if entry.link not in self._linkable:
                raise refused(f"{entry.shown} as a link to {shown(entry.link)}, which it did not send before")
            self._links.append(encoded)
        elif entry.kind == stat.S_IFREG:
            self._linkable.add(path)
            self._waiting.append((self._count, encoded))
            self._waiting_bytes += len(encoded)
            if self._waiting_bytes > LISTING:
                raise refused(f"more than {LISTING >> 20} MiB of names before their contents")
        elif entry.kind == stat.S_IFDIR:
            self._directories.append((encoded, self._landing.directory(entry)))
        elif entry.kind == stat.S_IFLNK:
            self._landing.symlink(entry)
        else:
            self._linkable.add(path)
            self._landing.node(entry)
        self._count += 1

    def _leave(self, levels: Sequence[Level]) -> None:
        """Directories whose listing is over: what else is in them, for later."""
        for path, names in levels if self._receiver.delete else ():
            if not self._landing.is_new(path):
                known = set(names)
                for item in os.listdir(self._landing.enter(path)):
                    name = os.fsencode(item)
                    if name not in known and not self._temporaries.made(name):
                        self._surplus.append(joined(path, name))

    def _take(self, number: int, data: bytes) -> None:
        incoming = self._asked.get(number)
        if incoming is None:
            raise refused(f"content of the entry {number}, which was not asked for")
        self._at = incoming.entry.path
        if data:
            incoming.write(data, self._landing.aside)
        else:
            self._landing.file(incoming)
            del self._asked[number]

    def _end_slice(self) -> bool:
        """Some of what comes last; whether that was all."""
        if self._ending is None:
            self._ending = self._end()
        return not all(next(self._ending, 0) for _step in range(SLICE))

    def _end(self) -> Iterator[int]:
        """What has to wait until all contents are there; 1 for each step."""
        for encoded in self._links:
            self._landing.hard_link(self._entry(encoded))
            yield 1
        for path in self._surplus:
            self._at = path
            directory, _slash, name = path.rpartition(b"/")
            for removed in remove_tree(name, self._landing.enter(directory)):
                self._receiver.deleted += removed
                yield removed
        for encoded, mode in reversed(self._directories):
            self._landing.complete_directory(self._entry(encoded), mode)
            yield 1

    def _entry(self, encoded: bytes) -> Entry:
        entry = decode_entry(encoded)
        self._at = entry.path
        return entry
