# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results that become one file: whole or not at all, and whether it is another one than before."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import METHOD, FileSend, streamed
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive_file import FileReceiver
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Call, CallStatus
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.wirebytes import bytes_message
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def opened(receiver: FileReceiver) -> Call:
    return FileSend({0: streamed(receiver)}).methods()[METHOD]({})


def received(path: Path, *parts: bytes) -> FileReceiver:
    receiver = FileReceiver(str(path))
    call = opened(receiver)
    for part in parts:
        call.receive(bytes_message(part))
        assert call.produce(1 << 16) == []
        assert not call.finished
    call.half_close()
    assert (call.produce(1 << 16), call.finished) == ([], True)
    call.cancel()  # as the session does with every call
    return receiver


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_new_file_with_the_directories_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "result.tar"
    receiver = received(path, b"one", b"", b"two")
    assert path.read_bytes() == b"onetwo"
    assert (receiver.changed, receiver.size) == (True, 6)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o750
    assert os.listdir(path.parent) == [path.name]


def test_what_is_not_complete_is_for_its_owner_alone(tmp_path: Path) -> None:
    call = opened(FileReceiver(str(tmp_path / "f")))
    call.receive(bytes_message(b"half"))
    [aside] = tmp_path.iterdir()
    assert (aside.name != "f", stat.S_IMODE(aside.stat().st_mode)) == (True, 0o600)
    call.cancel()
    assert list(tmp_path.iterdir()) == []


def test_equal_content_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    path.chmod(0o604)
    before = path.stat()
    receiver = received(path, b"con", b"tent")
    assert not receiver.changed
    assert path.stat() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("parts", [[b"conTent"], [b"con"], [b"content", b"s"], [], [b"", b"Xontent"]])
def test_other_content_replaces_it(tmp_path: Path, parts: list[bytes]) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    path.chmod(0o604)
    os.link(path, tmp_path / "other name")
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    receiver = received(path, *parts)
    assert receiver.changed
    assert path.read_bytes() == b"".join(parts)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert (tmp_path / "other name").read_bytes() == b"content"


def test_half_of_a_result_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    call = opened(FileReceiver(str(path)))
    call.receive(bytes_message(b"new"))
    call.cancel()
    call.cancel()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_means_the_file_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real/file")
    received(link, b"content")
    assert link.is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"content"


def test_what_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"destination file .* is a directory"):
        FileReceiver(str(tmp_path))
    with pytest.raises(ConfigError, match=r"destination file .* is a directory"):
        FileReceiver(f"{tmp_path}/new/")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is no regular file"):
        FileReceiver(str(tmp_path / "pipe"))
    with pytest.raises(ConfigError, match="is no regular file"):
        FileReceiver("/dev/null")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(CallStatus, match=r"cannot write .*/f/below: something on the way is no directory"):
        opened(FileReceiver(str(tmp_path / "f" / "below")))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        call = opened(FileReceiver(str(tmp_path / "large")))
        call.receive(bytes_message(b"x" * 900))
        with pytest.raises(CallStatus, match=r"cannot write .*/large: File too large"):
            call.receive(bytes_message(b"x" * 900))
        call.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
