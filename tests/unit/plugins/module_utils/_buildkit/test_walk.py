# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import walk
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.followpaths import followed, include_patterns
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import message
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.walk import (
    Selection,
    Walk,
    encode_stat,
    go_mode,
    varint,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "patterns" / "walk.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
Stat = message("fsutil.types.Stat")


def raw(text: str) -> bytes:
    return text.encode("latin-1")


def make(root: bytes, tree: list[list[Any]]) -> None:
    for name, kind, *argument in tree:
        path = os.path.join(root, raw(name))
        if kind == "dir":
            os.mkdir(path)
        elif kind == "link":
            os.symlink(raw(argument[0]), path)
        elif kind == "hard":
            os.link(os.path.join(root, raw(argument[0])), path, follow_symlinks=False)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            Path(os.fsdecode(path)).write_bytes(b"x" * argument[0])


def sent(root: Path, include: tuple[bytes, ...] = (), exclude: tuple[bytes, ...] = ()) -> list[Any]:
    selection = Selection(include, exclude) if include or exclude else None
    return [Stat.FromString(entry[0]) for entry in Walk(bytes(root), selection) if entry]


def names(root: Path, **filters: tuple[bytes, ...]) -> list[bytes]:
    return [each.path for each in sent(root, **filters)]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_same_entries_as_fsutil(case: dict[str, Any], tmp_path: Path) -> None:
    root = bytes(tmp_path)
    make(root, case["tree"])
    for each in case["filters"]:
        include, exclude, follow = (list(map(raw, each.get(key, ()))) for key in ("include", "exclude", "follow"))
        if "followed" in each:
            paths = each["followed"]
            assert followed(root, follow) == (None if paths is None else list(map(raw, paths))), each
        include = include_patterns(root, include, follow)
        found = [
            [each.path, each.linkname, each.size] if each.linkname else each.path
            for each in sent(tmp_path, tuple(include), tuple(exclude))
        ]
        wanted = [[raw(one[0]), raw(one[1]), one[2]] if isinstance(one, list) else raw(one) for one in each["sent"]]
        assert found == wanted, each


def test_the_corpus_is_there() -> None:
    filters = [each for case in CASES for each in case["filters"]]
    assert sum(len(each["sent"]) > 3 for each in filters) > 60
    assert sum("followed" in each for each in filters) > 80


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFREG | 0o6755, 0o755 | 1 << 23 | 1 << 22),
        (stat.S_IFDIR | 0o1777, 0o777 | 1 << 31 | 1 << 20),
        (stat.S_IFLNK | 0o777, 0o777 | 1 << 27),
        (stat.S_IFBLK | 0o600, 0o600 | 1 << 26),
        (stat.S_IFCHR | 0o600, 0o600 | 1 << 26 | 1 << 21),
        (stat.S_IFIFO | 0o600, 0o600 | 1 << 25),
        (stat.S_IFSOCK | 0o700, 0o700),
    ],
)
def test_modes_are_those_of_go(mode: int, wanted: int) -> None:
    assert go_mode(mode) == wanted


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16383, 16384, 2097151, 2097152, 1 << 31, (1 << 64) - 1])
def test_varints_are_those_of_protobuf(number: int) -> None:
    encoded, value, shift = varint(number), 0, 0
    for byte in encoded:
        value |= (byte & 127) << shift
        shift += 7
    assert value == number
    assert len(encoded) == max(1, (number.bit_length() + 6) // 7)


TIMES = [0, 1, -1, 10**9, 1 << 56, (1 << 56) - 1, 1_700_000_000_123_456_789, (1 << 63) - 1, -(10**18)]


@pytest.mark.parametrize("time", TIMES)
def test_stats_are_those_of_protobuf(time: int) -> None:
    class Info:
        st_mode, st_size, st_mtime_ns, st_rdev = stat.S_IFREG | 0o755, 70_000, time, 0

    wanted = Stat(path=b"a/\xff", mode=0o755, size=70_000, modTime=time)
    assert encode_stat(b"a/\xff", Info(), b"", ()) == wanted.SerializeToString()  # type: ignore[arg-type]


def test_all_fields_are_those_of_protobuf() -> None:
    class Device:
        st_mode, st_size, st_mtime_ns, st_rdev = stat.S_IFCHR, 0, 0, os.makedev(300, 70_000)

    encoded = encode_stat(b"dev", Device(), b"x" * 200, [(b"user.a", b"\0" * 300), (b"user.b", b"")])  # type: ignore[arg-type]
    found = Stat.FromString(encoded)
    assert (found.mode, found.devmajor, found.devminor) == (1 << 26 | 1 << 21, 300, 70_000)
    assert found.linkname == b"x" * 200
    assert [(each.key, each.value) for each in found.xattrs] == [(b"user.a", b"\0" * 300), (b"user.b", b"")]
    assert len(found.SerializeToString()) == len(encoded) - 2  # an empty value is spelled out, which is the same


def test_siblings_are_sorted_by_bytes_and_content_follows_its_directory(tmp_path: Path) -> None:
    make(
        bytes(tmp_path), [["a", "dir"], ["a/x", "file", 0], ["a-b", "file", 0], ["a.", "file", 0], ["\xff", "file", 0]]
    )
    assert names(tmp_path) == [b"a", b"a/x", b"a-b", b"a.", b"\xff"]


def test_owners_are_not_sent_and_directories_have_no_size(tmp_path: Path) -> None:
    make(bytes(tmp_path), [["d", "dir"], ["f", "file", 5]])
    if os.geteuid() == 0:
        os.chown(tmp_path / "f", 1000, 1001)
    os.utime(tmp_path / "f", ns=(1, 1_234_567_890_123_456_789))
    directory, file = sent(tmp_path)
    assert (directory.size, directory.uid, directory.gid) == (0, 0, 0)
    assert (file.size, file.uid, file.gid, file.modTime) == (5, 0, 0, 1_234_567_890_123_456_789)


def test_the_first_name_that_is_kept_holds_the_file(tmp_path: Path) -> None:
    make(bytes(tmp_path), [["a", "file", 7], ["b", "hard", "a"], ["c", "hard", "a"]])
    assert [(each.path, each.linkname, each.size) for each in sent(tmp_path, exclude=(b"a",))] == [
        (b"b", b"", 7),
        (b"c", b"b", 7),
    ]


def test_only_what_has_content_may_be_asked_for(tmp_path: Path) -> None:
    make(bytes(tmp_path), [["d", "dir"], ["f", "file", 1], ["g", "hard", "f"], ["h", "link", "f"], ["p", "fifo"]])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        entries = [entry for entry in Walk(bytes(tmp_path)) if entry]
    assert [content for _stat, content in entries] == [None, b"f", None, None, None, b""]
    assert Stat.FromString(entries[-1][0]).mode & 0o777000000 == 0


def test_extended_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()
    kept = {"user.a": b"\xff\0", "com.apple.quarantine": b"x", "trusted.secret": None}

    def get(path: bytes, name: str, *, follow_symlinks: bool) -> bytes:
        assert not follow_symlinks
        value = kept[name]
        if value is None:
            raise PermissionError(errno.EPERM, "no")
        return value

    monkeypatch.setattr(walk, "_listxattr", lambda path, follow_symlinks: list(kept))
    monkeypatch.setattr(os, "getxattr", get)
    assert [(each.key, each.value) for each in sent(tmp_path)[0].xattrs] == [(b"user.a", b"\xff\0")]


def test_file_systems_without_extended_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()

    def refuse(path: bytes, follow_symlinks: bool) -> list[str]:
        raise OSError(errno.ENOTSUP, "no", path)

    monkeypatch.setattr(walk, "_listxattr", refuse)
    assert names(tmp_path) == [b"f"]
    monkeypatch.setattr(walk, "_listxattr", None)
    assert names(tmp_path) == [b"f"]


def test_dropped_parents_come_just_before_what_is_kept(tmp_path: Path) -> None:
    tree = [["a", "dir"], ["a/b", "dir"], ["a/b/c", "file", 0], ["a/b/d", "file", 0], ["a/x", "file", 0], ["z", "dir"]]
    make(bytes(tmp_path), tree)
    assert names(tmp_path, exclude=(b"*", b"!a/b/d")) == [b"a", b"a/b", b"a/b/d"]
    assert names(tmp_path, include=(b"a/b/c", b"a/x")) == [b"a", b"a/b", b"a/b/c", b"a/x"]
    assert names(tmp_path, include=(b"a",), exclude=(b"a/b", b"!a/b/d")) == [b"a", b"a/b", b"a/b/d", b"a/x"]
    assert names(tmp_path, include=(b" ",)) == []


def listed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    seen: list[bytes] = []
    scandir = os.scandir

    def record(path: bytes) -> Any:
        seen.append(os.path.basename(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", record)
    return seen


def test_directories_that_hold_nothing_wanted_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(bytes(tmp_path), [["a", "dir"], ["a/b", "dir"], ["c", "dir"]])
    seen = listed(monkeypatch)
    names(tmp_path, exclude=(b"a", b"c", b"!c/x"))
    assert seen[1:] == [b"c"]
    del seen[:]
    names(tmp_path, include=(b"a/b/**",))
    assert seen[1:] == [b"a", b"b"]
    del seen[:]
    names(tmp_path, exclude=(b"a", b"!**/x"))
    assert seen[1:] == [b"a", b"b", b"c"]


def failing_scandir(monkeypatch: pytest.MonkeyPatch, name: bytes, error: int) -> None:
    scandir = os.scandir

    def scan(path: bytes) -> Any:
        if path.endswith(name):
            raise OSError(error, os.strerror(error), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_an_unreadable_directory_fails_unless_it_is_filtered_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(bytes(tmp_path), [["a", "dir"], ["b", "dir"]])
    failing_scandir(monkeypatch, b"/a", errno.EACCES)
    with pytest.raises(PermissionError) as caught:
        names(tmp_path)
    assert caught.value.filename == bytes(tmp_path / "a")
    assert names(tmp_path, exclude=(b"a", b"!**/x")) == [b"b"]


def test_what_vanishes_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(bytes(tmp_path), [["a", "file", 1], ["b", "file", 1], ["c", "dir"], ["c/d", "file", 1], ["e", "dir"]])
    entries: Iterator[Any] = iter(Walk(bytes(tmp_path)))
    next(entries)
    os.unlink(tmp_path / "b")
    first = next(entries)
    os.unlink(tmp_path / "c" / "d")
    os.rmdir(tmp_path / "c")
    assert [Stat.FromString(entry[0]).path for entry in (first, *entries)] == [b"c", b"e"]


def test_a_long_way_without_an_entry_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "DROPPED_MAX", 2)
    make(bytes(tmp_path), [[f"f{number}", "file", 0] for number in range(5)] + [["z", "file", 0]])
    entries = list(Walk(bytes(tmp_path), Selection([], [b"f*"])))
    assert [entry is None for entry in entries] == [True, True, False]


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Walk(bytes(tmp_path / "none"))
