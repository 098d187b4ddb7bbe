# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Content service: what BuildKit asks, what it must not get, and what stays on disk of it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import blobs as blobs_file
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.blobs import Blobs
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content import STORE_ID, Content
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import content
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Call, CallStatus, Code
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

EXAMPLES = int(os.environ.get("BUILDX_FUZZ_EXAMPLES", "60"))
STAT, WRITE, COMMIT = 0, 1, 2
SERVICE = "/containerd.services.content.v1.Content/"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Store:
    """A service with one store, and the daemon's side of its calls."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.blobs = Blobs(str(directory), **{"writable": True, **options})
        self._methods = Content({"local:x": self.blobs}).methods()

    def open(self, method: str) -> Call:
        return self._methods[SERVICE + method]({STORE_ID: ("local:x",)})

    def ask(self, method: str, answer: Any, **fields: Any) -> Any:
        call = self.open(method)
        request = getattr(content, {"Read": "ReadContentRequest"}.get(method, f"{method}Request"))
        call.receive(request(**fields).SerializeToString())
        call.half_close()
        [reply] = call.produce(1 << 16)
        assert call.finished
        call.cancel()
        return answer.FromString(reply)

    def read(self, wanted: str, offset: int = 0, size: int = 0) -> bytes:
        call = self.open("Read")
        call.receive(content.ReadContentRequest(digest=wanted, offset=offset, size=size).SerializeToString())
        call.half_close()
        found, at = b"", offset
        while not call.finished:
            for message in call.produce(1 << 16):
                part = content.ReadContentResponse.FromString(message)
                assert part.offset == at
                found, at = found + part.data, at + len(part.data)
        call.cancel()
        return found

    def add(self, data: bytes, ref: str = "r") -> str:
        call = self.open("Write")
        said(call, STAT, ref=ref, total=len(data), expected=digest(data))
        said(call, COMMIT, data=data, total=len(data), expected=digest(data))
        call.cancel()
        return digest(data)

    @property
    def files(self) -> set[str]:
        return {str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if path.is_file()}


def said(call: Call, action: int, **fields: Any) -> Any:
    """Send one message of a write; its answer."""
    woken = threading.Event()
    call.wake = woken.set
    call.receive(content.WriteContentRequest(action=action, **fields).SerializeToString())
    messages = call.produce(1 << 16)
    while not messages:
        assert woken.wait(30), "nothing is said, and nobody wakes"
        woken.clear()
        messages = call.produce(1 << 16)
    [message] = messages
    return content.WriteContentResponse.FromString(message)


def blob(store: Store, data: bytes) -> Path:
    return store.directory / "blobs" / "sha256" / digest(data).partition(":")[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "layout")


@pytest.mark.parametrize("size", [0, 1, 100_000, 3 << 20])
def test_a_blob_goes_in_and_comes_out(store: Store, size: int) -> None:
    data = os.urandom(size)
    call = store.open("Write")
    answer = said(call, STAT, ref="some/ref:1", total=size, expected=digest(data))
    assert (answer.action, answer.offset, answer.total) == (STAT, 0, size)
    for at in range(0, size, 1 << 20):
        answer = said(call, WRITE, offset=at, data=data[at : at + (1 << 20)])
        assert (answer.action, answer.offset) == (WRITE, min(at + (1 << 20), size))
    assert store.files == {f"ingest/{path}" for path in _ingests(store)}, "not there before it is proven"
    answer = said(call, COMMIT, offset=size, total=size, expected=digest(data), labels={"a": "b"})
    assert (answer.action, answer.offset, answer.digest) == (COMMIT, size, digest(data))
    assert call.finished
    call.cancel()
    assert blob(store, data).read_bytes() == data
    assert stat.S_IMODE(blob(store, data).stat().st_mode) == 0o444, "as the CLI leaves it"
    assert store.read(digest(data)) == data
    info = store.ask("Info", content.InfoResponse, digest=digest(data)).info
    assert (info.digest, info.size) == (digest(data), size)
    assert info.created_at.seconds == int(blob(store, data).stat().st_mtime)
    assert (store.blobs.written, store.blobs.bytes_written) == (1, size)
    store.blobs.close()
    assert os.listdir(store.directory / "ingest") == []


def _ingests(store: Store) -> list[Path]:
    base = store.directory / "ingest"
    return [path.relative_to(base) for path in base.rglob("*") if path.is_file()]


def test_parts_of_a_blob(store: Store) -> None:
    data = bytes(range(256)) * 1000
    name = store.add(data)
    for offset, size in ((0, 512), (1000, 512), (255_999, 0), (256_000, 0), (255_000, 1 << 40), (0, -1), (-5, 3)):
        start = max(offset, 0)
        wanted = data[start:] if size <= 0 else data[start : start + size]
        if offset >= 0:
            assert store.read(name, offset, size) == wanted
    with pytest.raises(CallStatus) as caught:
        store.read(name, 256_001)
    assert caught.value.code == Code.OUT_OF_RANGE


def test_what_is_there_is_not_written_again(store: Store) -> None:
    name = store.add(b"data")
    for fields in ({"ref": "other", "expected": name}, {"ref": "other", "expected": name, "total": 4}):
        with pytest.raises(CallStatus) as caught:
            said(store.open("Write"), STAT, **fields)
        assert caught.value.code == Code.ALREADY_EXISTS
    call = store.open("Write")
    said(call, STAT, ref="late")
    said(call, WRITE, data=b"data")
    with pytest.raises(CallStatus) as caught:
        said(call, COMMIT, offset=4, expected=name)
    assert caught.value.code == Code.ALREADY_EXISTS
    call.cancel()
    assert store.files == {f"blobs/sha256/{name.partition(':')[2]}"}
    assert store.blobs.written == 1


def test_a_write_that_was_cut_off_goes_on(store: Store) -> None:
    call = store.open("Write")
    said(call, STAT, ref="r", total=8)
    said(call, WRITE, data=b"half")
    call.cancel()
    status = store.ask("Status", content.StatusResponse, ref="r").status
    assert (status.ref, status.offset, status.total) == ("r", 4, 8)
    assert [item.ref for item in store.ask("ListStatuses", content.ListStatusesResponse).statuses] == ["r"]
    call = store.open("Write")
    assert said(call, STAT, ref="r", total=8).offset == 4
    said(call, WRITE, offset=4, data=b"full")
    assert said(call, COMMIT, offset=8, expected=digest(b"halffull")).digest == digest(b"halffull")
    call.cancel()
    with pytest.raises(CallStatus) as caught:
        store.ask("Status", content.StatusResponse, ref="r")
    assert caught.value.code == Code.NOT_FOUND


def test_a_write_that_begins_anew(store: Store) -> None:
    call = store.open("Write")
    said(call, STAT, ref="r")
    said(call, WRITE, data=b"something long")
    assert said(call, WRITE, data=b"new").offset == 3
    assert said(call, COMMIT, offset=3).digest == digest(b"new")
    assert blob(store, b"new").read_bytes() == b"new"
    call.cancel()


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([(STAT, {})], Code.INVALID_ARGUMENT),
        ([(STAT, {"ref": "r"}), (WRITE, {"offset": 5, "data": b"x"})], Code.OUT_OF_RANGE),
        ([(STAT, {"ref": "r", "total": 3}), (WRITE, {"data": b"four"})], Code.OUT_OF_RANGE),
        ([(STAT, {"ref": "r", "total": 3}), (COMMIT, {"data": b"no"})], Code.FAILED_PRECONDITION),
        ([(STAT, {"ref": "r"}), (COMMIT, {"data": b"x", "expected": digest(b"y")})], Code.FAILED_PRECONDITION),
        ([(STAT, {"ref": "r"}), (COMMIT, {"data": b"x", "total": 7})], Code.FAILED_PRECONDITION),
        ([(STAT, {"ref": "r", "expected": "sha256:../../../etc/passwd"})], Code.INVALID_ARGUMENT),
        ([(STAT, {"ref": "r", "expected": "x"})], Code.INVALID_ARGUMENT),
        ([(9, {"ref": "r"})], Code.INVALID_ARGUMENT),
        ([(COMMIT, {"ref": "r", "data": b"x"}), (WRITE, {"data": b"more"})], Code.INVALID_ARGUMENT),
    ],
)
def test_writes_that_are_refused(store: Store, messages: list[tuple[int, dict[str, Any]]], code: Code) -> None:
    call = store.open("Write")
    *before, last = messages
    for action, fields in before:
        said(call, action, **fields)
    with pytest.raises(CallStatus) as caught:
        said(call, last[0], **last[1])
    assert caught.value.code == code
    call.cancel()
    store.blobs.close()
    assert store.files <= {f"blobs/sha256/{digest(b'x').partition(':')[2]}"}


def test_one_writer_of_a_ref_at_a_time(store: Store) -> None:
    first, second = store.open("Write"), store.open("Write")
    said(first, STAT, ref="r")
    with pytest.raises(CallStatus) as caught:
        said(second, STAT, ref="r")
    assert caught.value.code == Code.UNAVAILABLE
    second.cancel()
    said(first, WRITE, data=b"x")
    first.cancel()


def test_many_blobs_at_once(store: Store) -> None:
    data = {f"ref {number}": os.urandom(2000) for number in range(50)}
    calls = {ref: store.open("Write") for ref in data}
    for ref, call in calls.items():
        said(call, STAT, ref=ref, total=2000, expected=digest(data[ref]))
    for start in (0, 1000):
        for ref, call in calls.items():
            said(call, WRITE, offset=start, data=data[ref][start : start + 1000])
    for ref, call in calls.items():
        said(call, COMMIT, offset=2000)
        call.cancel()
        assert store.read(digest(data[ref])) == data[ref]


def test_an_aborted_write(store: Store) -> None:
    call = store.open("Write")
    said(call, STAT, ref="r")
    said(call, WRITE, data=b"x")
    assert store.open("Abort")
    store.ask("Abort", content.AbortRequest, ref="r")
    store.ask("Abort", content.AbortRequest, ref="never")
    with pytest.raises(CallStatus) as caught:
        said(call, WRITE, offset=1, data=b"y")
    assert caught.value.code == Code.ABORTED
    call.cancel()
    assert store.files == set()


def test_labels_have_no_place_but_are_taken(store: Store) -> None:
    name = store.add(b"x")
    answer = store.ask("Update", content.UpdateResponse, info=content.Info(digest=name, labels={"a": "b"}))
    assert (answer.info.digest, answer.info.size, dict(answer.info.labels)) == (name, 1, {"a": "b"})
    with pytest.raises(CallStatus) as caught:
        store.ask("Update", content.UpdateResponse, info=content.Info(digest=digest(b"none")))
    assert caught.value.code == Code.NOT_FOUND


BAD = ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:../" + "0" * 61,
       "sha256/" + "0" * 64, "../../secret", "sha256:" + "0" * 64 + "\n", "sha512:" + "0" * 64]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_digests_that_are_none(store: Store, name: str) -> None:
    (store.directory.parent / "secret").write_text("x")
    for ask in (lambda: store.ask("Info", content.InfoResponse, digest=name), lambda: store.read(name)):
        with pytest.raises(CallStatus) as caught:
            ask()
        assert caught.value.code == Code.INVALID_ARGUMENT


def test_what_is_not_there(store: Store) -> None:
    for ask in (lambda: store.ask("Info", content.InfoResponse, digest=digest(b"")), lambda: store.read(digest(b""))):
        with pytest.raises(CallStatus) as caught:
            ask()
        assert caught.value.code == Code.NOT_FOUND
    blob(store, b"").mkdir(parents=True)
    with pytest.raises(CallStatus, match="not found"):
        store.read(digest(b""))
    assert store.files == set(), "reading makes nothing"


@pytest.mark.parametrize("method", ["List", "Delete"])
def test_what_is_not_served(store: Store, method: str) -> None:
    with pytest.raises(CallStatus) as caught:
        store.open(method).receive(b"")
    assert caught.value.code == Code.UNIMPLEMENTED


def test_a_store_that_nobody_offered(store: Store) -> None:
    methods = Content({"local:x": store.blobs}).methods()
    for metadata in ({}, {STORE_ID: ("local:y",)}, {STORE_ID: ()}):
        for method in ("Info", "Read", "Write"):
            with pytest.raises(CallStatus, match="unknown store") as caught:
                methods[SERVICE + method](metadata)
            assert caught.value.code == Code.NOT_FOUND


def test_a_store_for_reading(tmp_path: Path) -> None:
    store = Store(tmp_path, writable=False)
    with pytest.raises(CallStatus) as caught:
        said(store.open("Write"), STAT, ref="r")
    assert caught.value.code == Code.PERMISSION_DENIED
    assert os.listdir(tmp_path) == []


def test_a_blob_that_becomes_shorter_while_it_is_read(store: Store) -> None:
    name = store.add(b"x" * 100_000)
    call = store.open("Read")
    call.receive(content.ReadContentRequest(digest=name).SerializeToString())
    assert call.produce(1 << 16)
    blob(store, b"x" * 100_000).chmod(0o600)
    os.truncate(blob(store, b"x" * 100_000), 10)
    with pytest.raises(CallStatus, match="became shorter"):
        call.produce(1 << 16)
    call.cancel()


def test_a_disk_that_takes_no_more(store: Store) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    call = store.open("Write")
    try:
        said(call, STAT, ref="r")
        with pytest.raises(CallStatus, match=r"cannot write .*/layout: File too large"):
            said(call, WRITE, data=b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    call.cancel()
    store.blobs.close()
    assert store.files == set()


def test_what_a_killed_process_left_is_swept(store: Store) -> None:
    left, held = store.directory / "ingest" / "buildx-left", store.directory / "ingest" / "buildx-held"
    theirs = store.directory / "ingest" / "0123"
    for directory in (left, held, theirs):
        directory.mkdir(parents=True)
        (directory / "data").write_text("x")
    holder = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        store.add(b"x")
    finally:
        os.close(holder)
    assert (left.exists(), held.exists(), theirs.exists()) == (False, True, True)


def test_a_cache_is_held_from_the_first_write_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Store(tmp_path, locked=True)
    cache.add(b"x")
    lock = tmp_path / "cache.lock"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    with open(lock) as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_UN)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        cache.blobs.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        monkeypatch.setattr(blobs_file, "CACHE_LOCK_SECONDS", 0.1)
        with pytest.raises(CallStatus, match="being cleaned up by another process"):
            Store(tmp_path, locked=True).add(b"y")
    assert lock.exists(), "never removed: another may hold it by then"


actions = st.fixed_dictionaries(
    {"action": st.integers(0, 3)},
    optional={
        "ref": st.sampled_from(["", "r", "../r", "s\0", "x" * 300]),
        "total": st.sampled_from([-1, 0, 1, 4, 1 << 40]),
        "offset": st.sampled_from([-1, 0, 1, 2, 4]),
        "expected": st.sampled_from(["", digest(b"a"), digest(b"aa"), digest(b""), "sha256:..", "x"]),
        "data": st.sampled_from([b"", b"a", b"aa", b"b" * 5000]),
    },
)
messages = actions.map(lambda fields: content.WriteContentRequest(**fields).SerializeToString()) | st.binary(max_size=9)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(st.integers(0, 2), messages), max_size=20))
def test_whatever_is_written_only_true_blobs_appear(tmp_path: Path, calls: list[tuple[int, bytes]]) -> None:
    store = Store(tmp_path / os.urandom(8).hex())
    opened: dict[int, Call] = {}
    for number, message in calls:
        call = opened.setdefault(number, store.open("Write"))
        try:
            call.receive(message)
            call.produce(1 << 16)
        except (CallStatus, BuildxError):
            opened.pop(number).cancel()
    for call in opened.values():
        call.cancel()
    store.blobs.close()
    for path in store.files:
        assert path.startswith("blobs/sha256/")
        assert digest((store.directory / path).read_bytes()) == "sha256:" + path.rpartition("/")[2]
