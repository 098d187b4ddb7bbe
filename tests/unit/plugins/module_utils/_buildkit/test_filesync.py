# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import walk
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import (
    FileSync,
    decode_packet,
    metadata_values,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import message
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Call, CallStatus, Code

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
STAT, REQ, DATA, FIN, ERR = range(5)


def packet(**fields: Any) -> bytes:
    return bytes(message("fsutil.types.Packet")(**fields).SerializeToString())


def decode(raw: bytes) -> Any:
    return message("fsutil.types.Packet").FromString(raw)


class Receiver:
    """The daemon's side: reads the listing, asks for what it wants, puts contents together."""

    def __init__(self, call: Call, budget: int = 1 << 16, wanted: bool = True) -> None:
        self.call, self.budget, self.wanted = call, budget, wanted
        self.stats: list[Any] = []
        self.data: dict[int, bytes] = {}
        self.open: set[int] = set()
        self.listed = self.ended = False

    def turn(self) -> None:
        for raw in self.call.produce(self.budget):
            got = decode(raw)
            if got.type == STAT and got.HasField("stat"):
                assert not self.listed
                self.stats.append(got.stat)
                if self.wanted and got.stat.mode < 1 << 20 and not got.stat.linkname:
                    self.open.add(len(self.stats) - 1)
                    self.call.receive(packet(type=REQ, ID=len(self.stats) - 1))
            elif got.type == STAT:
                assert raw == b""
                self.listed = True
            elif got.type == DATA and got.data:
                assert got.ID in self.open
                self.data[got.ID] = self.data.get(got.ID, b"") + got.data
            elif got.type == DATA:
                self.open.remove(got.ID)
                self.data.setdefault(got.ID, b"")
            elif got.type == FIN:
                self.ended = True

    def run(self) -> Receiver:
        for _turn in range(100_000):
            self.turn()
            if self.listed and not self.open:
                break
        self.call.receive(packet(type=FIN))
        self.turn()
        assert self.ended
        assert self.call.finished
        return self

    @property
    def files(self) -> dict[bytes, bytes]:
        return {self.stats[number].path: data for number, data in self.data.items()}


def start(root: Path, **metadata: tuple[str, ...]) -> tuple[Call, FileSync]:
    service = FileSync({"context": str(root)})
    keys = {key.replace("_", "-"): values for key, values in metadata.items()}
    return service.methods()[DIFF_COPY]({"dir-name": ("context",), **keys}), service


def sync(root: Path, budget: int = 1 << 16, wanted: bool = True, **metadata: tuple[str, ...]) -> Receiver:
    return Receiver(start(root, **metadata)[0], budget, wanted).run()


def refusal(call: Call, number: int) -> CallStatus:
    """The status with which a transfer ends that has been listed and is now asked for this entry."""
    call.receive(packet(type=REQ, ID=number))
    with pytest.raises(CallStatus) as caught:
        call.produce(1 << 16)
    return caught.value


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("budget", [1, 100, 4096, 1 << 16, 1 << 30])
def test_a_tree_arrives(tmp_path: Path, budget: int) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x").write_bytes(b"x" * 300_000)
    (tmp_path / "a" / "y").write_bytes(b"y")
    (tmp_path / "a-b").write_bytes(b"")
    (tmp_path / "link").symlink_to("a/y")
    before = descriptors()
    call, service = start(tmp_path)
    got = Receiver(call, budget).run()
    assert [each.path for each in got.stats] == [b"a", b"a/deep", b"a/deep/x", b"a/y", b"a-b", b"link"]
    assert got.files == {b"a/deep/x": b"x" * 300_000, b"a/y": b"y", b"a-b": b""}
    assert (service.files_sent, service.bytes_sent) == (3, 300_001)
    assert descriptors() == before


def test_an_empty_tree(tmp_path: Path) -> None:
    call, _service = start(tmp_path)
    assert call.produce(1 << 16) == [b""]
    assert call.produce(1 << 16) == []
    call.receive(packet(type=FIN))
    assert call.produce(1 << 16) == [packet(type=FIN)]
    assert call.finished
    call.half_close()
    assert call.produce(1 << 16) == []


def test_packets_are_those_of_protobuf(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}").write_bytes(b"data" * number)
    call, _service = start(tmp_path)
    packets = call.produce(1 << 20)
    for number in (0, 1, 299):
        call.receive(packet(type=REQ, ID=number))
    packets += call.produce(1 << 16)
    assert all(decode(raw).SerializeToString() == raw for raw in packets)
    assert packets[-2:] == [packet(type=DATA, ID=299, data=b"data" * 299), packet(type=DATA, ID=299)]


def test_files_flow_while_the_listing_runs(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}").write_bytes(b"x" * 1000)
    call, _service = start(tmp_path)
    receiver = Receiver(call, budget=4000)
    receiver.turn()
    while not receiver.listed:
        stats, files = len(receiver.stats), len(receiver.data)
        receiver.turn()
        assert len(receiver.stats) > stats
        assert len(receiver.data) > files
    assert len(receiver.run().files) == 200


@pytest.mark.parametrize("budget", [10_000, 65_536])
def test_a_turn_keeps_to_its_budget(tmp_path: Path, budget: int) -> None:
    for number in range(20):
        (tmp_path / f"{number:03}").write_bytes(b"x" * 100_000)
    call, _service = start(tmp_path)
    call.produce(1 << 20)
    for number in range(20):
        call.receive(packet(type=REQ, ID=number))
    turns = 0
    while packets := call.produce(budget):
        turns += 1
        assert sum(map(len, packets)) < budget + 5_000
    assert turns >= 2_000_000 // (budget + 5_000)


def test_filters(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e", "x y+z\xff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / os.fsdecode(name.encode("latin-1"))).write_text("content")
    assert list(sync(tmp_path, exclude_patterns=("a", "!a/b/c", "x*")).files) == [b"a/b/c", b"e"]
    assert list(sync(tmp_path, followpaths=("a/d",)).files) == [b"a/d"]
    assert list(sync(tmp_path, include_patterns=("a",), exclude_patterns=("a/b",)).files) == [b"a/d"]
    quoted = {"followpaths": ("x+y%2Bz%FF", "e"), "followpaths-encoded": ("1",)}
    assert list(sync(tmp_path, **quoted).files) == [b"e", b"x y+z\xff"]
    assert list(sync(tmp_path, followpaths=(os.fsdecode(b"x y+z\xff"),)).files) == [b"x y+z\xff"]


def test_values_are_taken_literally_without_the_marker() -> None:
    assert metadata_values({"k": ("a+b%20",)}, "k") == [b"a+b%20"]
    assert metadata_values({"k": ("a+b%20%zz",), "k-encoded": ("1",)}, "k") == [b"a b %zz"]
    assert metadata_values({}, "k") == []


@pytest.mark.parametrize("metadata", [{"dir-name": ("other",)}, {}])
def test_a_directory_that_is_not_offered(tmp_path: Path, metadata: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(CallStatus, match="offered") as caught:
        FileSync({"context": str(tmp_path)}).methods()[DIFF_COPY](metadata)
    assert caught.value.code == Code.NOT_FOUND


def test_tar_stream_is_announced_and_refused(tmp_path: Path) -> None:
    with pytest.raises(CallStatus) as caught:
        FileSync({}).methods()["/moby.filesync.v1.FileSync/TarStream"]({})
    assert caught.value.code == Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"exclude_patterns": ("!",)}, "illegal exclusion pattern"),
        ({"exclude_patterns": ("[a",)}, "'\\[a'"),
        ({"followpaths": ("a%00b",), "followpaths_encoded": ("1",)}, "null"),
    ],
)
def test_what_the_daemon_should_not_have_asked(tmp_path: Path, metadata: Any, text: str) -> None:
    (tmp_path / "file").touch()
    call, _service = start(tmp_path, **metadata)
    with pytest.raises(CallStatus, match=text) as caught:
        call.produce(1 << 16)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_the_root_may_be_a_link_and_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert sync(tmp_path / "link").files == {b"file": b"x"}
    for name in ("none", "real/file"):
        with pytest.raises(CallStatus, match=name) as caught:
            start(tmp_path / name)[0].produce(1 << 16)
        assert caught.value.code == Code.FAILED_PRECONDITION


def test_a_file_that_vanished_fails_the_call(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file\udcff").write_text("x")
    before = descriptors()
    call, _service = start(tmp_path)
    call.produce(1 << 16)
    os.unlink(tmp_path / "dir" / "file\udcff")
    call.receive(packet(type=REQ, ID=1))
    with pytest.raises(CallStatus) as caught:
        call.produce(1 << 16)
    assert caught.value.code == Code.FAILED_PRECONDITION
    assert caught.value.message == f"cannot read {tmp_path}/dir/file\\xff: No such file or directory"
    assert descriptors() == before


def test_links_that_took_a_place_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "secret").write_text("x")
    (root / "file").write_text("x")
    calls = [start(root)[0] for _each in range(2)]
    for call in calls:
        assert b"" in call.produce(1 << 16)
    (root / "file").unlink()
    (root / "file").symlink_to("../secret")
    (root / "dir").rename(tmp_path / "elsewhere")
    (root / "dir").symlink_to(tmp_path)
    for call, number, text in zip(calls, (2, 1), ("root/file: Too many", "root/dir/secret: Not a dir")):
        call.receive(packet(type=REQ, ID=number))
        with pytest.raises(CallStatus, match=text):
            call.produce(1 << 16)


def test_a_fifo_that_took_a_place_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    call, _service = start(tmp_path)
    call.produce(1 << 16)
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    assert "no regular file any more" in refusal(call, 0).message


def test_an_unreadable_file_fails_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    call, _service = start(tmp_path)
    call.produce(1 << 16)

    def refuse(path: bytes, flags: int, *, dir_fd: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)  # a mode of 0 does not keep root out
    status = refusal(call, 0)
    assert (status.code, status.message) == (
        Code.PERMISSION_DENIED,
        f"cannot read {tmp_path}/file: Permission denied",
    )


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    call, _service = start(tmp_path)
    call.produce(1 << 16)

    def fail(fd: int, size: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    status = refusal(call, 0)
    monkeypatch.undo()
    assert status.message == f"cannot read {tmp_path}/file: Input/output error"


@pytest.mark.parametrize("now", [b"", b"short", b"long" * 100_000])
def test_a_file_that_changed_is_sent_as_it_is_now(tmp_path: Path, now: bytes) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    call, _service = start(tmp_path)
    assert len(call.produce(1 << 16)) == 2
    (tmp_path / "file").write_bytes(now)
    call.receive(packet(type=REQ))
    data = b""
    while packets := call.produce(1 << 16):
        for each in map(decode, packets):
            data += each.data
    assert data == now


def test_a_file_that_grows_while_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    call, _service = start(tmp_path)
    call.produce(1 << 16)
    call.receive(packet(type=REQ))
    data = decode(call.produce(10)[0]).data
    with (tmp_path / "file").open("ab") as file:
        file.write(b"y" * 50_000)
    while packets := call.produce(1 << 16):
        data += b"".join(decode(each).data for each in packets)
    assert data == b"x" * 5000 + b"y" * 50_000


def test_a_short_read_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, max(size // 3, 1)))
    assert sync(tmp_path).files == {b"file": bytes(range(256)) * 100}


def test_requests_out_of_turn(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("x")
    (tmp_path / "c").mkdir()
    (tmp_path / "d").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "e")
    for first, number in ((0, 0), (0, 2), (0, 3), (0, 4), (0, 5), (0, 1 << 31)):
        call, _service = start(tmp_path)
        call.produce(1 << 16)
        call.receive(packet(type=REQ, ID=first))
        with pytest.raises(CallStatus, match=f"entry {number} out of turn") as caught:
            call.receive(packet(type=REQ, ID=number))
        assert caught.value.code == Code.INVALID_ARGUMENT


def test_a_request_before_its_stat(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(CallStatus, match="out of turn"):
        start(tmp_path)[0].receive(packet(type=REQ))


def test_a_socket_is_an_empty_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert sync(tmp_path).files == {b"s": b""}


def test_the_daemon_gives_up(tmp_path: Path) -> None:
    call, _service = start(tmp_path)
    call.produce(1 << 16)
    with pytest.raises(CallStatus, match="error from receiver: disk full \ufffd") as caught:
        call.receive(packet(type=ERR, data=b"disk full \xff"))
    assert caught.value.code == Code.UNKNOWN


@pytest.mark.parametrize("raw", [b"\x08", b"\x22\x05ab", b"\x0d1234", b"\xff" * 20, b"\x08\x01\x18\xff", b"\x08\x63"])
def test_malformed_packets(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(CallStatus) as caught:
        start(tmp_path)[0].receive(raw)
    assert caught.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "fields",
    [
        {"type": REQ},
        {"type": REQ, "ID": 127},
        {"type": REQ, "ID": 1 << 31},
        {"type": FIN},
        {"type": ERR, "data": b"\xff" * 300},
        {"type": REQ, "ID": 5, "data": b"x"},
        {"ID": 3, "stat": {"path": b"x"}},
        {},
    ],
)
def test_packets_are_read_as_protobuf_does(fields: dict[str, Any]) -> None:
    wanted = decode(packet(**fields))
    assert decode_packet(packet(**fields)) == (wanted.type, wanted.ID, wanted.data)
    assert decode_packet(packet(**fields) + b"\x78\x01") == (wanted.type, wanted.ID, wanted.data)


def test_half_closed_before_the_end(tmp_path: Path) -> None:
    before = descriptors()
    call, _service = start(tmp_path)
    call.produce(1 << 16)
    with pytest.raises(CallStatus) as caught:
        call.half_close()
    assert caught.value.code == Code.ABORTED
    assert descriptors() == before


def test_cancel_releases_everything_at_any_time(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 100_000)
    before = descriptors()
    start(tmp_path)[0].cancel()
    call, _service = start(tmp_path)
    call.produce(1 << 16)
    call.receive(packet(type=REQ, ID=2))
    call.produce(1000)
    assert descriptors() == before + 4  # the root, two directories, the file
    call.cancel()
    call.cancel()
    assert descriptors() == before
    assert call.produce(1 << 16) == []


def test_several_transfers_at_once(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}").write_bytes(b"%d" % number * 1000)
    receivers = [Receiver(start(tmp_path)[0], budget) for budget in (500, 3000, 70_000)]
    for _turn in range(20):
        for receiver in receivers:
            receiver.turn()
    assert receivers[0].run().files == receivers[1].run().files == receivers[2].run().files


def test_deep_trees_in_any_order(tmp_path: Path) -> None:
    names = [b"/".join([b"d"] * depth + [b"f%d" % depth]) for depth in range(1, 30)] + [b"d/e/g", b"h"]
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    call, _service = start(tmp_path)
    receiver = Receiver(call, wanted=False)
    receiver.turn()
    numbers = [number for number, each in enumerate(receiver.stats) if each.mode < 1 << 20]
    for number in sorted(numbers, key=lambda number: number * 7 % 31):
        receiver.open.add(number)
        call.receive(packet(type=REQ, ID=number))
    assert receiver.run().files == {name: name for name in names}


def test_a_long_walk_without_entries_gives_others_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "DROPPED_MAX", 10)
    for number in range(35):
        (tmp_path / f"{number}").touch()
    call, _service = start(tmp_path, exclude_patterns=("*",))
    woken: list[int] = []
    call.wake = lambda: woken.append(1)
    turns = 0
    while not (packets := call.produce(1 << 16)):
        turns += 1
    assert packets == [b""]
    assert turns == len(woken) == 3
