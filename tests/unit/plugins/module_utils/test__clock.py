# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline, attempts


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_what_is_left_becomes_less_and_never_negative() -> None:
    clock = FakeClock()
    deadline = Deadline(10, clock)
    assert deadline.left() == 10
    clock.sleep(4)
    assert (deadline.left(), deadline.passed) == (6, False)
    clock.sleep(7)
    assert (deadline.left(), deadline.passed) == (0, True)
    assert deadline.seconds == 10


def test_without_an_end_there_is_always_time() -> None:
    clock = FakeClock()
    deadline = Deadline(None, clock)
    clock.sleep(1e9)
    assert deadline.left() is None
    assert deadline.within(5) == 5
    assert not deadline.passed


@pytest.mark.parametrize(("asked", "given_time"), [(5, 5), (10, 10), (20, 10), (0, 0)])
def test_a_wait_never_gets_more_than_is_left(asked: float, given_time: float) -> None:
    assert Deadline(10, FakeClock()).within(asked) == given_time


def test_the_first_attempt_is_always_made() -> None:
    clock = FakeClock()
    assert list(attempts(Deadline(0, clock), sleep=clock.sleep)) == [0]
    assert clock.slept == []


def test_pauses_grow_by_half_up_to_the_longest() -> None:
    clock = FakeClock()
    counted = itertools.islice(attempts(Deadline(None, clock), first=0.1, longest=0.3, sleep=clock.sleep), 6)
    assert list(counted) == [0, 1, 2, 3, 4, 5]
    assert clock.slept == pytest.approx([0.1, 0.15, 0.225, 0.3, 0.3])


@given(
    seconds=st.floats(0, 30),
    first=st.floats(0.01, 1),
    longest=st.floats(0.01, 2),
    work=st.floats(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_the_last_attempt_is_the_one_that_the_deadline_ended(
    seconds: float, first: float, longest: float, work: float
) -> None:
    """One more look is taken at the very end, and no sleep reaches beyond it."""
    clock = FakeClock(0.0)
    began = []
    for _attempt in attempts(Deadline(seconds, clock), first=first, longest=longest, sleep=clock.sleep):
        began.append(clock.now)
        clock.now += work
    assert began[-1] <= seconds + 1e-6
    assert clock.now >= seconds - 1e-6
    assert all(pause <= max(first, longest) + 1e-9 for pause in clock.slept)
