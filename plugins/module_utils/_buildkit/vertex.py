# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""One step of a build as progress.py knows it: its state, what it has to say, the end of its output.

Times are nanoseconds since 1970 by the clock of whoever sent them, None for not yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Optional

from .logtext import LINE_MAX, Tail, clean, clean_text, shorten

NS = 1_000_000_000
ROUNDING = 500_000  # times within the same half of a millisecond are written alike
PARTIAL_MAX = 4 * LINE_MAX  # bytes of a line that has not ended yet
STATUS_STEP = 0.05  # of its total; a sub-task that moved less is not shown again
STATUS_PAUSE = 5 * NS  # unless this much time has passed


Run = tuple[Optional[int], Optional[int]]
"""When something started and completed."""


@dataclass
class SubTask:
    """A sample of a sub-task of a step, such as `transferring context:` (VertexStatus). current, total: bytes."""

    ident: str
    current: int
    total: int
    stamp: int
    started: Optional[int]
    completed: Optional[int]
    fresh: bool = True  # changed since it was last looked at
    shown: Optional[tuple[int, int]] = None  # current, stamp when it was last shown

    def due(self) -> bool:
        """Whether the change is worth a line."""
        if self.completed is not None or self.shown is None:
            return True
        current, stamp = self.shown
        moved = (self.current - current) / self.total if self.total > 0 else 0.0
        return moved >= STATUS_STEP or self.stamp - stamp >= STATUS_PAUSE

    def line(self) -> str:
        text = self.ident
        if self.total:
            text += f" {size(self.current)} / {size(self.total)}"
        elif self.current:
            text += f" {size(self.current)}"
        if self.started is not None:
            seconds = ((self.stamp if self.completed is None else self.completed) - self.started) / NS
            if seconds > 0.01:
                text += f" {seconds:.1f}s"
        return text if self.completed is None else text + " done"


class VertexState:
    """A step, or a progress group that is shown in place of its members.

    number: as printed, 0 until then. error: "" for none. ended: its last state has been printed.
    hidden: a group of which only weak members have started. local: a step of this side.
    """

    def __init__(self, digest: str, name: str, lines: int, room: int) -> None:
        self.digest, self.name = digest, name
        self.number = 0
        self.cached = False
        self.error = ""
        self.ended = self.hidden = self.local = False
        self.seen = 0
        self._tail = Tail(lines, room)
        self.pending: list[str] = []  # lines of output that are not printed yet
        self.notes: list[str] = []  # warnings that are not printed yet
        self._most_hidden = lines
        self._intervals: dict[int, Optional[int]] = {}  # a step may run twice: for its cache key, and for its result
        self._members: dict[str, tuple[bool, str]] = {}
        self._subtasks: dict[str, SubTask] = {}  # in the order in which they started
        self._partial = b""
        self._stamp: Optional[str] = None  # of the line that _partial begins

    @property
    def started(self) -> Optional[int]:
        """When it last started."""
        return max(self._intervals, default=None)

    @property
    def completed(self) -> Optional[int]:
        """When its last run ended."""
        return self._intervals[max(self._intervals)] if self._intervals else None

    @property
    def canceled(self) -> bool:
        return self.error.endswith("context canceled")

    @property
    def seconds(self) -> float:
        """How long it ran, runs that overlap counted once; a run that has no end counts nothing."""
        total, reached = 0, 0
        for start, stop in sorted((a, b) for a, b in self._intervals.items() if b is not None):
            total += max(0, stop - max(start, reached))
            reached = max(reached, stop)
        return total / NS

    @property
    def log(self) -> list[str]:
        """The last lines of its output, oldest first, as the program wrote them (but see logtext.clean)."""
        return [line.partition(" ")[2] for line in self.tail]

    @property
    def tail(self) -> list[str]:
        """The same as printed, with seconds since it started: `0.067 text`."""
        return self._tail.lines()

    def fold(self, name: str, run: Run, *, cached: bool, error: str) -> bool:
        """Take the full state of the vertex; whether that is something to show."""
        started, completed = run
        if started is None and self._intervals:
            return False  # a late duplicate of the first message
        same = (self.name, self.cached, self.error) == (name, cached, error)
        if same and started is not None and self._intervals.get(started, 0) == completed:
            return False
        self.name, self.cached, self.error = name, cached, error
        return self._ran(run)

    def fold_member(self, digest: str, run: Run, *, cached: bool, error: str, weak: bool) -> bool:
        """Take the state of one member: a group is cached when all are, and has the first error of one."""
        if not self._members:
            self.hidden = True
        before = (self.cached, self.error, self.hidden, dict(self._intervals))
        self._members[digest] = (cached, error)
        self.cached = all(cached for cached, _error in self._members.values())
        self.error = self.error or error
        if error or (run[0] is not None and not weak):
            self.hidden = False
        self._ran(run)
        return before != (self.cached, self.error, self.hidden, self._intervals)

    def _ran(self, run: Run) -> bool:
        started, completed = run
        if started is None:
            return False
        self._intervals[started] = completed
        self.ended = False
        return True

    def fold_subtask(self, sample: SubTask) -> bool:
        """Take a sample of a sub-task; one that never had a start is not shown (wire §6.2)."""
        before = self._subtasks.get(sample.ident)
        if before is None and sample.started is None:
            return False
        if before is not None:
            sample.shown = before.shown
        self._subtasks[sample.ident] = sample
        return True

    def fold_output(self, output: list[tuple[int, bytes]], *, skipped: bool = False) -> None:
        """Take chunks (time, bytes) that need not be whole lines; a line has the time at which it began.

        skipped: more was before, more lines than are kept, and it ended with a line feed.
        What can be done for all chunks at once is done so: there may be a million of them.
        """
        if skipped:
            self._stamp, self._partial = None, b""
        origin = self.started
        stamps: list[str] = []
        begun, last, text = self._stamp, -1, "0.000"
        for when, data in output:
            if origin is not None and (cell := (when - origin) // ROUNDING) != last:
                last, text = cell, stamp(when - origin)
            ends = data.count(b"\n")
            if ends:
                stamps.append(begun or text)
                if ends > 1:
                    stamps += [text] * (ends - 1)
                begun = None if data[-1] == 10 else text
            elif data and begun is None:
                begun = text
        whole = self._partial + b"".join([data for _when, data in output])
        self._stamp = begun
        if stamps:
            done, _feed, whole = whole.rpartition(b"\n")
            self._add(stamps, done)
        self._partial = _bounded(whole)

    def take(self, *, last: bool) -> tuple[list[str], bool]:
        """What is new since the last call, sub-tasks first; and whether one of these goes on.

        last: nothing more will come, so a line without an end counts as one, as it does when the step is complete.
        """
        if self._stamp is not None and (last or self.completed is not None):
            self._add([self._stamp], self._partial)
            self._stamp, self._partial = None, b""
        said, is_open = [], False
        for task in self._subtasks.values():
            if task.fresh and task.due():
                task.shown = (task.current, task.stamp)
                is_open = is_open or task.completed is None
                said.append(task.line())
            task.fresh = False
        said += self.notes
        said += self.pending
        self.notes, self.pending = [], []
        return said, is_open

    def outcome(self) -> str:
        """The line that ends it."""
        if self.error:
            return "CANCELED" if self.canceled else f"ERROR: {self.error}"
        return "CACHED" if self.cached else f"DONE {self.seconds:.1f}s"

    def _add(self, stamps: list[str], done: bytes) -> None:
        """Add lines, one stamp each."""
        texts = clean(done).split("\n")
        if len(done) > LINE_MAX:
            texts = [shorten(text) for text in texts]
        lines = [f"{when} {text}" for when, text in zip(stamps, texts)]
        self._tail.extend(lines, len(done))
        self.pending += lines
        if self.hidden:  # perhaps for ever
            del self.pending[: -self._most_hidden]


class LocalVertex:
    """Handle of a step of this side; as a context manager it ends with DONE, or with the exception as its error."""

    def __init__(
        self,
        state: VertexState,
        change: Callable[[VertexState, Callable[[VertexState], object]], None],
        clock: Callable[[], int],
    ) -> None:
        self._state, self._change, self._clock = state, change, clock
        self._started = clock()
        self._subtasks: dict[str, int] = {}
        self._fold(None)

    def log(self, text: str | bytes) -> None:
        """Output: bytes in pieces as they come, or one or more whole lines of text."""
        data = text if isinstance(text, bytes) else text.rstrip("\n").encode("utf-8", "replace") + b"\n"
        now = self._clock()
        self._change(self._state, lambda state: state.fold_output([(now, data)]))

    def status(self, ident: str, *, done: bool = False, current: int = 0, total: int = 0) -> None:
        """A sub-task such as `pulling image X`; it starts when it is first named. current, total: bytes."""
        now = self._clock()
        started = self._subtasks.setdefault(ident, now)
        sample = SubTask(clean_text(ident), current, total, now, started, now if done else None)
        self._change(self._state, lambda state: state.fold_subtask(sample))

    def done(self, *, cached: bool = False) -> None:
        self._fold(self._clock(), cached=cached)

    def error(self, text: str) -> None:
        self._fold(self._clock(), error=clean_text(text))

    def __enter__(self) -> LocalVertex:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._state.completed is not None:
            return  # ended by hand
        if exc is None:
            self.done()
        else:
            self.error(str(exc) or type(exc).__name__)

    def _fold(self, completed: Optional[int], *, cached: bool = False, error: str = "") -> None:
        def fold(state: VertexState) -> None:
            state.fold(state.name, (self._started, completed), cached=cached, error=error)

        self._change(self._state, fold)


def stamp(elapsed: int) -> str:
    """Seconds since the start of a step with the precision that the CLI gives to them."""
    seconds = elapsed / NS
    if seconds < 10:
        return f"{seconds:.3f}"
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.1f}"


def size(count: int) -> str:
    """Bytes as the CLI writes them: `512B`, `1.05MB`, decimal units."""
    if abs(count) < 1000:
        return f"{count}B"
    value, unit = float(count), ""
    for unit in ("kB", "MB", "GB", "TB", "PB", "EB"):  # noqa: B007 - the last one is used
        value /= 1000
        if abs(value) < 1000:
            break
    return f"{value:.2f}{unit}"


def _bounded(partial: bytes) -> bytes:
    if len(partial) <= PARTIAL_MAX:
        return partial
    return partial[partial.rfind(b"\r", 0, -1) + 1 :][:PARTIAL_MAX]  # of a progress bar only the last writing counts
