# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Ed25519 signatures (RFC 8032 §5.1), which Python's own library does not have.

Their one use is the proof between two builds of one user that both have the same credentials (wire §9.2), ten
milliseconds each. How long the arithmetic takes depends on the key: nothing for where somebody could measure it.
"""

from __future__ import annotations

import hashlib

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P

_Point = tuple[int, int, int, int]
"""(X, Y, Z, T) with x = X/Z, y = Y/Z and xy = T/Z."""
_NEUTRAL: _Point = (0, 1, 1, 0)
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE: _Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)


def public_key(private: bytes) -> bytes:
    """The public key, 32 bytes, of a private key of 32 bytes."""
    return _encoded(_times(_expanded(private)[0], _BASE))


def sign(private: bytes, message: bytes) -> bytes:
    """The signature of a message, 64 bytes."""
    scalar, prefix = _expanded(private)
    public = _encoded(_times(scalar, _BASE))
    nonce = _number(prefix, message)
    commitment = _encoded(_times(nonce, _BASE))
    answer = (nonce + _number(commitment, public, message) * scalar) % _ORDER
    return commitment + answer.to_bytes(32, "little")


def _expanded(private: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(private).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, digest[32:]


def _number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _ORDER


def _sum(one: _Point, other: _Point) -> _Point:
    """RFC 8032 §5.1.4; right for two equal points as well."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    total = _NEUTRAL
    while scalar:
        if scalar & 1:
            total = _sum(total, point)
        point = _sum(point, point)
        scalar >>= 1
    return total


def _encoded(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
