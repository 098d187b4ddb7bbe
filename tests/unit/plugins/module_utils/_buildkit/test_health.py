# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import health as messages
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import CallStatus, Code, UnaryCall

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


def test_what_is_announced() -> None:
    assert set(health.Health().methods()) == {CHECK, WATCH}


def test_the_session_serves() -> None:
    call = health.Health().methods()[CHECK]({})
    assert call.produce(100) == []
    call.receive(messages.HealthCheckRequest(service="").SerializeToString())
    call.half_close()
    [answer] = call.produce(100)
    assert answer == messages.HealthCheckResponse(status=1).SerializeToString()
    assert call.finished


def test_watching_is_announced_and_refused() -> None:
    with pytest.raises(CallStatus) as caught:
        health.Health().methods()[WATCH]({})
    assert caught.value.code == Code.UNIMPLEMENTED


def test_a_unary_call_has_one_message() -> None:
    call = UnaryCall(lambda request: request + b"!")
    with pytest.raises(CallStatus, match="no message"):
        call.half_close()
    call.receive(b"a")
    with pytest.raises(CallStatus, match="more than one message"):
        call.receive(b"b")
    assert (call.produce(10), call.finished, call.held()) == ([b"a!"], True, 0)
