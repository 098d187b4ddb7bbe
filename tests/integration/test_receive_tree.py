# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Local outputs of the real daemon, next to what the CLI makes of the same result."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import FileSend
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive_tree import TreeReceiver
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

if TYPE_CHECKING:
    from conftest import Driven

ODD = r"""
FROM scratch AS base
ADD root.tar /
RUN mkdir -p /odd/deep/er "/odd/a b" /odd/empty && cd /odd \
 && printf one > one && ln one two && ln one deep/three && ln -s one link && ln -s /nowhere/at/all deep/dangling \
 && printf secret > private && chmod 0600 private && printf x > set && chmod 6755 set && chmod 1777 empty \
 && : > nothing && mkfifo pipe && mknod null c 1 3 && mknod loop b 7 0 && chmod 0 nothing \
 && printf '\377' > "$(printf 'na\377me')" && printf q > 'a b/q' && chown 1000:1001 'a b' 'a b/q' one \
 && dd if=/dev/urandom of=big bs=1000 count=1234 2>/dev/null \
 && chmod 0500 deep && touch -d @1000000000 deep/er one empty
FROM scratch
COPY --from=base /odd /
"""
"""Everything that a tree may hold."""


def tree(root: Path) -> dict[str, Any]:
    """Every entry below a directory, with all that can be seen of it; names of one file by the first of them."""
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for path in sorted(root.rglob("*"), key=os.fsencode):
        info = path.lstat()
        first = inodes.setdefault(info.st_ino, str(path.relative_to(root)))
        found[str(path.relative_to(root))] = (
            oct(info.st_mode),
            (info.st_uid, info.st_gid),
            info.st_mtime_ns,
            first,
            info.st_rdev if not stat.S_ISREG(info.st_mode) else None,
            path.read_bytes() if stat.S_ISREG(info.st_mode) else None,
            os.readlink(path) if path.is_symlink() else None,
            {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)},
        )
    return found


class Exports:
    """One result through the client and through the CLI, each into a directory of its own."""

    def __init__(self, driven: Driven, context: Path, root: Path) -> None:
        self.driven, self.context = driven, context
        self.ours, self.theirs = root / "ours", root / "theirs"

    def our(self, frontend: Mapping[str, str] | None = None, **attrs: str) -> TreeReceiver:
        receiver = TreeReceiver(str(self.ours), delete=attrs.get("mode") == "delete")
        services = [FileSend({0: receiver})]
        self.driven.solve(self.context, services=services, exporters=[("local", attrs)], frontend=frontend)
        return receiver

    def their(self, *options: str, **attrs: str) -> None:
        bench = self.driven.bench
        output = ",".join(["type=local", f"dest={self.theirs}", *(f"{key}={value}" for key, value in attrs.items())])
        bench.buildx(
            "build", "--builder", bench.name, *options, "-o", output, "--allow=buildx.local.delete", str(self.context)
        )

    def same(self) -> bool:
        ours, theirs = tree(self.ours), tree(self.theirs)
        assert ours == theirs
        return stat.S_IMODE(self.ours.stat().st_mode) == stat.S_IMODE(self.theirs.stat().st_mode)


@pytest.fixture
def exports(driven: Driven, context: Callable[..., Path], tmp_path: Path) -> Callable[[str], Exports]:
    """`exports(dockerfile)`."""
    return lambda dockerfile: Exports(driven, context(dockerfile), tmp_path)


def test_everything_that_a_tree_holds_as_the_cli_writes_it(exports: Callable[[str], Exports]) -> None:
    both = exports(ODD)
    received = both.our()
    both.their()
    assert both.same()
    assert (received.created, received.changed, received.deleted) == (len(tree(both.ours)), 0, 0)
    before = tree(both.ours)
    assert not both.our().differs
    assert tree(both.ours) == before


def test_over_what_is_there(exports: Callable[[str], Exports]) -> None:
    """Links and directories in place of files and the reverse, and what is no part of the result."""
    both = exports(ODD)
    for root in (both.ours, both.theirs):
        (root / "deep" / "er" / "old").mkdir(parents=True)
        (root / "one").mkdir()
        (root / "one" / "below").write_text("x")
        (root / "a b").symlink_to("/etc")
        (root / "link").write_text("no link")
        (root / "big").write_text("too short")
        (root / "private").symlink_to("../elsewhere")
        (root / "other").write_text("stays")
        os.utime(root / "deep" / "er" / "old", ns=(0, 0))
        os.utime(root / "other", ns=(0, 0))
    received = both.our()
    both.their()
    ours, theirs = tree(both.ours), tree(both.theirs)
    del ours["deep"], theirs["deep"]  # whose time the CLI sets before it writes into it
    assert ours == theirs
    assert received.changed >= 5
    assert not (both.ours.parent / "elsewhere").exists()


def test_deletion(exports: Callable[[str], Exports], tmp_path: Path) -> None:
    both = exports("FROM scratch\nCOPY Dockerfile /a/\nCOPY Dockerfile /b\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("x")
    for root in (both.ours, both.theirs):
        (root / "a" / "old" / "older").mkdir(parents=True)
        (root / "a" / "old" / "older" / "file").write_text("x")
        (root / "c").symlink_to(tmp_path / "outside")
        (root / "b").mkdir()
        (root / "b" / "x").write_text("x")
    if both.driven.older_than(31):
        with pytest.raises(BuildxError, match=r"mode=delete of a local output needs .* v0\.31 or newer"):
            both.our(mode="delete")
        assert (both.ours / "b" / "x").exists()
        return
    received = both.our(mode="delete")
    both.their(mode="delete")
    ours, theirs = tree(both.ours), tree(both.theirs)
    assert {path: (what[0], what[5]) for path, what in ours.items()} == {
        path: (what[0], what[5]) for path, what in theirs.items()
    }
    assert received.deleted == 4
    assert (tmp_path / "outside" / "kept").exists()
    assert not both.our(mode="delete").differs


def test_attestations_and_platforms(exports: Callable[[str], Exports]) -> None:
    both = exports("FROM scratch\nCOPY Dockerfile /f\n")
    platforms = "linux/amd64,linux/arm64"
    received = both.our({"platform": platforms, "attest:provenance": "mode=max"})
    both.their("--platform", platforms, "--provenance=mode=max")
    assert {"linux_amd64", "linux_amd64/f", "linux_arm64", "linux_arm64/provenance.json"} <= set(tree(both.ours))
    assert {path: what[0] for path, what in tree(both.ours).items()} == {
        path: what[0] for path, what in tree(both.theirs).items()
    }
    assert received.created == len(tree(both.ours))


def test_what_cannot_be_written_is_the_builds_error(exports: Callable[[str], Exports]) -> None:
    both = exports("FROM scratch\nADD root.tar /\n")
    both.ours.mkdir()
    run = both.driven.bench.run
    run("mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(both.ours))
    try:
        with pytest.raises(BuildxError, match=f"cannot write {both.ours}/bin/.*: No space left on device"):
            both.our()
        assert not [path for path in both.ours.rglob("*") if path.name.startswith(".buildx-")], "nothing is left aside"
    finally:
        run("umount", str(both.ours))


def test_extended_attributes(driven: Driven, tmp_path: Path) -> None:
    path = tmp_path / "context"
    (path / "sub").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for name in ("plain", "able", "large"):
        (path / name).write_bytes(name.encode() * (1 if name != "large" else 100_000))
        os.setxattr(path / name, "user.word", name.encode())
    os.setxattr(path / "able", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(path / "sub", "user.word", b"of a directory")
    both = Exports(driven, path, tmp_path)
    both.our()
    both.their()
    assert both.same()
    assert os.getxattr(both.ours / "able", "user.word") == b"able"
    assert os.getxattr(both.ours / "sub", "user.word") == b"of a directory"
    assert not both.our().differs
