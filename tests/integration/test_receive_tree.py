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
    from conftest import Bench, Driven

ODD = r"""
FROM scratch AS base
ADD root.tar /
RUN mkdir -p /odd/deep/er "/odd/a b" /odd/empty && cd /odd \
 && printf one > one && ln one two && ln one deep/three && ln -s one link && ln -s /nowhere/at/all deep/dangling \
 && printf secret > private && chmod 0600 private && printf x > set && chmod 6755 set && chmod 1777 empty \
 && : > nothing && mkfifo pipe && mknod null c 1 3 && mknod loop b 7 0 && chmod 0 nothing \
 && printf '\377' > "$(printf 'na\377me')" && printf q > 'a b/q' && chown 1000:1001 'a b' 'a b/q' one \
 && dd if=/dev/urandom of=big bs=1000 count=1234 2>/dev/null && chmod 0500 deep && touch -d @1000000000 deep/er one empty
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


def export(
    driven: Driven, context: Path, destination: Path, frontend: Mapping[str, str] | None = None, **attrs: str
) -> TreeReceiver:
    receiver = TreeReceiver(str(destination), delete=attrs.get("mode") == "delete")
    driven.solve(context, services=[FileSend({0: receiver})], exporters=[("local", attrs)], frontend=frontend)
    return receiver


def test_everything_that_a_tree_holds_as_the_cli_writes_it(
    driven: Driven, context: Callable[..., Path], tmp_path: Path
) -> None:
    path = context(ODD)
    ours = export(driven, path, tmp_path / "ours")
    driven.bench.buildx("build", "--builder", driven.bench.name, "-o", str(tmp_path / "theirs"), str(path))
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "theirs").stat().st_mode)
    assert ours.created == len(tree(tmp_path / "ours"))


def both(driven: Driven, context: Path, root: Path, *outputs: str, **attrs: str) -> TreeReceiver:
    """The same result through the client and through the CLI, in two directories that are then compared."""
    ours = export(driven, context, root / "ours", **attrs)
    option = ",".join(["type=local", f"dest={root / 'theirs'}", *(f"{key}={value}" for key, value in attrs.items())])
    environment = driven.bench.environment
    done = driven.bench.run(
        "docker", "buildx", "build", "--builder", driven.bench.name, *outputs, "-o", option, str(context)
    )
    assert done.returncode == 0, environment
    return ours


def test_extended_attributes(driven: Driven, tmp_path: Path) -> None:
    path = tmp_path / "context"
    (path / "sub").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for name in ("plain", "able", "large"):
        (path / name).write_bytes(name.encode() * (1 if name != "large" else 100_000))
        os.setxattr(path / name, "user.word", name.encode())
    os.setxattr(path / "able", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(path / "sub", "user.word", b"of a directory")
    ours = both(driven, path, tmp_path)
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")
    assert os.getxattr(tmp_path / "ours" / "able", "user.word") == b"able"
