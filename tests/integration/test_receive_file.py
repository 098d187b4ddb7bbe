# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results that become one file, next to the file that the CLI makes of them."""

from __future__ import annotations

import stat
import tarfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import FileSend, streamed
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive_file import (
    FileReceiver,
    archived_identity,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

if TYPE_CHECKING:
    from conftest import Driven

ATTRS: Mapping[str, Mapping[str, str]] = {"tar": {}, "oci": {"name": "a/b:v1"}, "docker": {"name": "a/b:v1"}}


def members(path: Path) -> dict[str, Any]:
    """What an archive holds; an index says when it was made, so that of JSON only the kind counts."""
    with tarfile.open(path) as archive:
        return {
            item.name: (item.type, item.mode, item.uid, item.gid, item.linkname)
            + (() if item.name == "index.json" else (item.size, item.mtime))
            for item in archive
        }


def export(driven: Driven, context: Path, kind: str, path: Path) -> FileReceiver:
    receiver = FileReceiver(str(path), None if kind == "tar" else archived_identity)
    driven.solve(context, services=[FileSend({0: streamed(receiver)})], exporters=[(kind, ATTRS[kind])])
    return receiver


@pytest.mark.parametrize("kind", ["tar", "oci", "docker"])
def test_a_file_as_the_cli_writes_it(driven: Driven, context: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    # What no build before has seen: a step that two of them have made has two times, and an image has either.
    path = context("FROM scratch\nCOPY word /\n", word=uuid.uuid4().hex * 1000)
    ours, theirs = tmp_path / "new/ours", tmp_path / "other/theirs"
    received = export(driven, path, kind, ours)
    name = "".join(f",name={value}" for value in ATTRS[kind].values())
    driven.bench.buildx(*("build", "--builder", driven.bench.name, "-o", f"type={kind},dest={theirs}{name}", str(path)))
    assert members(ours) == members(theirs)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (ours, ours.parent)] == [
        stat.S_IMODE(file.stat().st_mode) for file in (theirs, theirs.parent)
    ]
    assert (received.changed, received.size) == (True, ours.stat().st_size)
    before = ours.stat()
    assert not export(driven, path, kind, ours).changed, "the same result"
    assert kind != "tar" or ours.stat() == before, "and the same file, where it does not say when it was made"
    (path / "more").write_text("x")
    (path / "Dockerfile").write_text("FROM scratch\nCOPY word more /\n")
    assert export(driven, path, kind, ours).changed


def test_what_cannot_be_written_is_the_builds_error(
    driven: Driven, context: Callable[..., Path], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    driven.bench.run("mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small))
    try:
        (small / "result.tar").write_text("old")
        with pytest.raises(BuildxError, match=f"cannot write {small}/result.tar: No space left on device"):
            export(driven, context("FROM scratch\nADD root.tar /\n"), "tar", small / "result.tar")
        assert [(file.name, file.read_text()) for file in small.iterdir()] == [("result.tar", "old")]
    finally:
        driven.bench.run("umount", str(small))
