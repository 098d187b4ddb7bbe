# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BytesMessage by hand; protobuf itself is the measure."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import wirebytes
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import filesync
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.wirebytes import (
    bytes_message,
    decode_bytes_message,
    varint,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError

SIZES = [0, 1, 127, 128, 16383, 16384, 70_000, 2_097_152]


@given(st.integers(0, 2**63 - 1) | st.sampled_from([0, 127, 128, 2**14, 2**21, 2**28, 2**35]))
@settings(deadline=None, max_examples=60)
def test_numbers_as_protobuf_has_them(number: int) -> None:
    encoded = varint(number)
    assert len(encoded) == max(1, -(-number.bit_length() // 7))
    assert sum((byte & 0x7F) << 7 * index for index, byte in enumerate(encoded)) == number
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]


@pytest.mark.parametrize("size", SIZES)
def test_messages_as_protobuf_has_them(size: int) -> None:
    data = bytes(size)
    protobuf = filesync.BytesMessage(data=data).SerializeToString()
    assert decode_bytes_message(protobuf) == data
    # protobuf leaves out a field that is empty; the daemon never gets one from us (wire §2.3).
    assert filesync.BytesMessage.FromString(bytes_message(data)).data == data
    assert bytes_message(data) == protobuf or not data


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=60)
def test_data_comes_back(data: bytes) -> None:
    assert decode_bytes_message(bytes_message(data)) == data


def test_nothing_is_an_empty_message() -> None:
    assert decode_bytes_message(b"") == b""


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x80",
        b"\x0a\x80\x80\x80\x80\x80",
        b"\x0a\x01",
        b"\x0a\x02x",
        b"\x0a\x01xy",
        b"\x0a\x00\x00",
        b"\x0a\x80\x01" + bytes(127),
        b"\x12\x01x",
        b"\x08\x01",
        b"\x0a\x01x\x0a\x01y",
        b"x",
        # Numbers without end, as protobuf's own parser refuses them.
        b"\x0a" + b"\x80" * 9 + b"\x01",
        b"\x0a" + b"\x80" * 10 + b"\x00",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        b"\x0a" + b"\xff" * 20,
    ],
)
def test_anything_else_is_refused(message: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="no BytesMessage"):
        decode_bytes_message(message)


def test_a_number_of_megabytes_costs_nothing() -> None:
    began = time.process_time()
    with pytest.raises(PeerProtocolError):
        decode_bytes_message(b"\x0a" + b"\x80" * (8 << 20))
    assert time.process_time() - began < 1


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=150)
def test_no_bytes_make_the_reader_fail_otherwise(message: bytes) -> None:
    try:
        data = decode_bytes_message(message)
    except PeerProtocolError:
        return
    assert not message or (message[0] == wirebytes.TAG and message.endswith(data))
