# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""gRPC's own framing, both directions: a byte for compression, four for the length, the message."""

from __future__ import annotations

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError

from .service import CallStatus, Code

LARGEST = 64 << 20
"""A longer message is refused; the daemon's own limit is 16 MiB (wire §2.10)."""


def frame(message: bytes) -> bytes:
    """A message as it goes into DATA, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Deframer:
    """Cuts messages out of DATA, which has cut them anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises PeerProtocolError on compression and on lengths beyond reason."""
        buffer, messages, start = self._buffer, [], 0
        buffer += data
        while len(buffer) - start >= 5:
            length = int.from_bytes(buffer[start + 1 : start + 5], "big")
            if buffer[start] or length > LARGEST:
                raise PeerProtocolError("a gRPC message is compressed, which was not asked for, or too long")
            if len(buffer) - start - 5 < length:
                break
            messages.append(bytes(buffer[start + 5 : start + 5 + length]))
            start += 5 + length
        del buffer[:start]
        return messages

    @property
    def partial(self) -> int:
        """Bytes of a message that has begun and is not whole yet."""
        return len(self._buffer)


def status_trailers(status: CallStatus) -> list[tuple[bytes, bytes]]:
    """The trailers that end a call."""
    trailers = [(b"grpc-status", str(int(status.code)).encode())]
    if status.message:
        trailers.append((b"grpc-message", percent_encoded(status.message)))
    return trailers


OK = CallStatus(Code.OK, "")


def percent_encoded(text: str) -> bytes:
    """gRPC's encoding of a message in a header: printable ASCII but `%` stays, each other byte is %XX."""
    raw = text.encode("utf-8", "replace")
    return b"".join(bytes([byte]) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in raw)


def percent_decoded(raw: bytes) -> str:
    """The text of a message in a header."""
    from urllib.parse import unquote

    return unquote(raw.decode("latin-1"))
