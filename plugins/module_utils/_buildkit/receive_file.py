# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Results that become one file: tar, and oci and docker as an archive (wire §3.10)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .destination import Temporaries, make_directories, unwritable
from .replacement import Replacement
from .service import Metadata


def archived_identity(path: str) -> Optional[object]:
    """What the archive of an OCI layout means (oci_layout.identity): its bytes say when it was made. None: is none."""
    import json
    import tarfile

    from .oci_layout import INDEX, JSON_MAX, identity

    def read(name: str) -> Mapping[str, Any]:
        file = archive.extractfile(name)
        found = json.loads(file.read(JSON_MAX)) if file else None
        if not isinstance(found, dict):
            raise ValueError(f"no JSON object in {name}")
        return found

    try:
        with tarfile.open(path, "r:") as archive:
            return identity(read(INDEX), read)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, tarfile.TarError):
        return None


class FileReceiver:
    """A receive.SinkFactory for one file; afterwards it knows whether the file is another than before.

    The file is complete or not there: what comes is written aside, for its owner alone, and gets its name and mode
    at the end. Equal content leaves the old file as it is. A new file has the mode that the umask gives, one that
    was there keeps its own. Directories on the way are made, as the CLI does it, when the result comes.

    changed: whether there was no such file, or one with other content. size: bytes received.
    """

    def __init__(self, path: str, meaning: Optional[Callable[[str], Optional[object]]] = None) -> None:
        """path: absolute; a link to a file means that file.

        meaning: path of a file → what it means apart from its bytes, None: nothing. A file that means the same as
        before is written, but is no change. Raises ConfigError when no file can be there.
        """
        self.path = path
        self.meaning = meaning
        self.changed = False
        self.size = 0
        self.real = os.path.realpath(path)
        if os.path.isdir(self.real) or path.endswith("/"):
            raise ConfigError(f"destination file {path} is a directory")
        if os.path.lexists(self.real) and not os.path.isfile(self.real):
            raise ConfigError(f"destination {path} is no regular file")

    def __call__(self, metadata: Metadata, wake: Callable[[], None]) -> ReceivedFile:
        del metadata
        return ReceivedFile(self, wake)


class ReceivedFile:
    """One result on its way, a receive.Sink. It writes in the session's thread: a message costs less than a turn."""

    def __init__(self, receiver: FileReceiver, wake: Callable[[], None]) -> None:
        self._receiver = receiver
        self._wake = wake
        self._over = False
        self._mode = 0o600
        self._aside: Optional[Replacement] = None
        try:
            self._open()
        except OSError as exc:
            raise unwritable(self._receiver.path, exc) from None

    def write(self, data: bytes) -> None:
        if self._aside is not None:
            try:
                self._aside.write(data)
            except OSError as exc:
                raise unwritable(self._receiver.path, exc) from None
            self._receiver.size += len(data)

    def held(self) -> int:
        return 0

    def end(self) -> None:
        if self._aside is not None:
            try:
                self._place(self._aside)
            except OSError as exc:
                raise unwritable(self._receiver.path, exc) from None
        self._over = True
        self._wake()

    def outcome(self) -> bool:
        return self._over

    def abort(self) -> None:
        if self._aside is not None:
            self._aside.discard()
            self._aside = None

    def _open(self) -> None:
        directory, name = os.path.split(os.fsencode(self._receiver.real))
        make_directories(os.fsdecode(directory), 0o755)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._aside = Replacement(name, opened, Temporaries().name(), mode=0o666)
            self._mode = os.fstat(self._aside.file).st_mode & 0o777  # what the umask left
            os.fchmod(self._aside.file, 0o600)
        finally:
            os.close(opened)

    def _place(self, aside: Replacement) -> None:
        aside.end()
        if aside.same:
            aside.discard()
            return
        if aside.old is not None:
            self._inherit(aside, aside.old)
        else:
            os.fchmod(aside.file, self._mode)
        meaning = self._meaning()
        aside.place()
        self._receiver.changed = meaning is None or meaning != self._meaning()

    def _meaning(self) -> Optional[object]:
        meaning = self._receiver.meaning
        return meaning(self._receiver.real) if meaning is not None else None

    @staticmethod
    def _inherit(aside: Replacement, old: os.stat_result) -> None:
        """A file that is written again keeps its mode, and its owner where that can be given."""
        with contextlib.suppress(PermissionError):
            os.fchown(aside.file, old.st_uid, old.st_gid)
        os.fchmod(aside.file, old.st_mode & 0o777)
