# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar for an engine, read again by Python's own reader."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import image_tar
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.image_content import Blob, ImageContent, Layer
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError

NAMES = ("app:1", "registry.lab:5000/team/app:latest")
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 8, "annotations": {"of": "the image"}}


class Store:
    """Blobs by digest, given in pieces of three bytes."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def chunks(self, digest: str) -> Iterator[bytes]:
        content = self.blobs[digest]
        yield from (content[start : start + 3] for start in range(0, len(content), 3))

    def layer(self, content: bytes) -> Layer:
        return Layer(self.put(content), len(content), f"sha256:{hashlib.sha256(content[::-1]).hexdigest()}")


def image(store: Store, layers: list[Layer], *, single: bool = True) -> ImageContent:
    manifest, config, note = store.put(b"manifest"), store.put(b"config"), store.put(b"attestation")
    documents = {digest: store.blobs[digest] for digest in (manifest, config)}
    top = {**DESCRIPTOR, "digest": manifest}
    return ImageContent(top, documents, (Blob(note, len(b"attestation")),), tuple(layers), config if single else None)


def packed(made: ImageContent, layers: list[Layer], store: Store, names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
    data = b"".join(image_tar.archive(made, layers, names, store.chunks))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert len({member.name for member in members}) == len(members), "each blob once"
        found = {member.name: archive.extractfile(member) for member in members}
        return {name: stream.read() for name, stream in found.items() if stream}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=1500), st.booleans()), max_size=6))
def test_the_chosen_layers_are_in_it_and_all_are_named(contents: list[tuple[bytes, bool]]) -> None:
    store = Store()
    layers = [store.layer(content) for content, _in in contents]
    chosen = [layer for layer, (_content, is_in) in zip(layers, contents) if is_in]
    made = image(store, layers)

    found = packed(made, chosen, store)

    blobs = {f"sha256:{name[13:]}": data for name, data in found.items() if name.startswith("blobs/sha256/")}
    assert blobs == {digest: store.blobs[digest] for digest in blobs}
    always = {*made.documents, *(blob.digest for blob in made.attestations)}
    assert set(blobs) == always | {layer.digest for layer in chosen}
    (docker,) = json.loads(found["manifest.json"])
    assert docker["Layers"] == [f"blobs/sha256/{layer.digest[7:]}" for layer in layers]
    assert docker["RepoTags"] == list(NAMES)
    assert docker["Config"] in found


def test_names_for_containerd() -> None:
    """Whole names, each in an entry of its own, and what the daemon said of the image."""
    store = Store()
    found = packed(image(store, []), [], store)
    entries = json.loads(found["index.json"])["manifests"]
    assert [entry["annotations"] for entry in entries] == [
        {
            "of": "the image",
            "io.containerd.image.name": "docker.io/library/app:1",
            "org.opencontainers.image.ref.name": "1",
        },
        {
            "of": "the image",
            "io.containerd.image.name": "registry.lab:5000/team/app:latest",
            "org.opencontainers.image.ref.name": "latest",
        },
    ]
    assert len({entry["digest"] for entry in entries}) == 1
    assert found["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'


def test_no_name() -> None:
    store = Store()
    found = packed(image(store, []), [], store, ())
    assert json.loads(found["manifest.json"])[0]["RepoTags"] == []
    assert json.loads(found["index.json"])["manifests"] == [image(store, []).descriptor]


def test_a_list_has_no_manifest_of_dockers() -> None:
    store = Store()
    assert "manifest.json" not in packed(image(store, [], single=False), [], store)


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_blob_of_another_length_is_no_tar(wrong: int) -> None:
    """Its header is gone by then: what follows would be read as something else."""
    store = Store()
    layer = store.layer(b"content")
    layer = layer._replace(size=layer.size + wrong)
    with pytest.raises(PeerProtocolError, match="is not of"):
        packed(image(store, [layer]), [layer], store)


def test_large_sizes_have_room() -> None:
    member = tarfile.TarInfo.frombuf(image_tar._header("blobs/sha256/x", 20 << 30), "utf-8", "strict")
    assert member.size == 20 << 30
