# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What an image consists of, read from a daemon's content store: manifests, configurations, layers, attestations."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NamedTuple, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Metadata
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError

from .load import METADATA

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
LAYERS = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
"""How the media types of layers begin that are in the content store. Others lie elsewhere."""
ATTESTATION = "application/vnd.in-toto"


class Blob(NamedTuple):
    """digest: `sha256:…`; size: bytes."""

    digest: str
    size: int


class Layer(NamedTuple):
    """A layer. digest and size are those of the blob, diff_id is the digest of what it holds, unpacked."""

    digest: str
    size: int
    diff_id: str


class ImageContent(NamedTuple):
    """An image, or a list of them.

    descriptor:   of the topmost manifest, as an index has it.
    documents:    digest → bytes of the manifests and configurations.
    attestations: blobs that belong to the image and are never left out.
    layers:       in the order of the manifests, from the lowest; the same one may come several times.
    config:       digest of the only configuration; None: it is a list.
    """

    descriptor: dict[str, Any]
    documents: dict[str, bytes]
    attestations: tuple[Blob, ...]
    layers: tuple[Layer, ...]
    config: Optional[str]


class Reader(Protocol):
    """The content store."""

    def document(self, digest: str) -> bytes:
        """A small blob, proven by its digest."""


def read(reader: Reader, metadata: Metadata) -> ImageContent:
    """What the image of an exporter's call consists of. Raises BuildkitError when it cannot be read or is not ours."""
    descriptor = _descriptor(metadata)
    gathering = _Gathering(reader)
    try:
        config = gathering.manifest(descriptor["digest"])
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise PeerProtocolError(
            f"the image {descriptor['digest']} has a manifest that cannot be read: {exc!r}"
        ) from exc
    found = gathering
    return ImageContent(descriptor, found.documents, tuple(found.attestations), tuple(found.layers), config)


def _descriptor(metadata: Metadata) -> dict[str, Any]:
    encoded = metadata.get(f"{METADATA}containerimage.descriptor", ("",))[0]
    try:
        found = json.loads(base64.b64decode(encoded, validate=True) or b"null")
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("digest"), str):
        raise BuildkitError("the daemon does not say which image it sends")
    return found


class _Gathering:
    """Walks from the topmost manifest down."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.documents: dict[str, bytes] = {}
        self.attestations: list[Blob] = []
        self.layers: list[Layer] = []

    def manifest(self, digest: str, depth: int = 0) -> Optional[str]:
        """Take a manifest or an index in; the digest of its configuration, None of an index."""
        found = self._document(digest)
        if "manifests" in found:
            if depth:
                raise PeerProtocolError(f"the index {digest} lies in another one")
            for child in found["manifests"]:
                self.manifest(child["digest"], depth + 1)
            return None
        config = self._document(found["config"]["digest"])
        diff_ids = list((config.get("rootfs") or {}).get("diff_ids") or ())
        for number, blob in enumerate(found["layers"]):
            self._blob(blob, diff_ids[number] if number < len(diff_ids) else "")
        return str(found["config"]["digest"])

    def _document(self, digest: str) -> dict[str, Any]:
        if digest not in self.documents:
            self.documents[digest] = self._reader.document(digest)
        found: dict[str, Any] = json.loads(self.documents[digest])
        return found

    def _blob(self, blob: dict[str, Any], diff_id: str) -> None:
        kind, digest, size = str(blob["mediaType"]), str(blob["digest"]), int(blob["size"])
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or size < 0:
            raise PeerProtocolError(f"a manifest names a blob {digest!r} of {size} bytes")
        if kind.startswith(ATTESTATION):
            self.attestations.append(Blob(digest, size))
        elif kind.startswith(LAYERS) and diff_id and not blob.get("urls"):
            self.layers.append(Layer(digest, size, diff_id))
        else:
            raise BuildkitError(f"the image has a blob of a kind that is not known here: {kind}")
