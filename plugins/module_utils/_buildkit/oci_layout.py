# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A directory with the layout of an OCI image: blobs by their digests, and an index that names some of them.

The CLI keeps local caches and unpacked images in the same form (wire §3.11), and both may use one directory at
once: blobs appear whole, the index is changed under the CLI's lock, and a cache that is written to is held
against the CLI's clean-up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional
from urllib.parse import quote

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, ConfigError

from .destination import Temporaries, make_directories

INDEX, LAYOUT = "index.json", "oci-layout"
IMAGE_NAME, REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LOCK_SECONDS = 10.0
JSON_MAX = 16 << 20
"""Bytes of an index or a manifest; the daemon has the same limit for what it reads."""
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_INDEXES = (".index.v1+json", ".list.v2+json")
_ATTESTATION = "vnd.docker.reference.type"
_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")  # Go's order


def identity(index: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]) -> frozenset[tuple[Any, ...]]:
    """What an index means, whenever it was made: the image of each platform under each name.

    Attestations are left out: they say when and how an image was built, and are others after each build.
    read: path of a manifest's blob → its JSON. Raises what it raises.
    """
    found: set[tuple[Any, ...]] = set()
    for entry in index.get("manifests") or ():
        digests, path = [entry.get("digest")], blob_path(str(entry.get("digest")))
        if path is not None and str(entry.get("mediaType")).endswith(_INDEXES):
            inner = read(path).get("manifests") or ()
            digests = [item.get("digest") for item in inner if _ATTESTATION not in (item.get("annotations") or {})]
        found.update((*_key(entry), digest) for digest in digests)
    return frozenset(found)


def store_name(directory: str) -> str:
    """A directory as the `dest` or `src` that is sent for a local cache: its store is called `local:` and this.

    The daemon puts the name in a header, which takes printable ASCII only.
    """
    return quote(directory, safe="/ !#$&'()*+,;=:@[]~", errors="surrogateescape")


def blob_path(digest: str) -> Optional[str]:
    """Where a blob lies below the layout, None for what is no digest."""
    match = _DIGEST.fullmatch(digest)
    return f"blobs/{match[1] or match[3]}/{match[2] or match[4]}" if match else None


class Layout:
    """The names of a layout. Blobs are read and written by content.Blobs."""

    def __init__(self, directory: str) -> None:
        """directory: absolute; nothing is made before something is written."""
        self.directory = directory

    def find(self, name: str) -> Optional[str]:
        """The digest that the index has under the name of an image or, else, under a tag; None: it has none.

        Raises ConfigError when there is an index that cannot be read.
        """
        entries = self._index().get("manifests", [])
        for annotation in (IMAGE_NAME, REF_NAME):
            for entry in entries:
                if (entry.get("annotations") or {}).get(annotation) == name:
                    return str(entry.get("digest"))
        return None

    def publish(self, descriptor: Mapping[str, Any], *, names: Sequence[str] = (), tag: str = "latest") -> bool:
        """Enter a manifest that was written, for an image under each of its names, else under the tag.

        Whether the index has another image than before under one of these, see `identity`. Raises ConfigError when the
        index is none, BuildxError when it is locked for too long or cannot be written.
        """
        wanted = [_named(descriptor, name, _tag_of(name)) for name in names] or [_named(descriptor, None, tag)]
        try:
            make_directories(self.directory, 0o755)
            with self._locked():
                index = self._index()
                before = self._identity(index, wanted)
                _enter(index, wanted)
                changed = self._identity(index, wanted) != before
                self._write(LAYOUT, {"imageLayoutVersion": "1.0.0"})
                self._write(INDEX, index)
        except OSError as exc:
            raise BuildxError(f"cannot write {os.path.join(self.directory, INDEX)}: {exc.strerror}") from exc
        return changed

    def remove_unreferenced(self) -> int:
        """Remove the blobs that no manifest of the index refers to, however far; how many there were.

        A cache that somebody writes to is left alone, as the CLI does it: the answer is then -1.
        """
        lock = os.open(os.path.join(self.directory, "cache.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return -1
            return self._remove_all_but(self._referenced())
        finally:
            os.close(lock)

    def _remove_all_but(self, kept: set[str]) -> int:
        removed = 0
        for algorithm in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(os.path.join(self.directory, "blobs", algorithm)):
                    path = blob_path(f"{algorithm}:{name}")
                    if path is not None and path not in kept:
                        os.unlink(os.path.join(self.directory, path))
                        removed += 1
        return removed

    def _referenced(self) -> set[str]:
        """Paths of all blobs that can be reached. Raises ConfigError when a manifest cannot be read."""
        found: set[str] = set()
        waiting = list(self._index().get("manifests", []))
        while waiting:
            descriptor = waiting.pop()
            path = blob_path(str(descriptor.get("digest")))
            if path is None or path in found:
                continue
            found.add(path)
            if str(descriptor.get("mediaType")).endswith((*_INDEXES, ".manifest.v1+json", ".manifest.v2+json")):
                with contextlib.suppress(FileNotFoundError):
                    manifest = self._read(path)
                    waiting += [*(manifest.get("manifests") or ()), *(manifest.get("layers") or ())]
                    waiting += [manifest[key] for key in ("config", "subject") if manifest.get(key)]
        return found

    def _identity(self, index: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> Optional[frozenset[Any]]:
        """Of those entries that have the names of `wanted`; None when a manifest is not there or is none."""
        keys = {_key(entry) for entry in wanted}
        entries = [entry for entry in index.get("manifests") or () if _key(entry) in keys]
        try:
            return identity({"manifests": entries}, self._read)
        except (OSError, ConfigError):
            return None

    def _index(self) -> dict[str, Any]:
        deadline = time.monotonic() + 1.0
        while True:
            try:
                return self._read(INDEX)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            except ConfigError:  # the CLI writes it in place, so that it may be half for a moment
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _read(self, name: str) -> dict[str, Any]:
        path = os.path.join(self.directory, name)
        with open(path, "rb") as file:
            text = file.read(JSON_MAX + 1)
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("manifests") or [], list):
            raise ConfigError(f"{path} is no index of an OCI layout", hint="Name another directory, or remove it.")
        return found

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        path, temporary = os.path.join(self.directory, name), os.fsdecode(Temporaries().name())
        temporary = os.path.join(self.directory, temporary)
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(opened, "w", encoding="utf-8") as file:
                json.dump(content, file, separators=(",", ":"), ensure_ascii=False)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the CLI's lock of the index, a file that is removed again with the lock."""
        path = os.path.join(self.directory, INDEX + ".lock")
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    break  # and not one that its last owner removed
            os.close(lock)
            if time.monotonic() > deadline:
                raise BuildxError(
                    f"another process holds {path}",
                    hint="If none runs any more, remove the file and run the task again.",
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(lock)


def _tag_of(name: str) -> str:
    """What the CLI takes for the tag of an image's name: what follows the last colon behind the last slash."""
    _repository, _slash, last = name.rpartition("/")
    return last.partition(":")[2] or name


def _named(descriptor: Mapping[str, Any], name: Optional[str], tag: str) -> dict[str, Any]:
    annotations = {**(descriptor.get("annotations") or {}), REF_NAME: tag, **({IMAGE_NAME: name} if name else {})}
    entry = {**descriptor, "annotations": dict(sorted(annotations.items()))}
    order = [*(key for key in _DESCRIPTOR if key in entry), *(key for key in entry if key not in _DESCRIPTOR)]
    return {key: entry[key] for key in order}


def _enter(index: dict[str, Any], wanted: Sequence[Mapping[str, Any]]) -> None:
    """Put entries into an index in place of those with the same name."""
    index.setdefault("schemaVersion", 2)
    index.setdefault("mediaType", INDEX_TYPE)
    for entry in wanted:
        index["manifests"] = [item for item in index.get("manifests") or () if _key(item) != _key(entry)] + [entry]


def _key(entry: Mapping[str, Any]) -> tuple[Any, Any]:
    annotations = entry.get("annotations") or {}
    return annotations.get(IMAGE_NAME), annotations.get(REF_NAME)
