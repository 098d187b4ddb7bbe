# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of images: the same image exported twice is no change, anything else is one."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.image_archive import same_image


def archive(path: Path, time: str = "1", names: str = "app:1", members: Mapping[str, bytes] | None = None) -> Path:
    """An archive as the oci exporter makes it; its index has the time of the export."""
    annotations = {"org.opencontainers.image.created": time, "io.containerd.image.name": names}
    index = {"schemaVersion": 2, "manifests": [{"digest": "sha256:1", "annotations": annotations}]}
    contents = {"blobs/sha256/1": b"manifest", "blobs/sha256/2": b"layer" * 1000, **(members or {})}
    with tarfile.open(path, "w") as made:
        for name, content in {**contents, "index.json": json.dumps(index).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def same(old: Path, new: Path) -> bool:
    with old.open("rb") as before, new.open("rb") as after:
        before.seek(3)
        return same_image(before.fileno(), after.fileno())


def test_only_the_time_differs(tmp_path: Path) -> None:
    assert same(archive(tmp_path / "old"), archive(tmp_path / "new", time="2"))


@pytest.mark.parametrize(
    "different",
    [{"names": "app:2"}, {"members": {"blobs/sha256/2": b"LAYER" * 1000}}, {"members": {"blobs/sha256/3": b""}}],
    ids=["name", "content of equal size", "one more"],
)
def test_anything_else(tmp_path: Path, different: dict[str, object]) -> None:
    assert not same(archive(tmp_path / "old"), archive(tmp_path / "new", **different))  # type: ignore[arg-type]


def test_a_broken_archive_is_replaced(tmp_path: Path) -> None:
    new = archive(tmp_path / "new")
    for number, content in enumerate((b"", b"no archive", new.read_bytes()[:-9000], os.urandom(20000))):
        old = tmp_path / f"old{number}"
        old.write_bytes(content)
        assert not same(old, new)
