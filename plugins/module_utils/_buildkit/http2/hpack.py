# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""HPACK, the compression of header lists (RFC 7541).

The decoder is complete, because the peer decides what it uses: grpc-go indexes, and Huffman-codes whatever
becomes shorter by it, megabytes of exclude-patterns included. The encoder has no state: what it can say with an
entry of the static table it says so, the rest are literals without indexing and without Huffman. An answer of
gRPC is a handful of bytes either way, and what has no state cannot get out of step.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ErrorCode, ProtocolError

Field = tuple[bytes, bytes]

DEFAULT_TABLE_SIZE = 4096
FIELD_OVERHEAD = 32  # what an entry counts beyond its two strings (§4.1)

# Seven bits a byte: 2**35 is far beyond any length that fits a header list, and the end of the number (§5.1, §7.4).
MAX_INTEGER_BYTES = 5

_STATIC = (  # Appendix A
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|"
    ":status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|"
    "accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|"
    "content-disposition|content-encoding|content-language|content-length|content-location|content-range|"
    "content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|"
    "if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|"
    "referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|"
    "www-authenticate"
)
STATIC_TABLE: tuple[Field, ...] = tuple(
    (name, value) for name, _space, value in (entry.partition(b" ") for entry in _STATIC.encode().split(b"|"))
)
STATIC_FIELDS = {field: index for index, field in enumerate(STATIC_TABLE, 1)}
STATIC_NAMES = {field[0]: index for index, field in reversed(tuple(enumerate(STATIC_TABLE, 1)))}

# Bits of the code of each byte and of EOS, one digit of base 36 each (Appendix B). The code is canonical: in the
# order of (bits, symbol) each code is the one before plus one, with zeros added where codes get longer.
CODE_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad677777777777777777777"
    "77878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmo"
    "lmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
EOS = 256


def _codes() -> dict[int, int]:
    """Code with a leading one (which keeps its zeros) → symbol."""
    codes: dict[int, int] = {}
    lengths = [int(digit, 36) for digit in CODE_LENGTHS]
    code, bits = -1, 0
    for length, symbol in sorted(zip(lengths, range(EOS + 1))):
        code = (code + 1) << (length - bits)
        bits = length
        codes[1 << bits | code] = symbol
    return codes


class _Steps(dict[int, tuple[int, bytes]]):
    """The Huffman decoder as an automaton that reads whole bytes, built as far as it is used.

    Key:   bits of an unfinished code, with a leading one, shifted left by eight, or'ed with the next byte.
    Value: bits that are unfinished after that byte, shifted alike, and the bytes that were finished.
    All of it would be 256 prefixes of 256 bytes; text uses a few thousand of these, base64 of random bytes 15,000.
    One look-up and one append a byte instead of eight times as many is what makes headers of megabytes bearable.
    """

    def __init__(self) -> None:
        super().__init__()
        self._codes = _codes()

    def __missing__(self, key: int) -> tuple[int, bytes]:
        prefix, byte = key >> 8, key & 0xFF
        out = bytearray()
        for shift in range(7, -1, -1):
            prefix = prefix << 1 | (byte >> shift & 1)
            symbol = self._codes.get(prefix)
            if symbol is not None:
                if symbol == EOS:
                    raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "EOS in a Huffman string")
                out.append(symbol)
                prefix = 1
        step = self[key] = (prefix << 8, bytes(out))
        return step


_STEPS = _Steps()
# At most seven bits may be left over, all ones (§5.2).
_PADDINGS = frozenset(((1 << bits) - 1) << 8 for bits in range(1, 9))


def huffman_decode(data: bytes) -> bytes:
    """The string that was coded."""
    steps = _STEPS
    prefix = 1 << 8
    parts: list[bytes] = []
    append = parts.append
    for byte in data:
        prefix, part = steps[prefix | byte]
        append(part)
    if prefix not in _PADDINGS:
        raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "wrong padding of a Huffman string")
    return b"".join(parts)


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """The number that starts in the low bits of block[position], and the position after it (§5.1)."""
    most = (1 << bits) - 1
    value = block[position] & most
    position += 1
    if value < most:
        return value, position
    for shift in range(0, 7 * MAX_INTEGER_BYTES, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "number too long in a header block")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """The string at block[position], and the position after it (§5.2)."""
    coded = block[position] & 0x80
    length, position = _integer(block, position, 7)
    end = position + length
    if end > len(block):
        raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "string longer than its header block")
    value = block[position:end]
    return (huffman_decode(value) if coded else value), end


class Decoder:
    """Decodes the header blocks of one direction of a connection, in order.

    limit: bytes of a decoded list, counted as SETTINGS_MAX_HEADER_LIST_SIZE counts them. Beyond it the decoder
           stops, so that a few bytes which name a large entry again and again cost no memory.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._table: list[Field] = []  # the newest is the last
        self._size = 0
        self._max_size = DEFAULT_TABLE_SIZE

    def decode(self, block: bytes) -> list[Field]:
        """The header list of one complete block."""
        fields: list[Field] = []
        left = self._limit
        position, end = 0, len(block)
        try:
            while position < end:
                first = block[position]
                if first & 0x80:  # indexed field (§6.1)
                    index, position = _integer(block, position, 7)
                    field = self._entry(index)
                elif first & 0x60 == 0x20:  # size of the table (§6.3), before the first field only (§4.2)
                    size, position = _integer(block, position, 5)
                    self._resize(size, fields)
                    continue
                else:  # literal: with indexing (§6.2.1), without (§6.2.2), never (§6.2.3)
                    index, position = _integer(block, position, 6 if first & 0x40 else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, position = _string(block, position)
                    value, position = _string(block, position)
                    field = (name, value)
                    if first & 0x40:
                        self._add(field)
                left -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD
                if left < 0:
                    raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"header list of more than {self._limit} bytes")
                fields.append(field)
        except IndexError:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "header block ends within a field") from None
        return fields

    def _entry(self, index: int) -> Field:
        if 0 < index <= len(STATIC_TABLE):
            return STATIC_TABLE[index - 1]
        index -= len(STATIC_TABLE)
        if 0 < index <= len(self._table):
            return self._table[-index]
        raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "header field that is in no table")

    def _add(self, field: Field) -> None:
        """An entry larger than the table empties it, and that is no error (§4.4)."""
        self._table.append(field)
        self._size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        self._evict()

    def _resize(self, size: int, fields: list[Field]) -> None:
        if fields or size > DEFAULT_TABLE_SIZE:  # we announce no other size
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, f"header table resized to {size} bytes where it may not")
        self._max_size = size
        self._evict()

    def _evict(self) -> None:
        gone = 0
        while self._size > self._max_size:
            name, value = self._table[gone]
            self._size -= len(name) + len(value) + FIELD_OVERHEAD
            gone += 1
        del self._table[:gone]


def _prefixed(flags: int, bits: int, value: int) -> bytes:
    """A number whose first byte carries `flags` above its low `bits` (§5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((flags | value,))
    out = bytearray((flags | most,))
    value -= most
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(fields: Iterable[Field]) -> bytes:
    """A header block that reads the same whatever was sent before."""
    out: list[bytes] = []
    for field in fields:
        index = STATIC_FIELDS.get(field)
        if index:
            out.append(_prefixed(0x80, 7, index))
            continue
        name, value = field
        index = STATIC_NAMES.get(name, 0)
        out.append(_prefixed(0x00, 4, index))
        if not index:
            out += (_prefixed(0x00, 7, len(name)), name)
        out += (_prefixed(0x00, 7, len(value)), value)
    return b"".join(out)


def forget_table() -> bytes:
    """Says that our table is empty from here on: due once when the peer changes its size (§4.2)."""
    return b"\x20"
