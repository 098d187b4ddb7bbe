# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees from a sender in this process: written as they are sent, and never anywhere but below the destination."""

from __future__ import annotations

import copy
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import landing, receive_tree
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.listing import decode_entry
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import fsutil
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive_tree import TreeReceiver
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Call, CallStatus, Code
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.walk import go_mode
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, ConfigError

EXAMPLES = int(os.environ.get("BUILDX_FUZZ_EXAMPLES", "60"))
FIN = b"\x08\x03"
TIME = 1_700_000_000_123_456_789
WAY = {"buildkit-exporter-multi-platform": ("1",)}


class Item:
    """One entry that a sender has: its Stat and, for a file, its content."""

    def __init__(self, path: bytes, mode: int, content: bytes = b"", **fields: Any) -> None:
        self.content = content if stat.S_ISREG(mode) and "linkname" not in fields else None
        fields.setdefault("size", len(content))
        self.stat = fsutil.Stat(path=path, mode=go_mode(mode), **{"modTime": TIME, **fields})

    @property
    def packet(self) -> bytes:
        return bytes(fsutil.Packet(stat=self.stat).SerializeToString())


def file(path: bytes, content: bytes = b"", mode: int = 0o644, **fields: Any) -> Item:
    return Item(path, stat.S_IFREG | mode, content, **fields)


def folder(path: bytes, mode: int = 0o755, **fields: Any) -> Item:
    return Item(path, stat.S_IFDIR | mode, **fields)


def link(path: bytes, target: bytes) -> Item:
    return Item(path, stat.S_IFLNK | 0o777, linkname=target)


def hard(path: bytes, first: bytes) -> Item:
    return Item(path, stat.S_IFREG | 0o644, linkname=first)


def data(number: int, content: bytes) -> bytes:
    return bytes(fsutil.Packet(type=2, ID=number, data=content).SerializeToString())


def feed(call: Call, *packets: bytes) -> None:
    """Send packets; raises what the receiver answers when it gives up."""
    for packet in packets:
        call.receive(packet)
    given_up(call.produce(1 << 16))


def given_up(messages: list[bytes]) -> None:
    for message in messages:
        packet = fsutil.Packet.FromString(message)
        if packet.type == 4:
            raise CallStatus(Code.UNKNOWN, packet.data.decode())


class Sender:
    """The daemon's side, in the order in which it may do things; `chunk` bytes of each requested file in turn."""

    def __init__(self, call: Call, items: list[Item], chunk: int = 1 << 15) -> None:
        self.call = call
        self.items = items
        self.chunk = chunk
        self.finished = False
        self.woken = 0
        self._left: dict[int, bytes] = {}
        call.wake = self._wake

    def _wake(self) -> None:
        self.woken += 1

    def run(self) -> None:
        """The whole transfer; the call is over then."""
        try:
            for item in self.items:
                self.call.receive(item.packet)
                self._answers()
            self.call.receive(b"")
            for _turn in range(100_000):
                woken = self.woken
                self._answers()
                if self.finished:
                    break
                if not self._left:
                    assert self.woken > woken, "it waits, and nobody will wake it"
                for number in list(self._left):
                    self._send(number)
            assert self.finished
            self.call.receive(FIN)
            assert self.call.produce(1 << 16) == []
            assert self.call.finished
        finally:
            self.call.cancel()

    def _answers(self) -> None:
        while True:
            messages = self.call.produce(1 << 16)
            given_up(messages)
            packets = [fsutil.Packet.FromString(message) for message in messages]
            for packet in packets:
                if packet.type == 3:
                    self.finished = True
                    continue
                assert packet.type == 1
                content = self.items[packet.ID].content
                assert content is not None, "asked for what has no content"
                assert packet.ID not in self._left
                self._left[packet.ID] = content
            if not packets or self.finished:
                return

    def _send(self, number: int) -> None:
        part, self._left[number] = self._left[number][: self.chunk], self._left[number][self.chunk :]
        if part:
            self.call.receive(data(number, part))
        else:
            del self._left[number]
            self.call.receive(data(number, b""))


def received(root: Path, *items: Item, chunk: int = 1 << 15, **options: Any) -> TreeReceiver:
    receiver = TreeReceiver(str(root), **options)
    Sender(receiver(WAY), list(items), chunk).run()
    return receiver


def counts(receiver: TreeReceiver) -> tuple[int, int, int]:
    return receiver.created, receiver.changed, receiver.deleted


def look(root: Path) -> dict[bytes, Any]:
    """What is below a directory, unfollowed."""
    found: dict[bytes, Any] = {}
    start = os.fsencode(root)
    for directory, names, files in os.walk(start):
        for name in names + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            content: Any = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as opened:
                    content = opened.read()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[path[len(start) + 1 :]] = (oct(info.st_mode), info.st_mtime_ns, content)
    return found


TREE = [
    folder(b"a", 0o555),
    folder(b"a/b", 0o1777),
    file(b"a/b/c", b"deep"),
    file(b"a-b", b"sibling", 0o4755),
    folder(b"d", 0o700, modTime=0),
    file(b"empty", b"", 0o000),
    file(b"large", bytes(range(256)) * 2000),
    link(b"link", b"../../etc/passwd"),
    hard(b"name", b"a/b/c"),
    file("ü\n".encode(), b"odd"),
    file(b"\xff\xfe", b"no text", modTime=-1),
]


@pytest.mark.parametrize("chunk", [1, 1000, 1 << 15, 1 << 20])
def test_a_tree_arrives_as_it_was_sent(tmp_path: Path, chunk: int) -> None:
    items = [item for item in TREE if chunk > 1 or item.stat.size < 1000]
    receiver = received(tmp_path / "new" / "root", *items, chunk=chunk)
    found = look(tmp_path / "new" / "root")
    assert {path: (mode, time) for path, (mode, time, _content) in found.items()} == {
        item.stat.path: (oct(_mode(item)), item.stat.modTime) for item in items
    }
    for item in items:
        if item.content is not None:
            assert found[item.stat.path][2] == item.content
    assert os.path.samefile(tmp_path / "new/root/name", tmp_path / "new/root/a/b/c")
    assert found[b"link"][2] == b"../../etc/passwd"
    assert counts(receiver) == (len(items), 0, 0)
    assert receiver.differs
    assert receiver.files == sum(item.content is not None for item in items)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700, "as the CLI makes it"


def _mode(item: Item) -> int:
    entry = decode_entry(item.stat.SerializeToString())
    return entry.kind | entry.mode


def test_nothing_at_all(tmp_path: Path) -> None:
    assert not received(tmp_path / "root").differs
    assert (tmp_path / "root").is_dir()


def test_the_same_again_leaves_everything_as_it_is(tmp_path: Path) -> None:
    received(tmp_path, *TREE)
    before, inodes = look(tmp_path), {path: path.lstat().st_ino for path in tmp_path.rglob("*")}
    receiver = received(tmp_path, *TREE)
    assert counts(receiver) == (0, 0, 0)
    assert not receiver.differs
    assert look(tmp_path) == before
    assert {path: path.lstat().st_ino for path in tmp_path.rglob("*")} == inodes


def test_a_time_alone_is_no_difference(tmp_path: Path) -> None:
    received(tmp_path, *TREE)
    later = copy.deepcopy(TREE)
    for item in later:
        item.stat.modTime += 10**9
    receiver = received(tmp_path, *later)
    assert counts(receiver) == (0, 0, 0)
    assert {path: time for path, (_mode, time, _content) in look(tmp_path).items()} == {
        item.stat.path: item.stat.modTime for item in later
    }
    assert os.path.samefile(tmp_path / "name", tmp_path / "a/b/c")


def test_attributes_that_can_be_set_and_such_that_cannot(tmp_path: Path) -> None:
    def items(**wanted: bytes) -> list[Item]:
        made = [folder(b"d"), file(b"f", b"one"), hard(b"g", b"f")]
        for item in made[:2]:
            for key, value in wanted.items():
                item.stat.xattrs.add(key=key.replace("__", ".").encode(), value=value)
        return made

    received(tmp_path, *items(user__a=b"1", bogus__b=b"2"))
    assert os.getxattr(tmp_path / "f", "user.a") == os.getxattr(tmp_path / "d", "user.a") == b"1"
    assert counts(received(tmp_path, *items(user__a=b"1", bogus__b=b"2"))) == (0, 0, 0)
    assert counts(received(tmp_path, *items(user__a=b"3"))) == (0, 2, 0)
    assert os.path.samefile(tmp_path / "f", tmp_path / "g")
    (tmp_path / "g").unlink()
    assert counts(received(tmp_path, *items(user__a=b"4")[:2])) == (0, 2, 0)
    assert os.getxattr(tmp_path / "f", "user.a") == os.getxattr(tmp_path / "d", "user.a") == b"4"


LARGE = bytes(range(256)) * 2000


@pytest.mark.parametrize(
    "items",
    [
        [file(b"f", b"other")],
        [file(b"f", b"onX")],
        [file(b"f", b"one", 0o600)],
        [file(b"f", b"")],
        [file(b"large", LARGE[:-1] + b"X")],
        [file(b"large", LARGE + b"X")],
        [link(b"l", b"elsewhere")],
        [link(b"f", b"elsewhere")],
        [file(b"l", b"a file in place of a link")],
        [file(b"dir", b"a file in place of a directory")],
        [file(b"dir", LARGE)],
        [link(b"dir", b"a/link")],
        [folder(b"dir", 0o700)],
        [folder(b"f")],
        [folder(b"l")],
        [file(b"a", b"one"), hard(b"f", b"a")],
        [Item(b"f", stat.S_IFIFO | 0o640)],
    ],
)
def test_what_differs_is_told_and_replaced(tmp_path: Path, items: list[Item]) -> None:
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "sub" / "file").write_text("x")
    (tmp_path / "dir").chmod(0o755)
    (tmp_path / "dir" / "sub").chmod(0o500)
    received(tmp_path, file(b"f", b"one"), link(b"l", b"f"), file(b"large", LARGE))
    receiver = received(tmp_path, *items)
    assert receiver.changed == 1
    assert receiver.deleted == 0
    found = look(tmp_path)
    for item in items:
        mode, _time, content = found[item.stat.path]
        assert mode == oct(_mode(item))
        assert item.content is None or content == item.content
    gone = items[0].stat.path == b"dir" and not stat.S_ISDIR(_mode(items[0]))
    assert (tmp_path / "dir" / "sub" / "file").exists() is not gone


def test_another_name_of_a_file_elsewhere_is_never_changed(tmp_path: Path) -> None:
    """What is there may be a name of a file that is none of ours."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    root.mkdir()
    outside.write_bytes(b"same")
    outside.chmod(0o600)
    os.utime(outside, ns=(1, 1))
    os.link(outside, root / "f")
    receiver = received(root, file(b"f", b"same", 0o666))
    assert (outside.read_bytes(), stat.S_IMODE(outside.stat().st_mode), outside.stat().st_mtime_ns) == (
        b"same",
        0o600,
        1,
    )
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o666
    assert receiver.changed == 1


@pytest.mark.parametrize("delete", [False, True])
def test_what_else_is_there(tmp_path: Path, delete: bool) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "kept").mkdir(parents=True)
    (root / "a" / "old" / "deeper").mkdir(parents=True)
    (root / "a" / "old" / "deeper" / "file").write_text("x")
    (root / "a" / "old").chmod(0o500)
    (root / "a" / "way out").symlink_to(outside)
    (root / "other").write_text("x")
    (root / "keep").write_text("x")
    items = [folder(b"a"), file(b"a/new", b"n"), file(b"keep", b"x", stat.S_IMODE((root / "keep").stat().st_mode))]
    receiver = received(root, *items, delete=delete)
    assert counts(receiver) == (1, 0, 5 if delete else 0)
    assert {path.decode() for path in look(root)} == {"a", "a/new", "keep"} | (
        set() if delete else {"a/old", "a/old/deeper", "a/old/deeper/file", "a/way out", "other"}
    )
    assert (outside / "kept").is_dir()


def test_nothing_is_removed_before_everything_has_come(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    call = TreeReceiver(str(tmp_path), delete=True)(WAY)
    call.receive(file(b"f", b"content").packet)
    call.receive(b"")
    call.produce(1 << 16)
    call.receive(data(0, b"cont"))
    call.cancel()
    assert look(tmp_path).keys() == {b"old"}


def test_deletion_needs_a_daemon_that_can_do_it(tmp_path: Path) -> None:
    with pytest.raises(CallStatus, match=r"v0.31 or newer"):
        feed(TreeReceiver(str(tmp_path), delete=True)({}))


def test_what_must_not_be_deleted(tmp_path: Path) -> None:
    context = tmp_path / "project" / "context"
    context.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "project")
    for destination in ("/", str(context), str(tmp_path), str(tmp_path / "link")):
        with pytest.raises(ConfigError, match="mode=delete would remove everything else"):
            TreeReceiver(destination, delete=True, protected=[str(context)])
    TreeReceiver(str(context / "out"), delete=True, protected=[str(context)])
    TreeReceiver(str(tmp_path / "project" / "contex"), delete=True, protected=[str(context)])


def test_a_file_in_place_of_the_destination(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(ConfigError, match=r"destination directory .*/f is a file"):
        TreeReceiver(str(tmp_path / "f"))
    with pytest.raises(CallStatus, match=r"cannot write .*/f/below: something on the way is no directory"):
        feed(TreeReceiver(str(tmp_path / "f" / "below"))({}))


def test_platforms_that_come_at_once_share_a_destination(tmp_path: Path) -> None:
    receiver = TreeReceiver(str(tmp_path))
    calls = [receiver({}), receiver({})]
    for call, name in zip(calls, (b"linux_amd64", b"linux_arm64")):
        call.receive(folder(name).packet)
        call.receive(file(name + b"/f", name).packet)
        call.receive(b"")
    for call in calls:
        assert call.produce(1 << 16)
    for call, name in zip(calls, (b"linux_amd64", b"linux_arm64")):
        call.receive(data(1, name))
        call.receive(data(1, b""))
        while not call.produce(1 << 16):
            pass
        call.receive(FIN)
        call.cancel()
    assert counts(receiver) == (4, 0, 0)
    assert (tmp_path / "linux_arm64" / "f").read_bytes() == b"linux_arm64"


def test_deeper_than_a_process_may_have_files(tmp_path: Path) -> None:
    names = [b"d"] * 400
    items = [folder(b"/".join(names[:depth])) for depth in range(1, 401)]
    received(tmp_path / "root", *items, file(b"/".join(names) + b"/f", b"deep"), file(b"top", b"t"))
    soft, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard_limit))
    try:
        receiver = received(tmp_path / "root", file(b"top", b"t"), delete=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard_limit))
    assert counts(receiver) == (0, 0, 401)


def test_a_file_larger_than_the_process_may_write(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        for content in (b"x" * 110_000, b"x" * 500_000):
            with pytest.raises(CallStatus, match=r"cannot write .*/sub/f: File too large"):
                received(tmp_path, folder(b"sub"), file(b"sub/f", content))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert look(tmp_path).keys() == {b"sub"}


@pytest.fixture
def somebody(tmp_path: Path) -> Iterator[Path]:
    """A directory of a user who may not do everything, and his rights for the time of a test."""
    home = tmp_path / "home"
    home.mkdir()
    if os.geteuid() != 0:
        yield home
        return
    os.chown(home, 65534, 65534)
    for directory in tmp_path.parents:
        if directory.stat().st_mode & 0o5 != 0o5 and directory.name.startswith(("pytest-", "popen-")):
            directory.chmod(0o755)
    tmp_path.chmod(0o755)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield home
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_somebody_who_is_not_root(somebody: Path) -> None:
    """Directories that he may not write in the end, files of which he is not to see anything, the rights of others."""
    items = [
        folder(b"closed", 0o000),
        folder(b"closed/in", 0o000),
        file(b"closed/in/f", b"x", 0o400),
        file(b"secret", b"y", 0o200, uid=0, gid=0),
        file(b"set", b"z", 0o4755),
    ]
    assert counts(received(somebody / "out", *items)) == (5, 0, 0)
    info = (somebody / "out" / "set").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (os.geteuid(), os.getegid(), 0o4755)
    assert stat.S_IMODE((somebody / "out" / "closed").stat().st_mode) == 0
    items[1:3] = []
    assert counts(received(somebody / "out", *items, delete=True)) == (0, 1, 2), "what he cannot read counts as changed"


def test_what_somebody_may_not_do_is_told(somebody: Path) -> None:
    if os.access("/", os.W_OK, effective_ids=True):
        pytest.skip("this user may do everything")
    with pytest.raises(CallStatus, match="cannot write /never-there: Permission denied"):
        received(Path("/never-there"))
    with pytest.raises(CallStatus, match=r"cannot write .*/out/null: Operation not permitted"):
        received(somebody / "out", Item(b"null", stat.S_IFCHR | 0o666, devmajor=1, devminor=3))
    assert look(somebody / "out") == {}


# What a daemon must not do.


@pytest.mark.parametrize(
    "path",
    [b"", b".", b"..", b"/", b"/etc", b"/etc/x", b"../x", b"a/../x", b"a/", b"./a", b"a//b", b"a/..", b"a\0b", b"\0",
     b"a/./b", b"//", b"never/listed", b"link/x", b"file/x", b"e/x"],
)  # fmt: skip
@pytest.mark.parametrize("make", [file, folder, lambda path: link(path, b"t"), lambda path: hard(path, b"file")])
def test_paths_that_are_none(fence: Fence, path: bytes, make: Callable[[bytes], Item]) -> None:
    before = [folder(b"a"), file(b"file"), link(b"link", os.fsencode(fence.outside))]
    call = fence.receiver({})
    for item in before:
        call.receive(item.packet)
    with pytest.raises(CallStatus, match="the daemon sent"):
        feed(call, make(path).packet)
    call.cancel()
    fence.check()


@pytest.mark.parametrize(
    "items",
    [
        [file(b"b"), file(b"a")],
        [file(b"a"), file(b"a")],
        [folder(b"a"), link(b"a", b"/etc")],
        [folder(b"a"), file(b"a/b"), folder(b"b"), file(b"a/c")],
        [link(b"a", b"/etc"), folder(b"a")],
        [hard(b"a", b"missing")],
        [hard(b"a", b"a")],
        [hard(b"a", b"../outside/file")],
        [link(b"a", b"x"), hard(b"b", b"a")],
        [folder(b"a"), hard(b"b", b"a")],
        [link(b"a", b"")],
        [link(b"a", b"x\0y")],
        [Item(b"a", stat.S_IFDIR | 0o755, linkname=b"x")],
        [file(b"a", size=-1)],
        [Item(b"a", stat.S_IFCHR | 0o666, devmajor=1 << 40)],
        [Item(b"a", stat.S_IFBLK | 0o666, devminor=-1)],
    ],
)
def test_entries_that_cannot_be(fence: Fence, items: list[Item]) -> None:
    call = fence.receiver({})
    with pytest.raises(CallStatus, match="the daemon sent"):
        feed(call, *(item.packet for item in items))
    call.cancel()
    fence.check()


@pytest.mark.parametrize("bits", [1 << 24, 1 << 19, 1 << 31 | 1 << 27, 1 << 21, 1 << 25 | 1 << 26, 0xFFFFFFFF])
def test_types_that_are_none(fence: Fence, bits: int) -> None:
    item = file(b"a")
    item.stat.mode = bits
    with pytest.raises(CallStatus, match="of no type"):
        feed(fence.receiver({}), item.packet)


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        ([data(0, b"x")], "content of the entry 0, which was not asked for"),
        ([data(7, b"x")], "content of the entry 7"),
        ([FIN], "a packet of type 3 out of turn"),
        ([b"", b""], "a packet of type 0 out of turn"),
        ([b"", file(b"z").packet], "a packet of type 0 out of turn"),
        ([b"\x08\x01"], "a packet of type 1 out of turn"),
        ([b"\x08\x7f"], "a packet of type 127 out of turn"),
        ([b"\xff\xff"], "a malformed packet"),
        ([b"\x12\x01\xff"], "a malformed entry"),
        ([b"\x08\x04\x22\x03bad"], "error from sender: bad"),
    ],
)
def test_packets_out_of_turn(fence: Fence, packets: list[bytes], words: str) -> None:
    call = fence.receiver({})
    with pytest.raises(CallStatus, match=words):
        feed(call, *packets)
    call.cancel()
    fence.check()


@pytest.mark.parametrize(
    ("size", "parts", "words"),
    [
        (3, [b"four"], "more of f than the 3 bytes"),
        (3, [b"tw", b"oo"], "more of f than"),
        (0, [b"x"], "more of f than the 0 bytes"),
        (1 << 62, [b"few", b""], "3 of 4611686018427387904 bytes of f"),
        (3, [b""], "0 of 3 bytes of f"),
        (200_000, [b"x" * 150_000, b"x" * 150_000], "more of f than"),
        (200_000, [b"x" * 150_000, b""], "150000 of 200000 bytes of f"),
        (3, [b"abc", b"", b""], "which was not asked for"),
    ],
)
def test_more_or_less_than_announced(fence: Fence, size: int, parts: list[bytes], words: str) -> None:
    call = fence.receiver({})
    call.receive(file(b"f", size=size).packet)
    call.produce(1 << 16)
    with pytest.raises(CallStatus, match=words):
        feed(call, *(data(0, part) for part in parts))
    call.cancel()
    fence.check()
    assert look(fence.root).keys() <= {b"f"}, "nothing is left aside"


def test_after_a_failure_the_sender_has_the_last_word(fence: Fence) -> None:
    """It learns why from a packet, while it goes on to send; then it ends the call."""
    woken = []
    call = fence.receiver({})
    call.wake = lambda: woken.append(1)
    call.receive(file(b"..").packet)
    assert woken
    call.receive(file(b"f", b"x").packet)
    [message] = call.produce(1 << 16)
    assert fsutil.Packet.FromString(message).type == 4
    for packet in (file(b"g").packet, b"", data(0, b"x"), b"\xff", FIN):
        call.receive(packet)
        assert (call.produce(1 << 16), call.finished) == ([], False)
    with pytest.raises(CallStatus, match="the daemon sent the path"):
        call.half_close()
    assert look(fence.root) == {}


def test_a_stream_that_ends_too_early(fence: Fence) -> None:
    call = fence.receiver({})
    call.receive(file(b"f", b"x").packet)
    with pytest.raises(CallStatus, match="before it was complete"):
        call.half_close()


def test_a_listing_without_an_end(fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive_tree, "LISTING", 10_000)
    call = fence.receiver({})
    with pytest.raises(CallStatus, match="of names before their contents"):
        feed(call, *(file(b"%09d" % number, b"x").packet for number in range(10_000)))
    call.cancel()


def test_not_everything_is_asked_for_at_once(fence: Fence) -> None:
    call = fence.receiver({})
    count = receive_tree.OUTSTANDING * 2
    for number in range(count):
        call.receive(file(b"%09d" % number).packet)
    asked = []
    for _turn in range(count):
        asked += [fsutil.Packet.FromString(packet).ID for packet in call.produce(1 << 12)]
    assert asked == list(range(receive_tree.OUTSTANDING))
    call.receive(data(3, b""))
    assert [fsutil.Packet.FromString(packet).ID for packet in call.produce(1 << 12)] == [receive_tree.OUTSTANDING]
    call.cancel()


@pytest.mark.parametrize(("number", "content"), [(1, LARGE), (3, b"x")], ids=["large", "small"])
def test_links_that_others_put_there(fence: Fence, number: int, content: bytes) -> None:
    """In the destination before, or while the transfer runs."""
    (fence.root / "a").symlink_to(fence.outside)
    (fence.root / "f").symlink_to(fence.outside / "file")
    received(fence.root, folder(b"a"), file(b"a/file", b"new"), file(b"f", b"new"))
    fence.check()
    assert not (fence.root / "a").is_symlink()

    call = fence.receiver({})
    for item in (folder(b"a"), file(b"a/large", LARGE), folder(b"b"), file(b"b/small", b"x")):
        call.receive(item.packet)
    call.receive(b"")
    call.produce(1 << 16)
    for name in ("a", "b"):
        (fence.root / name).rename(fence.root / f"{name}-moved")
        (fence.root / name).symlink_to(fence.outside)
    with pytest.raises(CallStatus, match="something on the way is no directory, or has become a link"):
        feed(call, data(number, content), data(number, b""))
    call.cancel()
    fence.check()


class Fence:
    """A destination between things that must not change."""

    def __init__(self, around: Path) -> None:
        self.outside, self.root = around / "outside", around / "root"
        self.outside.mkdir()
        self.root.mkdir()
        (self.outside / "file").write_bytes(b"untouched")
        (self.outside / "dir").mkdir()
        (around / "sentinel").write_bytes(b"untouched")
        (around / "open").symlink_to(self.root)
        self._around = around
        self.receiver = TreeReceiver(str(self.root))
        self._before = self._look()

    def _look(self) -> dict[bytes, Any]:
        inside = os.fsencode(self.root.name)
        found = {path: what for path, what in look(self._around).items() if path.split(b"/")[0] != inside}
        return {**found, b".": sorted(os.listdir(self._around))}

    def check(self) -> None:
        assert self._look() == self._before


@pytest.fixture
def fence(tmp_path: Path) -> Fence:
    (tmp_path / "around").mkdir()
    return Fence(tmp_path / "around")


# Random streams.

names = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b"x" * 300, b"\xff", b"outside", b"file"])
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join) | st.sampled_from([b"/", b"/etc/x", b"a\0"])
targets = st.sampled_from([b"a", b"../outside", b"../outside/file", b"/", b"..", b"b/c", b".", b"", b"a/b"])
kinds = st.sampled_from([stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO])


@st.composite
def hostile_items(draw: Callable[..., Any]) -> Item:
    kind = draw(kinds)
    linked = kind == stat.S_IFLNK or (kind == stat.S_IFREG and draw(st.booleans()))
    size = draw(st.sampled_from([0, 1, 5, 1 << 40, -1]))
    fields: dict[str, Any] = {"linkname": draw(targets)} if linked else {}
    time = draw(st.sampled_from([0, TIME, -1, -(1 << 63), (1 << 63) - 1]))
    return Item(draw(paths), kind | draw(st.sampled_from([0, 0o644, 0o755, 0o7777])), size=size, modTime=time, **fields)


packets = (
    hostile_items().map(lambda item: item.packet)
    | st.tuples(st.integers(0, 8), st.binary(max_size=8)).map(lambda pair: data(*pair))
    | st.sampled_from([b"", FIN, b"\x08\x01", b"\x08\x04\x22\x01x"])
    | st.binary(max_size=12)
)


def fed(call: Call, stream: list[bytes]) -> Iterator[None]:
    """A stream until the call is over, each way out of it allowed."""
    try:
        for packet in stream:
            call.receive(packet)
            for _turn in range(20):
                call.produce(1 << 12)
            yield
        call.half_close()
    except (CallStatus, BuildxError):
        pass
    finally:
        call.cancel()


def around(tmp_path: Path) -> Fence:
    directory = tmp_path / os.urandom(8).hex()
    directory.mkdir()
    return Fence(directory)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=st.lists(packets, max_size=25), delete=st.booleans())
def test_nothing_outside_changes_whatever_is_sent(tmp_path: Path, stream: list[bytes], delete: bool) -> None:
    fence = around(tmp_path)
    (fence.root / "a").symlink_to(fence.outside)
    (fence.root / "b").mkdir()
    (fence.root / "b" / "c").symlink_to("..")
    for _step in fed(TreeReceiver(str(fence.root), delete=delete)(WAY), stream):
        fence.check()
    fence.check()
    assert not [path for path in look(fence.root) if b".buildx-" in path], "nothing is left aside"


@st.composite
def trees(draw: Callable[..., Any]) -> list[Item]:
    """A tree that a daemon could send, in its order."""
    items: list[Item] = []
    linkable: list[bytes] = []

    def fill(prefix: bytes, depth: int) -> None:
        for name in sorted(
            draw(st.sets(st.sampled_from([b"a", b"a-b", b"b", b"\xc3\xa4", b"\xff", b"z z"]), max_size=4))
        ):
            path, what = prefix + name, draw(st.integers(0, 5))
            if what <= 1 and depth < 3:
                items.append(folder(path, draw(st.sampled_from([0o755, 0o700, 0o555, 0o2770]))))
                fill(path + b"/", depth + 1)
            elif what == 2:
                items.append(link(path, draw(st.sampled_from([b"a", b"/nowhere", b"..", b"b/a"]))))
            elif what == 3 and linkable:
                items.append(hard(path, draw(st.sampled_from(linkable))))
            else:
                content = draw(st.binary(max_size=20) | st.sampled_from([b"same", b"x" * 300]))
                items.append(file(path, content, draw(st.sampled_from([0o644, 0o600, 0o4755, 0]))))
                linkable.append(path)

    fill(b"", 0)
    return items


def expected(items: list[Item]) -> dict[bytes, Any]:
    first = {item.stat.path: item for item in items}
    found = {}
    for item in items:
        source = first[item.stat.linkname] if item.stat.linkname in first and item.stat.mode >> 27 == 0 else item
        content = item.stat.linkname if item.stat.mode >> 27 & 1 else source.content
        found[item.stat.path] = (oct(_mode(source)), source.stat.modTime, content)
    return found


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=trees(), after=trees(), chunk=st.sampled_from([1, 7, 1000]), small=st.sampled_from([0, 10, 1 << 17]))
def test_any_tree_over_any_other(tmp_path: Path, before: list[Item], after: list[Item], chunk: int, small: int) -> None:
    root = tmp_path / os.urandom(8).hex()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(landing, "SMALL", small)
        received(root, *before, chunk=chunk)
        receiver = received(root, *after, chunk=chunk, delete=True)
        assert look(root) == expected(after)
        contents = [
            {path: (mode, content) for path, (mode, _t, content) in expected(tree).items()} for tree in (before, after)
        ]
        assert receiver.differs or contents[0] == contents[1]
        assert counts(received(root, *after, chunk=chunk, delete=True)) == (0, 0, 0)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees(), position=st.integers(0, 400), value=st.integers(0, 255), cut=st.booleans())
def test_a_tree_with_a_byte_of_another(tmp_path: Path, tree: list[Item], position: int, value: int, cut: bool) -> None:
    fence = around(tmp_path)
    stream = [item.packet for item in tree] + [b""]
    for number, item in enumerate(tree):
        if item.content is not None:
            stream += [data(number, item.content)] if item.content else []
            stream.append(data(number, b""))
    stream.append(FIN)
    for number, packet in enumerate(stream):
        if position < len(packet):
            stream[number] = packet[:position] + (b"" if cut else bytes([value])) + packet[position + 1 :]
            break
        position -= len(packet)
    for _step in fed(fence.receiver({}), stream):
        pass
    fence.check()
