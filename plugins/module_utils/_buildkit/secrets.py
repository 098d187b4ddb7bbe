# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The secrets of a build: the daemon asks for each by its id when a step mounts it (wire §2.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .messages import secrets
from .service import Call, CallFactory, CallStatus, Code, Metadata, UnaryCall

LARGEST = 500 << 10
"""Bytes; clients keep to this by convention."""


class Secrets:
    """Serves secrets. values: id → what reads its value, which happens only when the daemon asks."""

    def __init__(self, values: Mapping[str, Callable[[], bytes]]) -> None:
        self._values = dict(values)

    def methods(self) -> Mapping[str, CallFactory]:
        return {"/moby.buildkit.secrets.v1.Secrets/GetSecret": self._get}

    def _get(self, metadata: Metadata) -> Call:
        del metadata
        return UnaryCall(self._answer)

    def _answer(self, request: bytes) -> bytes:
        identity = str(secrets.GetSecretRequest.FromString(request).ID)
        read = self._values.get(identity)
        if read is None:
            # Also asked for those that a step can do without.
            raise CallStatus(Code.NOT_FOUND, f"secret {identity} not found")
        value = read()
        if len(value) > LARGEST:
            raise CallStatus(Code.RESOURCE_EXHAUSTED, f"the secret {identity} has more than {LARGEST >> 10} KiB")
        answer: bytes = secrets.GetSecretResponse(data=value).SerializeToString()
        return answer
