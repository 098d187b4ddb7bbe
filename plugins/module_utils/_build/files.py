# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Results that become files of the target: directories, archives, OCI layouts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.blobs import Blobs
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.oci_layout import Layout
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import streamed
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive_file import (
    FileReceiver,
    archived_identity,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive_tree import TreeReceiver

from .exports import Export
from .outputs import LOCAL, NAMED, Output

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallFactory


class Directory(Export):
    """The files of a result in a directory."""

    def __init__(self, output: Output, protected: Sequence[str]) -> None:
        super().__init__(output.type, output.attrs)
        self._tree = TreeReceiver(output.dest, delete=output.attrs.get("mode") == "delete", protected=protected)

    def receiver(self, client: Client) -> CallFactory:
        del client
        return self._tree

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        del response
        return self._tree.differs


class Archive(Export):
    """A result in one file."""

    def __init__(self, output: Output, attrs: Mapping[str, str]) -> None:
        super().__init__(output.type, attrs)
        self._file = FileReceiver(output.dest, archived_identity if output.type in NAMED else None)

    def receiver(self, client: Client) -> CallFactory:
        del client
        return streamed(self._file)

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        del response
        return self._file.changed


class LayoutDirectory(Export):
    """An image as an OCI layout in a directory: the daemon writes its blobs, the index is ours (wire §3.11)."""

    def __init__(self, output: Output, attrs: Mapping[str, str]) -> None:
        super().__init__(output.type, attrs)
        self._layout = Layout(output.dest)
        self._blobs = Blobs(output.dest, writable=True)

    def stores(self) -> Mapping[str, Blobs]:
        return {"export": self._blobs}

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        descriptor = json.loads(base64.b64decode(response["containerimage.descriptor"]))
        names = [name for name in response.get("image.name", "").split(",") if name]
        return self._layout.publish(descriptor, names=names)

    def close(self) -> None:
        self._blobs.close()


def export(output: Output, attrs: Mapping[str, str], protected: Sequence[str]) -> Export:
    """The export of an output that has a dest.

    protected: directories that the result must not be the death of. Raises ConfigError.
    """
    if output.type == LOCAL:
        return Directory(output, protected)
    if output.layout:
        return LayoutDirectory(output, attrs)
    return Archive(output, attrs)
