# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an image consists of: read from documents as daemons of all ages write them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.image_content import (
    Blob,
    ImageContent,
    Layer,
    read,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

OCI = "application/vnd.oci.image."
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Store:
    """Documents by digest."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    def put(self, content: Any) -> str:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.documents[digest] = data
        return digest

    def document(self, digest: str) -> bytes:
        if digest not in self.documents:
            raise BuildkitError("not found", code="NOT_FOUND")
        return self.documents[digest]

    def manifest(self, *layers: dict[str, Any], diff_ids: list[str] | None = None) -> str:
        ids = diff_ids if diff_ids is not None else [f"sha256:{number}" for number in range(len(layers))]
        config = self.put({"rootfs": {"type": "layers", "diff_ids": ids}})
        return self.put({"schemaVersion": 2, "config": {"digest": config}, "layers": list(layers)})

    def read(self, digest: str) -> ImageContent:
        return read(self, {"exporter-md-containerimage.descriptor": (encoded({"digest": digest, "size": 1}),)})


def encoded(descriptor: object) -> str:
    return base64.b64encode(json.dumps(descriptor).encode()).decode()


def blob(letter: str, kind: str = f"{OCI}layer.v1.tar+gzip", **others: object) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{letter * 64}", "size": 7, **others}


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.mark.parametrize(
    "kind", [f"{OCI}layer.v1.tar+gzip", f"{OCI}layer.v1.tar+zstd", f"{OCI}layer.v1.tar", DOCKER_LAYER]
)
def test_one_manifest(store: Store, kind: str) -> None:
    top = store.manifest(blob("a", kind), blob("b", kind), blob("a", kind))
    found = store.read(top)
    assert found.layers == tuple(Layer(f"sha256:{x * 64}", 7, f"sha256:{n}") for n, x in enumerate("aba"))
    assert found.documents == store.documents
    assert found.config in store.documents
    assert found.config != top
    assert found.attestations == ()
    assert found.descriptor == {"digest": top, "size": 1}


def test_no_layers(store: Store) -> None:
    assert store.read(store.manifest()).layers == ()


def test_a_list_with_attestations(store: Store) -> None:
    """Layers of all platforms, and the attestations apart: they are never left out."""
    one, two = store.manifest(blob("a"), diff_ids=["sha256:1"]), store.manifest(blob("b"), diff_ids=["sha256:2"])
    note = store.put({"config": {"digest": store.put({})}, "layers": [blob("c", "application/vnd.in-toto+json")]})
    top = store.put({"manifests": [{"digest": one}, {"digest": two}, {"digest": note}]})

    found = store.read(top)

    assert [layer.digest[7] for layer in found.layers] == ["a", "b"]
    assert found.attestations == (Blob(f"sha256:{'c' * 64}", 7),)
    assert found.config is None
    assert found.documents == store.documents


@pytest.mark.parametrize(
    "odd",
    [
        blob("a", f"{OCI}layer.nondistributable.v1.tar+gzip"),
        blob("a", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        blob("a", urls=["https://elsewhere.lab/layer"]),
        blob("a", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
    ],
)
def test_what_is_not_in_the_store_is_left_to_the_daemon(store: Store, odd: dict[str, Any]) -> None:
    with pytest.raises(BuildkitError, match="not known here"):
        store.read(store.manifest(odd))


def test_a_layer_without_a_diff_id(store: Store) -> None:
    with pytest.raises(BuildkitError, match="not known here"):
        store.read(store.manifest(blob("a"), diff_ids=[]))


@pytest.mark.parametrize(
    "manifest",
    [
        b"no json",
        b"[]",
        {"config": {}, "layers": []},
        {"manifests": [{}]},
        {"manifests": 7},
        {"config": {"digest": 7}},
    ],
)
def test_documents_that_are_none(store: Store, manifest: Any) -> None:
    with pytest.raises(BuildkitError):
        store.read(store.put(manifest))


@pytest.mark.parametrize("wrong", [{"digest": "sha256:../../x"}, {"digest": "sha256:" + "A" * 64}, {"size": -1}])
def test_blobs_that_no_tar_shall_name(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(PeerProtocolError, match="names a blob"):
        store.read(store.manifest({**blob("a"), **wrong}))


def test_an_index_in_an_index_is_not_followed(store: Store) -> None:
    inner = store.put({"manifests": []})
    with pytest.raises(PeerProtocolError, match="lies in another one"):
        store.read(store.put({"manifests": [{"digest": inner}]}))


@pytest.mark.parametrize("text", ["", "!", base64.b64encode(b"no json").decode(), encoded([]), encoded({"size": 1})])
def test_a_daemon_that_does_not_say_what_it_sends(store: Store, text: str) -> None:
    with pytest.raises(BuildkitError, match="does not say"):
        read(store, {"exporter-md-containerimage.descriptor": (text,)} if text else {})
