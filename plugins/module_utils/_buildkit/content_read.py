# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Reading a daemon's content store on its control connection (wire §1.17, Content/Read)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError

from .client import Client
from .messages import content

READ = "/containerd.services.content.v1.Content/Read"
LARGEST_DOCUMENT = 16 << 20
"""Bytes of a manifest or a configuration; containerd takes no more than half of it."""
QUIET_SECONDS = 60.0
"""Longest time of reading one document."""


class ContentReader:
    """The blobs of one daemon. Threads may share it.

    Both methods raise BuildkitError: details.code is NOT_FOUND for what is not there, UNIMPLEMENTED from a daemon
    that has no content service (up to 0.10).
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def document(self, digest: str) -> bytes:
        """A manifest or the like, whole, and proven by its digest."""
        data = b""
        for chunk in self.chunks(digest, QUIET_SECONDS):
            data += chunk
            if len(data) > LARGEST_DOCUMENT:
                raise PeerProtocolError(f"the document {digest} has more than {LARGEST_DOCUMENT} bytes")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise PeerProtocolError(f"what the daemon sent as {digest} is something else")
        return data

    def chunks(self, digest: str, seconds: Optional[float] = None) -> Iterator[bytes]:
        """A blob in the pieces in which it comes, of 1 MiB at the most. Who leaves off ends the call."""
        with self._client.errors(f"read {digest} from the daemon's content store"):
            call = self._client.stream(
                READ, content.ReadContentRequest(digest=digest), content.ReadContentResponse, seconds
            )
            try:
                for answer in call:
                    yield answer.data
            finally:
                call.cancel()
