# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
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


def sync(root: Path, budget: int = 1 << 16, **metadata: tuple[str, ...]) -> Receiver:
    keys = {key.replace("_", "-"): values for key, values in metadata.items()}
    call = FileSync({"context": str(root)}).methods()[DIFF_COPY]({"dir-name": ("context",), **keys})
    return Receiver(call, budget).run()


def test_a_tree_arrives(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"x" * 100_000)
    (tmp_path / "a-b").write_bytes(b"")
    (tmp_path / "link").symlink_to("a/x")
    got = sync(tmp_path)
    assert [each.path for each in got.stats] == [b"a", b"a/x", b"a-b", b"link"]
    assert got.files == {b"a/x": b"x" * 100_000, b"a-b": b""}


def test_filters(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(sync(tmp_path, exclude_patterns=("a", "!a/b/c")).files) == [b"a/b/c", b"e"]
    assert list(sync(tmp_path, followpaths=("a/d",)).files) == [b"a/d"]


def test_a_file_that_vanished_fails_the_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    call = FileSync({"context": str(tmp_path)}).methods()[DIFF_COPY]({"dir-name": ("context",)})
    assert len(call.produce(1 << 16)) == 2
    os.unlink(tmp_path / "file")
    call.receive(packet(type=REQ))
    with pytest.raises(CallStatus, match="file") as caught:
        call.produce(1 << 16)
    assert caught.value.code == Code.FAILED_PRECONDITION
