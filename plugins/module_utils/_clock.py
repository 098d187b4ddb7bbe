# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Deadlines: a wait is given what is left of a budget, never a number of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Optional

Clock = Callable[[], float]


class Deadline:
    """A point in monotonic time. seconds None: no end."""

    def __init__(self, seconds: Optional[float], clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds
        self.seconds = seconds

    def left(self) -> Optional[float]:
        """Seconds that are left, never below 0; None without an end."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def within(self, seconds: float) -> float:
        """`seconds`, or what is left when that is less."""
        left = self.left()
        return seconds if left is None else min(seconds, left)

    @property
    def passed(self) -> bool:
        return self.left() == 0.0


def attempts(
    deadline: Deadline, *, first: float = 0.02, longest: float = 0.5, sleep: Callable[[float], None] = time.sleep
) -> Iterator[int]:
    """Count attempts, with growing pauses in between, and stop after the one that the deadline ended.

    There is always one attempt. The pause starts at `first` seconds and grows by half up to `longest`:
    a condition that comes soon is seen soon, one that takes long costs little.
    """
    number, pause = 0, first
    while True:
        yield number
        if deadline.passed:
            return
        sleep(deadline.within(pause))
        number, pause = number + 1, min(pause * 1.5, longest)
