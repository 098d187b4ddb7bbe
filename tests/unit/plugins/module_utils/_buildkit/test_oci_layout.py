# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The index of an OCI layout: names of manifests, as the CLI reads and writes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import oci_layout
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.oci_layout import (
    Layout,
    blob_path,
    store_name,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, ConfigError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def descriptor(digest: str, **others: Any) -> dict[str, Any]:
    return {"mediaType": MANIFEST, "digest": digest, "size": 7, **others}


def test_a_first_entry_makes_the_layout(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "some" / "cache"))
    assert layout.find("latest") is None
    assert not (tmp_path / "some").exists()
    assert layout.publish(descriptor(ONE))
    assert (tmp_path / "some/cache/oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert (tmp_path / "some/cache/index.json").read_text() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        '{"mediaType":"' + MANIFEST + '","digest":"' + ONE + '","size":7,'
        '"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}'
    )
    assert sorted(os.listdir(tmp_path / "some/cache")) == ["index.json", "oci-layout"]
    assert stat.S_IMODE((tmp_path / "some/cache/index.json").stat().st_mode) & 0o600 == 0o600


def test_entries_of_other_names_stay(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    assert layout.publish(descriptor(ONE))
    assert layout.publish(descriptor(ONE), tag="other")
    assert not layout.publish(descriptor(ONE))
    assert layout.publish(descriptor(TWO))
    assert layout.publish(descriptor(TWO), names=["example.com:5000/a/b:v1", "c:latest"])
    assert [layout.find(name) for name in ("latest", "other", "v1", "example.com:5000/a/b:v1", "c:latest", "x")] == [
        TWO, ONE, TWO, TWO, TWO, None,
    ]  # fmt: skip
    assert not layout.publish(descriptor(TWO), names=["c:latest", "example.com:5000/a/b:v1"])
    assert layout.publish(descriptor(ONE), names=["c:latest"])
    entries = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert [(entry["digest"], len(entry["annotations"])) for entry in entries] == [
        (ONE, 1),
        (TWO, 1),
        (TWO, 2),
        (ONE, 2),
    ]


def test_what_the_index_holds_otherwise_stays(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(
        json.dumps(
            {"schemaVersion": 2, "annotations": {"a": "b"}, "manifests": [descriptor(ONE, platform={"os": "x"})]}
        )
    )
    Layout(str(tmp_path)).publish(descriptor(TWO, annotations={"zz": "1"}, platform={"os": "linux"}))
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["annotations"] == {"a": "b"}
    assert index["manifests"][0] == descriptor(ONE, platform={"os": "x"})
    assert list(index["manifests"][1]) == ["mediaType", "digest", "size", "annotations", "platform"]
    assert list(index["manifests"][1]["annotations"]) == ["org.opencontainers.image.ref.name", "zz"]


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"manifests": 3}', "\udcff"])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_bytes(os.fsencode(text))
    for act in (lambda: Layout(str(tmp_path)).find("latest"), lambda: Layout(str(tmp_path)).publish(descriptor(ONE))):
        with pytest.raises(ConfigError, match=r"index.json is no index of an OCI layout"):
            act()
    assert os.listdir(tmp_path) == ["index.json"], "and no lock is left"


def test_an_index_that_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_layout, "LOCK_SECONDS", 0.1)
    with open(tmp_path / "index.json.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BuildxError, match=r"another process holds .*index.json.lock"):
            Layout(str(tmp_path)).publish(descriptor(ONE))
    Layout(str(tmp_path)).publish(descriptor(ONE))
    assert not (tmp_path / "index.json.lock").exists()


def test_a_place_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(BuildxError, match=r"cannot write .*/f/below/index.json"):
        Layout(str(tmp_path / "f" / "below")).publish(descriptor(ONE))


def written(directory: Path, content: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    path = directory / (blob_path(digest) or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def test_a_clean_up_leaves_what_is_named(tmp_path: Path) -> None:
    layer, config, lost = (written(tmp_path, word) for word in (b"layer", b"{}", b"lost"))
    inner = {"config": descriptor(config, mediaType="c"), "layers": [descriptor(layer, mediaType="l")]}
    manifest = written(tmp_path, json.dumps(inner).encode())
    index = written(tmp_path, json.dumps({"manifests": [descriptor(manifest), descriptor(TWO)]}).encode())
    layout = Layout(str(tmp_path))
    layout.publish(descriptor(index, mediaType=oci_layout.INDEX_TYPE))
    with open(tmp_path / "cache.lock", "w") as exporter:
        fcntl.flock(exporter, fcntl.LOCK_SH)
        assert layout.remove_unreferenced() == -1
    assert layout.remove_unreferenced() == 1
    left = {f"sha256:{path.name}" for path in (tmp_path / "blobs/sha256").iterdir()}
    assert left == {layer, config, manifest, index}
    assert lost not in left


def test_names_of_stores_are_ascii() -> None:
    assert store_name("/a/b c") == "/a/b c"
    assert store_name("/ä/%") == "/%C3%A4/%25"
    assert store_name(os.fsdecode(b"/\xff\n")).isascii()
