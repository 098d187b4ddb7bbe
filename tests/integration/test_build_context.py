# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contexts as the daemon gets them: byte for byte what the real CLI gives to the same daemon.

Layers are compared by their diff id, of builds that take nothing from the cache: it covers names, order,
types, modes, owners, sizes, times, link targets, attributes and content. The times are whole seconds, so what is
made during a build, and not sent, must not be among them.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench

STAMP = 1_600_000_000_123_456_789
ALL = "FROM scratch\nCOPY . /\n"


@pytest.fixture
def layers() -> Callable[[Bench, Path], tuple[list[str], list[str]]]:
    """Build a context with the module and with the CLI, both without the cache: the diff ids of both images."""

    def of_both(bench: Bench, path: Path) -> tuple[list[str], list[str]]:
        ours, theirs = bench.image(), bench.image()
        result = bench.build(path, name=ours, nocache=True)
        bench.buildx("build", "--builder", bench.name, "--no-cache", "--load", "-t", theirs, str(path))
        return result["image"]["RootFS"]["Layers"], bench.inspect(theirs)["RootFS"]["Layers"]

    return of_both


def make_tree(root: Path) -> None:
    """Everything that a directory can hold."""
    base = os.fsencode(root)

    def file(name: bytes, content: bytes = b"x", mode: int = 0o644) -> bytes:
        path = os.path.join(base, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(content)
        os.chmod(path, mode)
        return path

    file(b"a/b/c/d/e/deep", b"deep")
    for mode in (0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1644, 0o000):
        file(b"modes/%o" % mode, mode=mode)
    for mode in (0o755, 0o700, 0o1777, 0o2775):
        (root / f"dirs/{mode:o}").mkdir(parents=True)
        (root / f"dirs/{mode:o}").chmod(mode)
    file(b"empty", b"")
    targets = {
        b"rel": b"modes/644",
        b"abs": b"/etc/passwd",
        b"dangling": b"../nowhere",
        b"todir": b"a/b",
        b"self": b".",
    }
    for name, target in targets.items():
        os.symlink(target, os.path.join(base, name))
    one = file(b"hard/one", b"linked")
    for name in (b"hard/two", b"a/three"):
        os.link(one, os.path.join(base, name))
    for text in ("with space", "ünï/cödé", "日本", "a-b", "a.b", "a/c", "line\nfeed", "quote\"'", "per%41cent+"):
        file(b"names/" + text.encode())
    file(b"names/\xff\xfe", b"no UTF-8")
    os.mkfifo(os.path.join(base, b"fifo"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(base, b"sock"))
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(file(b"xattr"), "user.note", b"value\0\xff")
    for number in range(2000):
        file(b"many/%02d/%d" % (number % 40, number), b"%d" % number)
    file(b"big", os.urandom(1 << 20) * 50)
    file(b"owned")
    os.chown(root / "owned", 1234, 5678)


def set_times(root: Path) -> None:
    for directory, names, files in os.walk(os.fsencode(root), topdown=False):
        for name in names + files:
            path = os.path.join(directory, name)
            os.utime(path, ns=(STAMP + len(name),) * 2, follow_symlinks=False)


def transferred(log: list[str]) -> int:
    """Bytes of the context that went to the daemon, as the log tells them."""
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    sizes = [re.search(r"transferring context: ([\d.]+)([kMG]?B)", line) for line in log]
    return int(max(float(found[1]) * units[found[2]] for found in sizes if found))


def test_tree(ready: Bench, tmp_path: Path, layers: Callable[[Bench, Path], tuple[list[str], list[str]]]) -> None:
    """A tree with everything, 2000 small files and one of 50 MB is as the CLI sends it; later only changes move."""
    path = tmp_path / "tree"
    path.mkdir()
    make_tree(path)
    (path / "Dockerfile").write_text(ALL)
    set_times(path)

    ours, theirs = layers(ready, path)

    assert ours == theirs
    again = ready.build(path)
    assert again["executed"] == [], "the cache keys are not those of the CLI's build"
    assert transferred(again["log_tail"]) < 1_000_000
    (path / "many/00/0").write_text("changed")
    changed = ready.build(path)
    assert len(changed["executed"]) == 1
    assert transferred(changed["log_tail"]) < 1_000_000


@pytest.mark.parametrize(
    "copy",
    ["rel todir/c names", "mod* hard a/three", "todir", "--link n*/a?b ünï*", "empty-dir link-out/ kept"],
    ids=["links", "patterns", "link to a directory", "bytes", "directories"],
)
def test_parts(
    ready: Bench, tmp_path: Path, copy: str, layers: Callable[[Bench, Path], tuple[list[str], list[str]]]
) -> None:
    """What COPY names is sent, links followed, and nothing is missing."""
    path = tmp_path / "parts"
    for directory in ("a/b/c", "names", "modes", "hard", "empty-dir", "kept/in/it", "ünï"):
        (path / directory).mkdir(parents=True)
    for name in ("a/b/c/deep", "names/a-b", "names/a.b", "modes/644", "modes/755", "hard/one", "kept/in/it/x", "ünï/x"):
        (path / name).write_text(name)
    (path / "a/three").hardlink_to(path / "hard/one")
    for name, target in (("rel", "modes/644"), ("todir", "a/b"), ("link-out", "kept/in")):
        (path / name).symlink_to(target)
    # To the root: a directory that COPY makes by itself has the time at which the last file came into it.
    (path / "Dockerfile").write_text(f"FROM scratch\nCOPY {copy} /\n")
    set_times(path)

    ours, theirs = layers(ready, path)

    assert ours == theirs


def test_equal_looks_are_not_equal_content(ready: Bench, tmp_path: Path) -> None:
    """Directories whose files have the same names, sizes and times keep their own contents, even with equal names."""
    paths = [tmp_path / "one/context", tmp_path / "two/context", tmp_path / "two/other"]
    for number, path in enumerate(paths):
        path.mkdir(parents=True)
        (path / "file").write_text(f"content {number}")
        (path / "Dockerfile").write_text(ALL + f"LABEL n={number}\n")
        set_times(path)
    name = ready.image()

    for number, path in [*enumerate(paths), (0, paths[0])]:
        ready.build(path, name=name)

        container = ready.docker("create", name, "none").strip()
        assert ready.run("sh", "-c", f"docker cp {container}:/file - | tar -xO").stdout == f"content {number}"
        ready.docker("rm", container)


def test_path_of_the_context(ready: Bench, tmp_path: Path) -> None:
    """A context may have any name, and be reached through a link or with dots in its path."""
    real = tmp_path / "ünï cödé: 日本 %41+"
    real.mkdir()
    (real / "Dockerfile").write_text(ALL)
    (tmp_path / "link").symlink_to(real.name)
    name = ready.image()

    results = [ready.build(path, name=name) for path in (real, tmp_path / "link", tmp_path / "link/../link/.")]

    assert [result["changed"] for result in results] == [True, False, False]


def test_empty_context(ready: Bench, tmp_path: Path) -> None:
    """A directory that .dockerignore empties, with the Dockerfile elsewhere, is a context too."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "Other").write_text(ALL)

    result = ready.build(tmp_path / "empty", dockerfile=str(tmp_path / "Other"))

    assert [step.split("] ")[1] for step in result["executed"]] == ["COPY . /"]
