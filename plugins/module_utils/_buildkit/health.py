# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The health of the session, which the daemon asks for every five seconds (wire §2.4)."""

from __future__ import annotations

from collections.abc import Mapping

from .service import Call, CallFactory, CallStatus, Code, Metadata, UnaryCall

SERVING = b"\x08\x01"
"""HealthCheckResponse{status: SERVING}."""


class Health:
    """grpc.health.v1.Health: SERVING as long as the session's loop turns."""

    def methods(self) -> Mapping[str, CallFactory]:
        return {"/grpc.health.v1.Health/Check": _check, "/grpc.health.v1.Health/Watch": _watch}


def _check(metadata: Metadata) -> Call:
    del metadata
    return UnaryCall(lambda request: SERVING)


def _watch(metadata: Metadata) -> Call:
    """Announced by every client, called by no daemon."""
    del metadata
    raise CallStatus(Code.UNIMPLEMENTED, "health is not watched here")
