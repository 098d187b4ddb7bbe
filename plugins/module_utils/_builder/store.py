# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The store: the directory that is shared with the docker CLI, under its lock (buildx §1).

Whatever is written here is what the CLI would have written. The lock is flock(2), as the CLI's; it is
held around reads and writes only, never while an engine is asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline, attempts
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import StoreError

from .instance import Instance, decode, encode, go_json

LOCK_SECONDS = 60.0
"""`docker buildx ls` holds the lock while it talks to engines, 20 s by default."""
_FILE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9.\-_]*\Z")


class Current(NamedTuple):
    """The selection of `docker buildx use` (buildx §1.6). key: endpoint key it was made under."""

    key: str = ""
    name: str = ""
    everywhere: bool = False


class Store:
    """The builders that one user has on this host."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    # Reading: each file is replaced by renaming, so that one file is always whole.

    def names(self) -> list[str]:
        """File names of all entries, sorted; what no builder's entry can be called is left out."""
        try:
            found = os.listdir(self._path("instances"))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise StoreError(f"the store {self.directory} cannot be read: {exc.strerror}") from exc
        return sorted(name for name in found if _FILE_NAME.match(name) and name == name.lower())

    def load(self, name: str) -> Optional[Instance]:
        """The entry of a builder, None when there is none. Raises StoreError when it is corrupt."""
        path = self._path("instances", name.lower())
        text = self._read(path)
        return None if text is None else decode(text, path)

    def last_activity(self, name: str) -> Optional[str]:
        """When the builder was last used, as RFC 3339 text; None when that is not known."""
        return (self._read(self._path("activity", name)) or "").strip() or None

    def current(self, key: str) -> Optional[str]:
        """Name of the selected builder for an endpoint key, None: the docker context's own (buildx §1.6).

        The CLI writes while it looks; this does not.
        """
        chosen = self.selection()
        if chosen.name and (chosen.everywhere or chosen.key == key):
            if self._is_there(chosen.name):
                return chosen.name
            if chosen.key == key:
                return None
        name = (self._read(self._path("defaults", _defaults_name(key))) or "").strip()
        return name if name and self._is_there(name) else None

    def selection(self) -> Current:
        """What stands in `current`."""
        try:
            found = json.loads(self._read(self._path("current")) or "{}")
            return Current(str(found.get("Key") or ""), str(found.get("Name") or ""), bool(found.get("Global")))
        except (ValueError, AttributeError, RecursionError) as exc:
            path = self._path("current")
            raise StoreError(f"the store's file {path} is corrupt: {exc}", hint="Remove it; it is made anew.") from exc

    def _is_there(self, name: str) -> bool:
        return bool(_FILE_NAME.match(name)) and os.path.exists(self._path("instances", name.lower()))

    # Writing: only within `locked`.

    @contextlib.contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the CLI's lock. Raises StoreError when another process keeps it for longer than `seconds`."""
        with self._flock(self._path(".lock"), seconds, "the store"):
            yield

    @contextlib.contextmanager
    def reconciling(self, builder: str, seconds: float) -> Iterator[None]:
        """Let one process at a time change a builder: pulls and boots take long, the CLI's lock must not."""
        directory = self._path(".reconcile")
        self._make(directory)
        with self._flock(os.path.join(directory, f"{builder}.lock"), seconds, f"the builder {builder}"):
            yield

    def save(self, instance: Instance) -> None:
        self._write(encode(instance), "instances", instance.name.lower())
        self.touch(instance.name)

    def remove(self, name: str) -> None:
        """Forget a builder: its entry, its activity and its records of builds, as `docker buildx rm` does."""
        for path in (
            self._path("instances", name.lower()),
            self._path("activity", name),
            self._path("activity", name.lower()),
        ):
            self._unlink(path)
        # Records keep the case of a name that the CLI stored; the CLI itself leaves those behind.
        for refs in (self._path("refs", name), self._path("refs", name.lower())):
            try:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(refs)
            except OSError as exc:
                raise StoreError(f"the store's directory {refs} cannot be removed: {exc.strerror}") from exc

    def touch(self, name: str) -> None:
        """Note that a builder was used now."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._write(now, "activity", name)

    def select(self, key: str, name: str) -> None:
        """Make a builder the current one for an endpoint key, as `docker buildx use` without options."""
        self._write(go_json({"Key": key, "Name": name, "Global": False}), "current")
        self._unlink(self._path("defaults", _defaults_name(key)))

    def record_build(self, builder: str, node: str, ref: str, context: str, dockerfile: str) -> None:
        """Leave the local state of a build, which `docker buildx history` shows (buildx §1.8)."""
        record = {"Target": "default", "LocalPath": context, "DockerfilePath": dockerfile}
        self._write(go_json(record), "refs", builder, node, ref, mode=0o644)

    def client_id(self) -> str:
        """The identity of this store's host and user as a build client, made once (`.buildNodeID`, buildx §1.2)."""
        path = self._path(".buildNodeID")
        found = self._read(path)
        if not found:
            found = secrets.token_hex(8)
            self._write(found, ".buildNodeID")
        return found

    def _path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def _read(self, path: str) -> Optional[str]:
        try:
            with open(path, encoding="utf-8") as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise StoreError(f"the store's file {path} cannot be read: {exc}") from exc

    def _unlink(self, path: str) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        except OSError as exc:
            raise StoreError(f"the store's file {path} cannot be removed: {exc.strerror}") from exc

    def _make(self, directory: str) -> None:
        """Each directory that is missing, for this user alone: `os.makedirs` would open those in between to all."""
        if os.path.isdir(directory):
            return
        self._make(os.path.dirname(directory))
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        except OSError as exc:
            raise StoreError(f"the store's directory {directory} cannot be made: {exc.strerror}") from exc

    def _write(self, text: str, *parts: str, mode: int = 0o600) -> None:
        """Replace a file in one step: a name that the CLI would take for a builder's must never be half written."""
        path = self._path(*parts)
        if os.path.islink(path):
            raise StoreError(f"the store's file {path} is a symbolic link; the CLI refuses to write through one")
        self._make(os.path.dirname(path))
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".tmp-{os.path.basename(path)}", dir=os.path.dirname(path))
            try:
                with open(descriptor, "w", encoding="utf-8") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.chmod(temporary, mode)
                os.rename(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as exc:
            raise StoreError(f"the store's file {path} cannot be written: {exc.strerror}") from exc

    @contextlib.contextmanager
    def _flock(self, path: str, seconds: float, what: str) -> Iterator[None]:
        self._make(os.path.dirname(path))
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreError(f"the lock {path} cannot be opened: {exc.strerror}") from exc
        try:
            if not _acquire(descriptor, seconds):
                raise StoreError(
                    f"{what} is locked by another process for more than {seconds:g} s ({path})",
                    hint="See which docker buildx or playbook holds it.",
                )
            yield
        finally:
            os.close(descriptor)


def _acquire(descriptor: int, seconds: float) -> bool:
    deadline = Deadline(seconds)
    for _attempt in attempts(deadline, first=0.01, longest=0.2):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _defaults_name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:20]
