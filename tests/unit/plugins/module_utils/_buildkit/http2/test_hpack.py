# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HPACK: the examples of RFC 7541, the PyPI library `hpack` as opposite peer, and what must be refused."""

from __future__ import annotations

import base64

import pytest
from hpack import Decoder as OtherDecoder
from hpack import Encoder as OtherEncoder
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2 import hpack
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.errors import ErrorCode, ProtocolError

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
REQUESTS = [
    REQUEST,
    [*REQUEST, (b"cache-control", b"no-cache")],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
RESPONSE = [
    (b":status", b"302"),
    (b"cache-control", b"private"),
    (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"location", b"https://www.example.com"),
]
RESPONSES = [
    RESPONSE,
    [(b":status", b"307"), *RESPONSE[1:]],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]
# RFC 7541 appendix C, by section. C.5 and C.6 have a table of 256 bytes: said by a size update in front (§6.3).
EXAMPLES = {
    "C.2.1": (["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [[(b"custom-key", b"custom-header")]]),
    "C.2.2": (["040c2f73616d706c652f70617468"], [[(b":path", b"/sample/path")]]),
    "C.2.3": (["100870617373776f726406736563726574"], [[(b"password", b"secret")]]),
    "C.2.4": (["82"], [[(b":method", b"GET")]]),
    "C.3": (
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        REQUESTS,
    ),
    "C.4": (
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        REQUESTS,
    ),
    "C.5": (
        [
            "3fe101"
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a"
            "2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851"
            "4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ],
        RESPONSES,
    ),
    "C.6": (
        [
            "3fe101"
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43"
            "d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27"
            "087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
        RESPONSES,
    ),
}
NAMES = st.one_of(
    st.sampled_from([name for name, _unused in hpack.STATIC_TABLE]),
    st.binary(min_size=1, max_size=30),
    st.sampled_from([b"grpc-status", b"exclude-patterns"]),
)
VALUES = st.one_of(st.binary(max_size=300), st.sampled_from([value for _unused, value in hpack.STATIC_TABLE]))
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=20)


@pytest.mark.parametrize("section", EXAMPLES)
def test_examples_of_the_rfc(section: str) -> None:
    blocks, lists = EXAMPLES[section]
    decoder = hpack.Decoder(1 << 20)
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == lists


@pytest.mark.parametrize(("bits", "value", "coded"), [(5, 10, "0a"), (5, 1337, "1f9a0a"), (8, 42, "2a")])
def test_numbers_of_the_rfc(bits: int, value: int, coded: str) -> None:
    assert hpack._prefixed(0, bits, value) == bytes.fromhex(coded)
    assert hpack._integer(bytes.fromhex(coded), 0, bits) == (value, len(coded) // 2)


def test_plain_answer_is_one_byte() -> None:
    assert hpack.encode([(b":status", b"200")]) == b"\x88"


@given(st.lists(LISTS, max_size=5))
def test_what_we_encode_means_the_same_to_the_library(lists: list[list[hpack.Field]]) -> None:
    decoder = OtherDecoder()
    for fields in lists:
        assert [tuple(field) for field in decoder.decode(hpack.encode(fields), raw=True)] == fields


@given(st.lists(st.tuples(LISTS, st.booleans(), st.sampled_from([None, 0, 64, 200, 4096])), max_size=6))
def test_what_the_library_encodes_means_the_same_to_us(
    steps: list[tuple[list[hpack.Field], bool, int | None]],
) -> None:
    """One connection: the table grows, is resized and evicted alike on both sides."""
    encoder, decoder = OtherEncoder(), hpack.Decoder(1 << 20)
    for fields, huffman, size in steps:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields
        assert decoder._size <= decoder._max_size <= hpack.DEFAULT_TABLE_SIZE


@given(st.lists(LISTS, min_size=1, max_size=3))
def test_what_we_encode_we_decode(lists: list[list[hpack.Field]]) -> None:
    decoder = hpack.Decoder(1 << 20)
    assert [decoder.decode(hpack.encode(fields)) for fields in lists] == lists
    assert decoder._table == []  # no state


def test_every_byte_has_its_code() -> None:
    data = bytes(range(256)) * 3
    block = OtherEncoder().encode([(b"x", data)], huffman=True)
    assert hpack.Decoder(1 << 20).decode(block) == [(b"x", data)]


def huffman_encode(data: bytes) -> bytes:
    """The library's is quadratic: minutes for a megabyte."""
    codes = {symbol: f"{code:b}"[1:] for code, symbol in hpack._codes().items()}
    bits = "".join([codes[byte] for byte in data])
    bits += "1" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def test_megabytes() -> None:
    value = base64.b64encode(bytes(range(256)) * 4096)
    coded = huffman_encode(value)
    block = b"\x00\x01a" + hpack._prefixed(0x80, 7, len(coded)) + coded
    assert hpack.Decoder(16 << 20).decode(block) == [(b"a", value)]


REFUSED = {
    "index 0": "80",
    "index behind the static table": "be",
    "name behind the static table": "7f0000",
    "no name": "40",
    "number without an end": "ff",
    "number of many bytes": "ffffffffffffff01",
    "number of many zeros": "ff808080808080808000",
    "string without its length": "0001",
    "string longer than the block": "000161056162",
    "literal without its value": "000161",
    "table larger than ours": "3fe21f",
    "size update after a field": "8220",
    "Huffman: EOS": "0084ffffffff00",
    "Huffman: a byte of padding": "008267ff00",
    "Huffman: padding of zeros": "00811800",
    "Huffman: padding with a zero in it": "00811d00",
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        hpack.Decoder(1 << 20).decode(bytes.fromhex(REFUSED[what]))
    assert caught.value.code == ErrorCode.COMPRESSION_ERROR


def test_padding_that_is_right() -> None:
    assert hpack.huffman_decode(b"\x1f") == b"a"  # 00011 and three ones
    assert hpack.huffman_decode(b"") == b""


@given(st.binary(max_size=200))
def test_any_block_is_decoded_or_refused(block: bytes) -> None:
    decoder = hpack.Decoder(10_000)
    try:
        fields = decoder.decode(block)
    except ProtocolError:
        return
    assert sum(len(name) + len(value) + hpack.FIELD_OVERHEAD for name, value in fields) <= 10_000


def test_a_size_update_is_counted_against_nothing() -> None:
    assert hpack.Decoder(0).decode(hpack.forget_table()) == []


def test_entry_larger_than_the_table_empties_it() -> None:
    decoder = hpack.Decoder(1 << 20)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder._table
    encoded = OtherEncoder().encode([(b"large", b"x" * 5000)], huffman=False)
    assert decoder.decode(encoded) == [(b"large", b"x" * 5000)]
    assert decoder._table == []


def test_limit_of_the_list() -> None:
    """A few bytes that name a large entry again and again must not become megabytes."""
    bomb = hpack._prefixed(0x40, 6, 0) + b"\x01a" + hpack._prefixed(0, 7, 4000) + b"x" * 4000 + b"\xbe" * 100_000
    with pytest.raises(ProtocolError) as caught:
        hpack.Decoder(100_000).decode(bomb)
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM
    fields = [(b"a", b"x" * 100)] * 10
    size = 10 * (101 + hpack.FIELD_OVERHEAD)
    assert hpack.Decoder(size).decode(hpack.encode(fields)) == fields
    with pytest.raises(ProtocolError, match="header list of more than"):
        hpack.Decoder(size - 1).decode(hpack.encode(fields))
