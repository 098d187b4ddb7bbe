# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a build does, from its Status stream: state of every step, the end of the log, the warnings.

`Progress` folds StatusResponse messages (wire §6.2) and renders the lines of the CLI's `--progress=plain`
(wire §6.3). Memory depends on the number of steps, never on the length of the log: each step keeps the end
of its own output, and the rendered log keeps its end; whoever wants all of it passes `sink`.

The CLI decides by event rate and wall clock when it prints, and which of several running steps. Here it is
decided by the times and texts in the stream, so that the same messages give the same lines: every TICK, or
when a step has CROWD lines to say. A step that has ended is shown first; the one that is shown stays until
it ends or is silent for QUIET, or until another makes a crowd. What is held back comes with refresh().
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from .logtext import Tail, clean_text
from .vertex import NS, LocalVertex, Run, SubTask, VertexState

TICK = NS // 10  # the daemon tells of one step in several messages within milliseconds
QUIET = 5 * NS
CROWD = 64  # lines
WARNINGS_MAX = 500
EXCERPT = 10  # lines of a failed step that the CLI repeats at the end

# Names of work that is no step of a Dockerfile. FROM is none either: in a build that is cached to the last
# step its vertex is still run, to resolve the reference, and ends as DONE (seen with v0.34.2).
_NO_STEP = re.compile(
    r"\[(?:[^\]]* )?internal\]|\[auth\]|\[context (?!\d+/\d+\])|\[[^\]]*\] FROM |docker-image://|"
    r"(?:exporting|importing|preparing|resolve|resolving|loading|sending|pushing) "
)


@dataclass(frozen=True)
class BuildWarning:
    """A VertexWarning: mostly a lint rule of the Dockerfile. line: 1-based, 0 when there is none."""

    short: str
    detail: tuple[str, ...]
    url: str
    level: int
    filename: str
    line: int


class Progress:
    """Fold of one build, and of what this side does before and after it. Threads may share it.

    tail_lines, tail_bytes: bounds of each step's tail and of the rendered log's.
    header:                 what the CLI says as `#0 …`.
    sink:                   is given every rendered text, whole lines; for a log file or a display.
    """

    def __init__(
        self,
        *,
        tail_lines: int = 200,
        tail_bytes: int = 16384,
        header: str = "",
        sink: Optional[Callable[[str], object]] = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._bounds = (tail_lines, tail_bytes)
        self._tail = Tail(tail_lines, tail_bytes)
        self._sink, self._clock = sink, clock
        self._lock = threading.RLock()
        self._states: dict[str, VertexState] = {}  # by digest, local and group id, in order of arrival
        self._member_of: dict[str, VertexState] = {}  # digest of a member → its group
        self._waiting: dict[str, VertexState] = {}  # have something to say, in order of arrival
        self._current: Optional[VertexState] = None
        self._numbers = 0
        self._begun = False
        self._now = self._ticked = 0  # newest time in the stream, and that at which was rendered
        self._crowded = False
        self._out: list[str] = [f"#0 {clean_text(header)}", ""] if header else []
        self._warnings: dict[BuildWarning, None] = {}
        self._finished = False

    # -- what is folded in

    def update(self, response: Any) -> None:
        """Fold one StatusResponse."""
        with self._lock:
            for vertex in response.vertexes:
                self._fold_vertex(vertex)
            for status in response.statuses:
                self._fold_subtask(status)
            for warning in response.warnings:
                self._fold_warning(warning)
            self._fold_logs(response.logs)
            if self._crowded or self._now - self._ticked >= TICK:
                self._render()

    def local(self, name: str) -> LocalVertex:
        """A step of this side, such as `[internal] booting buildkit`; it is running from now on."""
        with self._lock:
            state = VertexState(f"local:{len(self._states)}", clean_text(name), *self._bounds)
            state.local = True
            self._states[state.digest] = state
            return LocalVertex(state, self._change, self._clock)

    def refresh(self) -> None:
        """Render what is held back: from time to time when somebody watches the sink."""
        with self._lock:
            self._render()

    # -- what came of it

    def lines(self) -> list[str]:
        """The end of the rendered log; what steps in the background have to say may come with finish() only."""
        with self._lock:
            self._render()
            return self._tail.lines()

    def vertex(self, digest: str) -> Optional[VertexState]:
        """The step with this digest, or the group that shows it."""
        with self._lock:
            return self._find(digest)

    def vertices(self) -> Iterator[VertexState]:
        """Every step that was heard of, groups in place of their members, in order of arrival."""
        with self._lock:
            return iter(list(self._states.values()))

    @property
    def warnings(self) -> list[BuildWarning]:
        """Each warning once, in order of arrival, at most WARNINGS_MAX."""
        with self._lock:
            return list(self._warnings)

    def executed(self) -> list[str]:
        """Names of steps that were run and not taken from the cache; [] for a build that changed nothing.

        ADD of a remote source is two vertices of one name, of which the first, the fetch, is always run:
        a name counts only when no vertex of that name was cached. What failed left nothing, and is not listed.
        """
        ran: dict[str, bool] = {}
        for state in sorted(self.vertices(), key=lambda state: state.completed or 0):
            if state.local or _NO_STEP.match(state.name):
                continue
            if state.cached:
                ran[state.name] = False
            elif state.completed is not None and not state.error:
                ran.setdefault(state.name, True)
        return [name for name, really in ran.items() if really]

    def finish(self) -> None:
        """Render what was held back, and the last lines of every failed step as the CLI repeats them."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
            for state in self._states.values():
                if state.number and not state.ended and state.completed is not None:
                    self._waiting.setdefault(state.digest, state)
            for state in sorted(self._shown(), key=lambda state: state.completed or self._now):
                self._show(state, last=True)
            for state in self._states.values():
                if state.error and state.number and not state.canceled:
                    self._out += ["------", f" > {state.name}:", *state.tail[-EXCERPT:], "------"]
            self._flush()

    # -- folding

    def _find(self, digest: str) -> Optional[VertexState]:
        return self._member_of.get(digest) or self._states.get(digest)

    def _change(self, state: VertexState, fold: Callable[[VertexState], object]) -> None:
        """Change a step of this side, for LocalVertex. Its clock is not the stream's, so it is shown at once."""
        with self._lock:
            fold(state)
            self._touch(state, 0)
            self._render()

    def _touch(self, state: VertexState, now: int) -> None:
        self._now = max(self._now, now)
        state.seen = self._now
        self._waiting.setdefault(state.digest, state)

    def _state(self, digest: str) -> VertexState:
        state = self._states.get(digest)
        if state is None:
            state = self._states[digest] = VertexState(digest, "", *self._bounds)
        return state

    def _fold_vertex(self, vertex: Any) -> None:
        run = _run(vertex)
        name, error = clean_text(vertex.name), clean_text(vertex.error)
        if vertex.HasField("progressGroup"):
            group = vertex.progressGroup
            state = self._member_of[vertex.digest] = self._state(group.id)
            state.name = clean_text(group.name)
            changed = state.fold_member(vertex.digest, run, cached=vertex.cached, error=error, weak=group.weak)
        else:
            state = self._state(vertex.digest)
            changed = state.fold(name, run, cached=vertex.cached, error=error)
        if changed:
            self._touch(state, run[1] or run[0] or 0)

    def _fold_subtask(self, status: Any) -> None:
        state = self._find(status.vertex)
        if state is None:
            return
        stamp = _time(status, "timestamp") or 0
        if state.fold_subtask(SubTask(clean_text(status.ID), status.current, status.total, stamp, *_run(status))):
            self._touch(state, stamp)

    def _fold_warning(self, warning: Any) -> None:
        ranges = warning.ranges
        found = BuildWarning(
            short=clean_text(warning.short.decode("utf-8", "replace")),
            detail=tuple(clean_text(line.decode("utf-8", "replace")) for line in warning.detail),
            url=clean_text(warning.url),
            level=warning.level,
            filename=clean_text(warning.info.filename),
            line=ranges[0].start.line if ranges else 0,
        )
        if found in self._warnings or len(self._warnings) >= WARNINGS_MAX:
            return
        self._warnings[found] = None
        state = self._find(warning.vertex)
        if state is not None:
            state.notes.append(f"WARN: {found.short}")
            self._touch(state, 0)

    def _fold_logs(self, logs: Iterable[Any]) -> None:
        """Group by step first: what is left to do per message decides how long a million lines take."""
        groups: dict[str, list[Any]] = {}
        last, add = "", None
        for log in logs:
            digest = log.vertex
            if digest != last or add is None:
                last, add = digest, groups.setdefault(digest, []).append
            add(log)
        for digest, messages in groups.items():
            state = self._find(digest)
            if state is None:
                continue
            kept = messages if self._sink else _newest(messages, self._bounds[0])
            output = [((stamp := log.timestamp).seconds * NS + stamp.nanos, log.msg) for log in kept]
            state.fold_output(output, skipped=kept is not messages)
            self._crowded = self._crowded or len(state.pending) >= CROWD
            self._touch(state, output[-1][0])

    # -- rendering

    def _shown(self) -> list[VertexState]:
        """Those in waiting that may be shown: members of a weak group wait until the group is wanted."""
        return [state for state in self._waiting.values() if not state.hidden]

    def _render(self) -> None:
        """Show what is due."""
        self._ticked, self._crowded = self._now, False
        waiting = self._shown()
        was = self._current
        ended = [state for state in waiting if state.completed is not None]
        for state in sorted(ended, key=lambda state: (state is not was, state.completed)):
            self._show(state)
        rest = [state for state in waiting if state.completed is None]
        if rest:
            if was in rest:
                self._show(was)
            elif self._current is None or self._now - self._current.seen >= QUIET:
                self._show(max(rest, key=lambda state: len(state.pending)))
            for state in rest:
                if len(state.pending) >= CROWD:
                    self._show(state)
        self._flush()

    def _show(self, state: VertexState, *, last: bool = False) -> None:
        """Say all that `state` has to say; `last`: no more will come, so an open sub-task does not hold its end."""
        del self._waiting[state.digest]
        if not state.number:
            self._numbers += 1
            state.number = self._numbers
        head = f"#{state.number} "
        if state is not self._current:
            if self._current is not None:
                self._out.append(f"#{self._current.number} ...")
            if self._begun:
                self._out.append("")
            self._begun = True
            self._out.append(head + state.name)
            self._current = state
        said, is_open = state.take(last=last)
        self._out += [head + line for line in said]
        if state.completed is not None and (last or state.local or not is_open):
            self._current = None
            state.ended = True
            self._out.append(head + state.outcome())

    def _flush(self) -> None:
        if self._out:
            text = "\n".join(self._out)  # names and errors of several lines become lines
            self._out = []
            self._tail.extend(text.split("\n"), len(text))
            if self._sink is not None:
                self._sink(text + "\n")


def _newest(messages: list[Any], lines: int) -> list[Any]:
    """The last VertexLogs that hold `lines` lines, from one where a line begins: nobody will see those before them."""
    count = 0
    for at in range(len(messages) - 1, lines, -1):
        count += messages[at].msg.count(b"\n")
        if count >= lines and messages[at - 1].msg.endswith(b"\n"):
            return messages[at:]
    return messages


def _run(message: Any) -> Run:
    return _time(message, "started"), _time(message, "completed")


def _time(message: Any, field: str) -> Optional[int]:
    """Nanoseconds of an optional Timestamp."""
    if not message.HasField(field):
        return None
    stamp = getattr(message, field)
    return int(stamp.seconds * NS + stamp.nanos)
