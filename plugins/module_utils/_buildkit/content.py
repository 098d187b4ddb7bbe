# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The Content service: the daemon reads and writes blobs of OCI layouts on this host (wire §3.11).

Local caches, exports of layouts, and named contexts that are layouts; which one, the metadata of a call says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require

from .blobs import Blob, Blobs, Ingest
from .destination import unwritable
from .messages import content
from .service import Call, CallFactory, CallStatus, Code, Metadata, UnaryCall

_SERVICE = "/containerd.services.content.v1.Content/"
STORE_ID = "buildkit-attachable-store-id"
_LARGE = 1 << 20
"""Bytes of a blob whose way to the disk is waited for in a thread."""
_READ_MAX = 1 << 20
_NANO = 10**9


class Content:
    """The service; stores: id (`local:…`, `export`, `oci:…`) → the blobs that it means."""

    def __init__(self, stores: Mapping[str, Blobs]) -> None:
        self._stores = dict(stores)

    def methods(self) -> Mapping[str, CallFactory]:
        unary = {
            "Info": _info,
            "Update": _update,
            "Status": _status,
            "ListStatuses": _list_statuses,
            "Abort": _abort,
            "Delete": _refused,
        }
        methods: dict[str, CallFactory] = {_SERVICE + name: self._unary(answer) for name, answer in unary.items()}
        methods[_SERVICE + "List"] = self._unary(_refused)
        methods[_SERVICE + "Read"] = lambda metadata: Read(self._store(metadata))
        methods[_SERVICE + "Write"] = lambda metadata: Write(self._store(metadata))
        return methods

    def _unary(self, answer: Callable[[Blobs, bytes], Any]) -> CallFactory:
        def call(metadata: Metadata) -> Call:
            store = self._store(metadata)
            return UnaryCall(lambda message: bytes(answer(store, message).SerializeToString()))

        return call

    def _store(self, metadata: Metadata) -> Blobs:
        name = (metadata.get(STORE_ID) or ("",))[0]
        store = self._stores.get(name)
        if store is None:
            raise CallStatus(Code.NOT_FOUND, f"unknown store {name}")
        return store


def _parsed(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except require("google.protobuf.message").DecodeError:
        raise CallStatus(Code.INVALID_ARGUMENT, "the daemon sent a malformed message about content") from None


def _set_time(field: Any, ns: int) -> None:
    field.seconds, field.nanos = divmod(ns, _NANO)


def _info_of(store: Blobs, digest: str) -> Any:
    blob = store.open(digest)
    blob.close()
    info = content.Info(digest=digest, size=blob.size)
    _set_time(info.created_at, blob.mtime)
    _set_time(info.updated_at, blob.mtime)
    return info


def _info(store: Blobs, message: bytes) -> Any:
    return content.InfoResponse(info=_info_of(store, _parsed(content.InfoRequest, message).digest))


def _update(store: Blobs, message: bytes) -> Any:
    """Labels have no place in a layout; whoever sets them is told that he did (wire §3.11)."""
    wanted = _parsed(content.UpdateRequest, message).info
    info = _info_of(store, wanted.digest)
    info.labels.update(wanted.labels)
    return content.UpdateResponse(info=info)


def _status_of(ingest: Ingest) -> Any:
    status = content.Status(ref=ingest.ref, offset=ingest.offset, total=ingest.total, expected=ingest.expected)
    _set_time(status.started_at, ingest.started)
    _set_time(status.updated_at, ingest.updated)
    return status


def _status(store: Blobs, message: bytes) -> Any:
    ref = _parsed(content.StatusRequest, message).ref
    if ref not in store.ingests:
        raise CallStatus(Code.NOT_FOUND, f"ingest {ref}: not found")
    return content.StatusResponse(status=_status_of(store.ingests[ref]))


def _list_statuses(store: Blobs, message: bytes) -> Any:
    _parsed(content.ListStatusesRequest, message)
    return content.ListStatusesResponse(statuses=[_status_of(ingest) for ingest in store.ingests.values()])


def _abort(store: Blobs, message: bytes) -> Any:
    ingest = store.ingests.get(_parsed(content.AbortRequest, message).ref)
    if ingest is not None:
        store.forget(ingest)
    return content.AbortRequest()  # without fields it is the Empty that is asked for


def _refused(store: Blobs, message: bytes) -> Any:
    del store, message
    raise CallStatus(Code.UNIMPLEMENTED, "blobs are neither listed nor deleted through a session")


class Read(Call):
    """One blob or a part of it, in as many messages as it takes."""

    def __init__(self, store: Blobs) -> None:
        self._store = store
        self._blob: Optional[Blob] = None
        self._digest = ""
        self._at = self._end = 0

    def receive(self, message: bytes) -> None:
        if self._blob is not None:
            raise CallStatus(Code.INVALID_ARGUMENT, "more than one request in a read")
        request = _parsed(content.ReadContentRequest, message)
        self._digest, self._at = request.digest, max(request.offset, 0)
        self._blob = self._store.open(request.digest)
        if self._at > self._blob.size:
            raise CallStatus(Code.OUT_OF_RANGE, f"read past object length {self._blob.size} bytes")
        left = self._blob.size - self._at
        self._end = self._at + (min(request.size, left) if request.size > 0 else left)

    def half_close(self) -> None:
        if self._blob is None:
            raise CallStatus(Code.INVALID_ARGUMENT, "no request in a read")

    def produce(self, budget: int) -> list[bytes]:
        if self._blob is None or self.finished:
            return []
        if self._at == self._end:
            self.finished = True
            return []
        data = os.pread(self._blob.file, min(self._end - self._at, max(budget, 4096), _READ_MAX), self._at)
        if not data:
            raise CallStatus(Code.INTERNAL, f"content {self._digest} became shorter while it was read")
        message = content.ReadContentResponse(offset=self._at, data=data).SerializeToString()
        self._at += len(data)
        return [message]

    def cancel(self) -> None:
        if self._blob is not None:
            self._blob.close()


class Write(Call):
    """One blob on its way in: STAT, WRITE, COMMIT, each with an answer (wire §3.11)."""

    def __init__(self, store: Blobs) -> None:
        self._store = store
        self._ingest: Optional[Ingest] = None
        self._answers: list[bytes] = []
        self._commit: Optional[_Commit] = None

    def receive(self, message: bytes) -> None:
        request = _parsed(content.WriteContentRequest, message)
        if self._commit is not None or self.finished:
            raise CallStatus(Code.INVALID_ARGUMENT, "a write goes on after its commit")
        try:
            ingest = self._ingest or self._begin(request.ref)
            self._note(ingest, request)
            if request.action == content.WriteAction.STAT:
                self._answer(ingest, request.action)
                return
            if request.action not in (content.WriteAction.WRITE, content.WriteAction.COMMIT):
                raise CallStatus(Code.INVALID_ARGUMENT, f"unknown action {request.action} of a write")
            ingest.write(request.offset, request.data)
            if request.action == content.WriteAction.WRITE:
                self._answer(ingest, request.action)
            else:
                _verify(ingest)
                self._commit = _Commit(ingest, self._woken)
        except OSError as exc:
            raise unwritable(self._store.directory, exc) from None

    def half_close(self) -> None:
        self.finished = self.finished or self._commit is None

    def produce(self, budget: int) -> list[bytes]:
        del budget
        if self._commit is not None and self._commit.over and self._ingest is not None:
            ingest, self._ingest = self._ingest, None
            try:
                self._commit.outcome()
                self._store.commit(ingest, ingest.digest)
            except OSError as exc:
                self._store.forget(ingest)
                raise unwritable(self._store.directory, exc) from None
            self._answer(ingest, content.WriteAction.COMMIT)
            self.finished = True
        answers, self._answers = self._answers, []
        return answers

    def cancel(self) -> None:
        if self._ingest is not None:
            if self._commit is not None:
                self._commit.wait()
            self._ingest.release()
            self._ingest = None

    def _woken(self) -> None:
        """Through the attribute, which the session sets after this object was made."""
        self.wake()

    def _begin(self, ref: str) -> Ingest:
        if not ref:
            raise CallStatus(Code.INVALID_ARGUMENT, "first message must have a reference")
        self._ingest = self._store.ingest(ref)
        return self._ingest

    def _note(self, ingest: Ingest, request: Any) -> None:
        """Take what is announced, and say when it is there already, which the daemon takes for done."""
        if request.total > 0:
            ingest.total = request.total
        if request.expected:
            ingest.expected = request.expected
            if self._store.has(request.expected):
                self._store.forget(ingest)
                self._ingest = None
                raise CallStatus(Code.ALREADY_EXISTS, f"blob with expected digest {request.expected} exists")

    def _answer(self, ingest: Ingest, action: int) -> None:
        answer = content.WriteContentResponse(
            action=action, offset=ingest.offset, total=ingest.total, digest=ingest.digest
        )
        _set_time(answer.started_at, ingest.started)
        _set_time(answer.updated_at, ingest.updated)
        self._answers.append(answer.SerializeToString())


def _verify(ingest: Ingest) -> None:
    if ingest.total and ingest.offset != ingest.total:
        raise CallStatus(Code.FAILED_PRECONDITION, f"{ingest.ref} has {ingest.offset} bytes in place of {ingest.total}")
    if ingest.expected not in ("", ingest.digest):
        raise CallStatus(
            Code.FAILED_PRECONDITION, f"{ingest.ref} has the digest {ingest.digest} in place of {ingest.expected}"
        )


class _Commit:
    """The way of a blob to the disk, in a thread when it is long. over: it has ended."""

    def __init__(self, ingest: Ingest, wake: Callable[[], None]) -> None:
        self._ingest = ingest
        self._wake = wake
        self._failure: Optional[OSError] = None
        self.over = False
        self._thread: Optional[threading.Thread] = None
        if ingest.offset < _LARGE:
            self._run()
        else:
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()

    def outcome(self) -> None:
        """Raises OSError when the disk has not got it."""
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._ingest.sync()
        except OSError as exc:
            self._failure = exc
        self.over = True
        self._wake()
