# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The tar that an engine loads: an OCI layout, with Docker's own manifest beside it, and the layers that are chosen."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Union

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError

from .image_content import Blob, ImageContent, Layer

END = b"\0" * (2 * tarfile.BLOCKSIZE)


def archive(
    image: ImageContent, layers: Iterable[Layer], names: Sequence[str], chunks: Callable[[str], Iterator[bytes]]
) -> Iterator[bytes]:
    """The tar in pieces, of constant memory.

    layers: those that are in it, each once; the manifests name all, whatever is left out.
    names:  in the familiar form, with tags. chunks: digest → a blob's bytes.
    Raises PeerProtocolError when a blob is not as long as its manifest says.
    """
    head = _member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    head += _member("index.json", _index(image, names))
    if image.config is not None:
        head += _member("manifest.json", _manifest(image, image.config, names))
    for digest, document in image.documents.items():
        head += _member(_path(digest), document)
    yield head
    blobs: list[Union[Blob, Layer]] = [*image.attestations, *layers]
    for digest, size in {blob.digest: blob.size for blob in blobs}.items():
        yield _header(_path(digest), size)
        yield from _exactly(chunks(digest), digest, size)
        yield _padding(size)
    yield END


def _index(image: ImageContent, names: Sequence[str]) -> bytes:
    """containerd reads the names here (wire §3.11)."""
    listed = [_named(image.descriptor, name) for name in names] or [image.descriptor]
    document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed}
    return json.dumps(document).encode()


def _named(descriptor: dict[str, object], name: str) -> dict[str, object]:
    parsed = reference.parse(name)
    annotations = descriptor.get("annotations")
    tag = parsed.tag or "latest"
    named = {
        **(annotations if isinstance(annotations, dict) else {}),
        "io.containerd.image.name": f"{parsed.domain}/{parsed.path}:{tag}",
        "org.opencontainers.image.ref.name": tag,
    }
    return {**descriptor, "annotations": named}


def _manifest(image: ImageContent, config: str, names: Sequence[str]) -> bytes:
    """The classic store reads names and layers here: all of them, those that it is believed to have as well."""
    layers = [_path(layer.digest) for layer in image.layers]
    return json.dumps([{"Config": _path(config), "RepoTags": list(names), "Layers": layers}]).encode()


def _exactly(chunks: Iterable[bytes], digest: str, size: int) -> Iterator[bytes]:
    left = size
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise PeerProtocolError(f"the blob {digest} is not of {size} bytes, as its manifest says")


def _member(path: str, data: bytes) -> bytes:
    return _header(path, len(data)) + data + _padding(len(data))


def _header(path: str, size: int) -> bytes:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)  # which has room for sizes beyond 8 GiB


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def _path(digest: str) -> str:
    algorithm, _colon, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"
