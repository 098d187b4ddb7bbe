# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import framing
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.framing import (
    OK,
    Deframer,
    frame,
    percent_decoded,
    percent_encoded,
    status_trailers,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallStatus, Code
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import PeerProtocolError


@given(messages=st.lists(st.binary(max_size=40), max_size=8), data=st.data())
@settings(deadline=None, max_examples=120)
def test_messages_may_be_cut_anywhere(messages: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    deframer = Deframer()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)]):
        found += deframer.feed(raw[start:end])
    assert found == messages
    assert not deframer.partial


def test_a_message_is_given_when_it_is_whole() -> None:
    deframer = Deframer()
    raw = frame(b"hello")
    for byte in raw[:-1]:
        assert deframer.feed(bytes((byte,))) == []
        assert deframer.partial
    assert deframer.feed(raw[-1:]) == [b"hello"]
    assert not deframer.partial


def test_the_form() -> None:
    assert frame(b"") == bytes(5)
    assert frame(b"ab") == b"\0\0\0\0\x02ab"
    assert Deframer().feed(frame(b"") * 2) == [b"", b""]


@pytest.mark.parametrize(
    "head",
    [b"\x01\0\0\0\x01", b"\x80\0\0\0\x01", b"\0\xff\xff\xff\xff", b"\0" + (framing.LARGEST + 1).to_bytes(4, "big")],
)
def test_what_was_not_agreed_is_refused_before_it_has_come(head: bytes) -> None:
    """Compression, and a length that would be kept in memory."""
    with pytest.raises(PeerProtocolError, match="compressed, which was not asked for, or too long"):
        Deframer().feed(frame(b"fine") + head)


def test_the_longest_message() -> None:
    assert Deframer().feed(b"\0" + framing.LARGEST.to_bytes(4, "big")) == []


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("", b""),
        ("plain words: 1 + 1 = ~2!", b"plain words: 1 + 1 = ~2!"),
        ("100%", b"100%25"),
        ("a\nb\tc\0", b"a%0Ab%09c%00"),
        ("ü€", b"%C3%BC%E2%82%AC"),
        ("\x7f\x1f", b"%7F%1F"),
        ("\ud800", b"?"),
    ],
)
def test_a_message_in_a_header(text: str, raw: bytes) -> None:
    assert percent_encoded(text) == raw
    if "\ud800" not in text:
        assert percent_decoded(raw) == text


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=60)
def test_any_text_passes_a_header(text: str) -> None:
    raw = percent_encoded(text)
    assert all(0x20 <= byte <= 0x7E for byte in raw)
    assert unquote_to_bytes(raw) == text.encode("utf-8", "replace")


@pytest.mark.parametrize(("raw", "text"), [(b"%", "%"), (b"%zz", "%zz"), (b"%FF", "�"), (b"\xff", "ÿ")])
def test_a_message_that_is_not_well_formed_is_still_read(raw: bytes, text: str) -> None:
    assert percent_decoded(raw) == text


def test_trailers() -> None:
    assert status_trailers(OK) == [(b"grpc-status", b"0")]
    assert status_trailers(CallStatus(Code.NOT_FOUND, "no\nfile")) == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no%0Afile"),
    ]
