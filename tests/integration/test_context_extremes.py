# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contexts that change while they are sent, that cannot be read, and that are very large.

The client runs in the test's own process where something has to happen at one point of a transfer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import filesync
from tests.fuzz.builds import Inputs, Ours

if TYPE_CHECKING:
    from conftest import Bench

SIZE = 3 << 20
"""Bytes of the file that changes: more than one turn sends."""
STAMP = 1_600_000_000_000_000_000


class Transfer:
    """A client whose next build changes the context at one point of the sending of a file."""

    def __init__(self, ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours = ours
        self._patch = monkeypatch

    def build(self, inputs: Inputs, name: str, at: int, change: Callable[[], object]) -> tuple[str, str]:
        """(digest of the image, error). at: bytes of the file that were read before; 0 for before it is opened."""
        opened, read = filesync._Tree.open, os.read
        left, watched, changed = [at], [-1], []

        def opening(tree: filesync._Tree, path: bytes) -> int:
            mine = path == name.encode()
            if mine and not at:
                changed.append(change())
            descriptor = opened(tree, path)
            watched[0] = descriptor if mine and at else watched[0]
            return descriptor

        def reading(descriptor: int, size: int) -> bytes:
            data = read(descriptor, size)
            if descriptor == watched[0] and left[0] > 0:
                left[0] -= len(data)
                if left[0] <= 0:
                    changed.append(change())
            return data

        with self._patch.context() as patch:
            patch.setattr(filesync._Tree, "open", opening)
            patch.setattr(os, "read", reading)
            result = self.ours.build(inputs)
        assert len(changed) == 1
        return result.image, result.error


@pytest.fixture
def fresh(ready: Bench) -> Iterator[Ours]:
    """A client whose builds share nothing with other builds: what a context makes when it does not change."""
    made = Ours(ready.inspect(), lambda _inputs: uuid.uuid4().hex)
    yield made
    made.close()


@pytest.fixture
def transfer(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transfer]:
    made = Ours(ready.inspect())
    yield Transfer(made, monkeypatch)
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A context with a file that changes, between others."""
    path = tmp_path / "context"
    path.mkdir()
    (path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (path / "a").write_text("before")
    (path / "b").write_bytes(os.urandom(SIZE))
    (path / "c").write_text("behind")
    for each in path.iterdir():
        os.utime(each, ns=(STAMP, STAMP))
    return path


def grow(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more" * 100_000)


def shrink(file: Path) -> None:
    os.truncate(file, SIZE // 2 + 1)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def replace(file: Path) -> None:
    other = file.parent.parent / "other"
    other.write_bytes(b"other")
    other.rename(file)


def vanish(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("at", [0, SIZE // 3], ids=["before", "meanwhile"])
@pytest.mark.parametrize("change", [grow, shrink, empty, replace], ids=lambda change: change.__name__)
def test_a_file_that_changes(
    transfer: Transfer, fresh: Ours, path: Path, change: Callable[[Path], None], at: int
) -> None:
    """The build has it in one state or another, and the next one as it is then: no copy of what was is kept."""
    _image, error = transfer.build(Inputs(str(path)), "b", at, lambda: change(path / "b"))
    assert not error

    again = transfer.ours.build(Inputs(str(path)))

    assert again == fresh.build(Inputs(str(path)))


def a_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("change", [vanish, a_link, a_directory, a_fifo], ids=lambda change: change.__name__)
def test_a_file_that_is_none_any_more(
    transfer: Transfer, fresh: Ours, path: Path, change: Callable[[Path], None]
) -> None:
    """The build fails, and says which; the next one has what is there."""
    image, error = transfer.build(Inputs(str(path)), "b", 0, lambda: change(path / "b"))
    assert not image
    assert f"cannot read {path}/b: " in error

    again = transfer.ours.build(Inputs(str(path)))

    assert again.image
    assert again == fresh.build(Inputs(str(path)))


def test_a_file_that_vanishes_while_it_is_read(transfer: Transfer, fresh: Ours, path: Path) -> None:
    """What is open can be read to its end."""
    whole = fresh.build(Inputs(str(path)))

    image, error = transfer.build(Inputs(str(path)), "b", SIZE // 3, lambda: vanish(path / "b"))

    assert (image, error) == (whole.image, "")
    assert transfer.ours.build(Inputs(str(path))) == fresh.build(Inputs(str(path)))


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_the_user_cannot_read(ready: Bench, path: Path, kind: str) -> None:
    """The build fails and names it: an empty file in the image, as the CLI makes of it, would go unnoticed."""
    closed = path / "closed"
    closed.mkdir() if kind == "directory" else closed.write_text("secret")
    closed.chmod(0)
    os.chown(closed, 1234, 1234)
    ready.prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")

    failed = ready.failed_build(path)

    assert f"cannot read {closed}: Permission denied" in failed["msg"]
    (path / ".dockerignore").write_text("closed\n")
    ready.build(path)


LARGE = """
import os, resource, sys
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.walk import varint

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

call = FileSync({"context": sys.argv[1]}).methods()["/moby.filesync.v1.FileSync/DiffCopy"]({"dir-name": ("context",)})
before, stats, ended, largest, paths, open_ = peak(), 0, 0, 0, [], 0
while not paths or paths[-1] is not None or open_:
    packets = call.produce(1 << 16)
    largest = max(largest, sum(map(len, packets)))
    for packet in packets:
        if packet[:1] == b"\\x12":  # STAT; asked for at once when it is a file
            size = packet[1] + 2 if packet[1] < 128 else (packet[1] & 127) + (packet[2] << 7) + 3
            assert size == len(packet)
            body = packet[3 if size > 129 else 2:]
            paths.append(body[2:2 + body[1]])
            if b"file" in paths[-1]:
                call.receive(b"\\x08\\x01\\x18" + varint(len(paths) - 1))
                open_ += 1
        elif not packet:
            paths.append(None)
        else:
            open_ -= 1  # an empty file is its end alone
grown = peak() - before
assert paths.pop() is None
assert paths == sorted(paths, key=lambda path: path.split(b"/")), "out of order"
print(len(paths), len(set(paths)), largest, grown)
"""


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: disks take long for many files."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as directory:
        yield Path(directory)


def test_a_hundred_thousand_entries(quick_directory: Path) -> None:
    """All of them, in order, a turn's budget at a time, in little memory; half of them in one directory.

    Without a daemon, which would take a minute; `make bench` sends as many to one.
    """
    for name, count in (("wide", 50_000), *((f"deep/{number}", 500) for number in range(100))):
        (quick_directory / name).mkdir(parents=True)
        directory = os.open(quick_directory / name, os.O_RDONLY)
        for number in range(count):
            os.mknod(f"file{number}", 0o100644, dir_fd=directory)
        os.close(directory)

    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(quick_directory)], capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr
    entries, different, largest, grown = map(int, done.stdout.split())
    assert entries == different == 100_102
    assert largest < 80_000
    assert grown < 32, "MiB, the names that this test keeps among them"
