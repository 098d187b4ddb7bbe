# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A result on its way to a sink: which one, when it is acknowledged, and what happens to half of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import METHOD, FileSend, streamed
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import (
    Call,
    CallStatus,
    Code,
    Metadata,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.wirebytes import bytes_message
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, PeerProtocolError


class Sink:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.content = b""
        self.log: list[str] = []
        self.holding = 0
        self.ready = False
        self.failure: Exception | None = None
        self.metadata: Metadata = {}
        self.wake: Callable[[], None] = lambda: None

    def factory(self, metadata: Metadata, wake: Callable[[], None]) -> Sink:
        self.metadata, self.wake = metadata, wake
        return self

    def write(self, data: bytes) -> None:
        self.content += data

    def held(self) -> int:
        return self.holding

    def end(self) -> None:
        self.log.append("end")

    def outcome(self) -> bool:
        if self.failure is not None:
            raise self.failure
        return self.ready

    def abort(self) -> None:
        self.log.append("abort")


def opened(sink: Sink, metadata: Metadata | None = None) -> Call:
    return FileSend({0: streamed(sink.factory)}).methods()[METHOD](metadata or {})


def test_a_result_arrives_and_is_acknowledged_when_the_sink_is_done() -> None:
    sink = Sink()
    call = opened(sink)
    for part in (b"one", b"", b"two"):
        call.receive(bytes_message(part))
        assert (call.produce(100), call.finished) == ([], False)
    call.half_close()
    assert (sink.content, sink.log) == (b"onetwo", ["end"])
    assert (call.produce(100), call.finished) == ([], False), "the daemon would count it as exported"
    sink.ready = True
    assert (call.produce(100), call.finished) == ([], True)


def test_the_sink_wakes_the_session_as_it_is_set_later() -> None:
    woken = []
    sink = Sink()
    call = opened(sink)
    call.wake = lambda: woken.append(1)
    sink.wake()
    assert woken == [1]


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({}, "first"),
        ({"buildkit-attachable-exporter-id": ("0",)}, "first"),
        ({"buildkit-attachable-exporter-id": ("2",)}, "third"),
        ({"buildkit-attachable-exporter-id": ("2", "0")}, "third"),
        ({"buildkit-attachable-exporter-id": ()}, "first"),
    ],
)
def test_which_exporter_a_result_is_of(metadata: Metadata, name: str) -> None:
    """Before BuildKit 0.13 there is one only, and no number (wire §2.9)."""
    sinks = {0: Sink("first"), 2: Sink("third")}
    call = FileSend({index: streamed(sink.factory) for index, sink in sinks.items()}).methods()[METHOD](metadata)
    call.receive(bytes_message(b"x"))
    assert [sink.name for sink in sinks.values() if sink.content] == [name]
    [sink] = [sink for sink in sinks.values() if sink.content]
    assert sink.metadata == metadata


@pytest.mark.parametrize("number", ["1", "x", "-0", "", "\xb2", "\u0660", "00", "9" * 5000])
def test_an_exporter_that_nobody_asked_for(number: str) -> None:
    with pytest.raises(CallStatus, match="nothing here takes the result of exporter") as caught:
        opened(Sink(), {"buildkit-attachable-exporter-id": (number,)})
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_what_the_sink_holds_slows_the_daemon_down() -> None:
    sink = Sink()
    call = opened(sink)
    sink.holding = 5 << 20
    assert call.held() == 5 << 20


def test_a_sink_that_failed_ends_the_call() -> None:
    sink = Sink()
    call = opened(sink)
    call.half_close()
    sink.failure = EngineError("no space left on device")
    with pytest.raises(EngineError, match="no space left"):
        call.produce(100)
    assert not call.finished


def test_a_call_that_is_cut_off_aborts_the_sink() -> None:
    sink = Sink()
    call = opened(sink)
    call.receive(bytes_message(b"half"))
    call.cancel()
    assert sink.log == ["abort"]


def test_what_is_no_bytes_message_is_the_daemons_fault() -> None:
    with pytest.raises(PeerProtocolError):
        opened(Sink()).receive(b"\x12\x01x")
