# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Messages of one bytes field, by hand: they wrap every byte of a session and of a result (wire §2.3, §3.10)."""

from __future__ import annotations

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError

TAG = 0x0A
"""Field 1, length-delimited: the same in every BytesMessage of the protocol."""
LONGEST = 5
"""Bytes of a length: 35 bits are far beyond any message; without an end a peer could make a number of megabytes."""


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def bytes_message(data: bytes) -> bytes:
    """Encode BytesMessage{data}."""
    return bytes((TAG,)) + varint(len(data)) + data


def decode_bytes_message(message: bytes) -> bytes:
    """The data of a BytesMessage, b"" of an empty one. Raises PeerProtocolError on anything else."""
    if not message:
        return b""
    length = 0
    for position, byte in enumerate(message[1 : 1 + LONGEST], 1):
        length |= (byte & 0x7F) << 7 * (position - 1)
        if byte < 0x80:
            if message[0] != TAG or position + 1 + length != len(message):
                break
            return message[position + 1 :]
    raise PeerProtocolError("a message of the session is no BytesMessage")
