# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Status stream becomes the CLI's plain log, in bounded memory, whatever the programs print."""

from __future__ import annotations

import base64
import json
import re
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.logtext import LINE_MAX, clean, clean_text
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import BuildWarning, Progress
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.vertex import PARTIAL_MAX, size, stamp

GOLDEN = Path(__file__).parent / "golden" / "builds"  # written by tools/record_builds.py, never by hand
CASES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*.json"))
}
T0 = 1_700_000_000


def responses(case: dict[str, Any], key: str) -> list[Any]:
    return [control.StatusResponse.FromString(base64.b64decode(part)) for part in case[key]]


def folded(messages: Iterable[Any], **options: Any) -> Progress:
    progress = Progress(**{"tail_lines": 10_000, "tail_bytes": 10_000_000, **options})
    for message in messages:
        progress.update(message)
    progress.finish()
    return progress


def at(field: Any, seconds: float) -> None:
    field.FromNanoseconds(T0 * 10**9 + round(seconds * 10**9))


class Build:
    """Writes StatusResponses: `build.step("a", 0, 1.5)`, `build.log("a", 0.5, b"text\\n")`."""

    def __init__(self) -> None:
        self.message = control.StatusResponse()

    def sent(self) -> Any:
        message, self.message = self.message, control.StatusResponse()
        return message

    def step(self, digest: str, start: Optional[float], stop: Optional[float] = None, **fields: Any) -> Build:
        vertex = self.message.vertexes.add(digest=digest, **{"name": f"[1/1] RUN {digest}", **fields})
        if start is not None:
            at(vertex.started, start)
        if stop is not None:
            at(vertex.completed, stop)
        return self

    def log(self, digest: str, when: float, text: bytes) -> Build:
        at(self.message.logs.add(vertex=digest, msg=text).timestamp, when)
        return self

    def task(
        self, digest: str, name: str, start: Optional[float], now: float, *, done: bool = False, **sizes: int
    ) -> Build:
        status = self.message.statuses.add(vertex=digest, ID=name, **sizes)
        at(status.timestamp, now)
        if start is not None:
            at(status.started, start)
        if done:
            at(status.completed, now)
        return self


# -- against the CLI


def test_corpus_is_there() -> None:
    """An empty corpus would let the next tests pass."""
    assert len(CASES) >= 20
    assert all(case["source"] for case in CASES.values())


def blocks(text: str) -> Counter[str]:
    """The parts between blank lines, without their numbers; times of groups are left out (see below)."""
    plain = re.sub(r"^#\d+ ", "", text, flags=re.MULTILINE)
    plain = re.sub(r"(COPY --link(?:.*\n)+?DONE) [0-9.]+s", r"\1", plain)
    return Counter(plain.strip("\n").split("\n\n"))


@pytest.mark.parametrize("name", CASES)
def test_same_text_as_the_cli(name: str) -> None:
    """A build replayed from the history is printed as `history logs --progress=plain` prints it.

    Steps that ended at the same time have no order in the CLI (it iterates a Go map), so their blocks are
    compared as a set. Of a group's member the CLI sees only the last state in a message, and leaves out the
    time of earlier runs; live it counts them, as we always do.
    """
    case = CASES[name]
    progress = folded(responses(case, "replay"))
    ours = "\n".join(progress.lines()) + "\n"
    assert blocks(ours) == blocks(case["replay_printed"])
    ends = [state.completed for state in progress.vertices()]
    if len(set(ends)) == len(ends) and "group" not in name:
        assert ours == case["replay_printed"]


def summary(progress: Progress) -> list[tuple[object, ...]]:
    return sorted((s.name, s.cached, s.error, s.started, s.completed, s.log) for s in progress.vertices())


@pytest.mark.parametrize("name", CASES)
def test_live_stream_tells_the_same(name: str) -> None:
    """Many small messages while it happens, or one big one later: the same steps, log and warnings."""
    case = CASES[name]
    live, replay = folded(responses(case, "live")), folded(responses(case, "replay"))
    assert summary(live) == summary(replay)
    assert live.executed() == replay.executed()
    assert live.warnings == replay.warnings


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
def test_how_messages_are_cut_does_not_matter(data: Any, name: str) -> None:
    """Messages joined at random give the same steps, and each printed line of output once and in order."""
    parts = responses(CASES[name], "live")
    joined = [parts[0]]
    for part in parts[1:]:
        if data.draw(st.booleans()):
            joined[-1].MergeFrom(part)
        else:
            joined.append(part)
    progress = folded(joined)
    assert summary(progress) == summary(folded(responses(CASES[name], "replay")))
    for state in progress.vertices():
        printed = [line for line in progress.lines() if re.match(rf"#{state.number} \d+\.\d+ ", line)]
        assert printed == [f"#{state.number} {line}" for line in state.tail]


# -- output of programs


@given(data=st.binary(max_size=300), data2=st.data())
def test_any_cut_of_the_output_gives_the_same_lines(data: bytes, data2: Any) -> None:
    """Chunks are not line-aligned, may cut a character in two, and need not end with a line feed."""
    build = Build().step("a", 0)
    at_byte = 0
    while at_byte < len(data):
        step = data2.draw(st.integers(1, len(data) - at_byte))
        build.log("a", at_byte, data[at_byte : at_byte + step])
        at_byte += step
    progress = folded([build.sent(), Build().step("a", 0, 400).sent()])
    state = progress.vertex("a")
    assert state is not None
    expected = clean(data).split("\n")
    assert state.log == (expected[:-1] if data.endswith(b"\n") or not data else expected)


def test_a_line_has_the_time_at_which_it_began() -> None:
    """Precision falls with time, as in the CLI; a last line without an end is printed when the step ends."""
    build = Build().step("a", 1).log("a", 1.5, b"be").log("a", 2.5, b"gun\nnext\nla").log("a", 12.25, b"ter\n")
    build.log("a", 101.26, b"end").step("a", 1, 102)
    lines = folded([build.sent()]).lines()
    assert lines == ["#1 [1/1] RUN a", "#1 0.500 begun", "#1 1.500 next", "#1 1.500 later", "#1 100.3 end",
                     "#1 DONE 101.0s"]  # fmt: skip
    assert [stamp(ns) for ns in (0, 9_999_000_000, 12_345_678_901)] == ["0.000", "9.999", "12.35"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"tab\tand \xc3\xa9", "tab\tand é"),
        (b"bad \xff\xfe byte", "bad \ufffd\ufffd byte"),
        (b"\x1b[31;1mred\x1b[0m \x1b]0;title\x07shown\x1b(B", "red shown"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"unfinished \x1b[31", "unfinished 31"),
        (b"10%\r50%\r100%", "100%"),
        (b"dos\r\nline\r\r\n", "dos\nline\n"),
        (b"a\x00b\x08c\x7fd\x0be", "abcde"),
        ("c1 \x9b31m\x85 sep\u2028".encode(), "c1  sep"),
        (b"progress\rx\nnext", "x\nnext"),
    ],
)
def test_clean(raw: bytes, text: str) -> None:
    """What a terminal would act on does not reach a task's result."""
    assert clean(raw) == text


@given(data=st.binary())
def test_clean_text_is_harmless(data: bytes) -> None:
    """Any bytes: the same number of lines, no control characters, encodable, and clean already."""
    text = clean(data)
    assert text.count("\n") == data.count(b"\n")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert clean(text.encode()) == text
    assert clean_text("\udcff") == "?"  # from a file name that is not UTF-8


def test_cleaning_takes_linear_time() -> None:
    """A long line that needs cleaning must not take for ever."""
    began = time.process_time()
    clean(b"\x1b[" + b"x1;" * 500_000 + b"\r")
    clean(b"\x1b[" + b"1;" * 500_000)
    clean(b"\x1b]" * 500_000)
    assert time.process_time() - began < 5


# -- memory and time


def flood(batches: int, lines: int) -> Iterable[Any]:
    for batch in range(batches):
        build = Build()
        for line in range(lines):
            number = batch * lines + line
            build.message.logs.add(vertex="a", msg=b"line %d of a long log\n" % number).timestamp.seconds = T0 + batch
        yield build.sent()


def test_memory_does_not_grow_with_the_log() -> None:
    """A log of 100,000 lines, a line of 20 MB without an end, and one in a group that is never shown."""
    progress = Progress(tail_lines=50, tail_bytes=4096)
    hidden = Build().step("b", 0, progressGroup={"id": "g", "name": "group", "weak": True})
    progress.update(hidden.step("a", 0).step("c", 0).sent())
    for message in flood(2, 1000):
        progress.update(message)
    tracemalloc.start()
    for message in flood(100, 1000):
        for log in message.logs[:100]:
            log.vertex = "b"
        progress.update(message)
    for _number in range(200):
        progress.update(Build().log("c", 1, b"x" * 100_000).sent())
    del message, log  # on a protobuf in pure Python these are memory of ours
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 200_000
    progress.finish()
    for lines in (progress.lines(), *(state.tail for state in progress.vertices())):
        assert len(lines) <= 50
        assert sum(len(line) + 1 for line in lines) <= 4096
    state = progress.vertex("a")
    assert state is not None
    assert state.log[-1] == "line 99999 of a long log"
    assert progress.lines()[-1] == "#2 1.000 " + "x" * (4096 - 13) + "…"


def test_a_long_line_is_cut() -> None:
    """The beginning of a line is kept, with a mark that something is missing."""
    build = Build().step("a", 0).log("a", 0, b"y" * (PARTIAL_MAX + 10)).log("a", 0, b"z\nshort\n")
    state = folded([build.step("a", 0, 1).sent()]).vertex("a")
    assert state is not None
    assert state.log == ["y" * (LINE_MAX - 1) + "…", "short"]


@settings(deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([b"x\n", b"part", b"\n", b"two\nlines\n", b"z"]))),
        max_size=6,
    ),
    bound=st.integers(1, 12),
)
def test_what_is_skipped_would_not_have_been_seen(batches: list[list[tuple[str, bytes]]], bound: int) -> None:
    """Without a sink, lines that cannot be in the tail are not even read; with one all are: the tails agree."""
    messages = [Build().step("a", 0).step("b", 0).step("c", 0).sent()]
    for number, batch in enumerate(batches):
        build = Build()
        for digest, text in batch:
            build.log(digest, number, text)
        messages.append(build.sent())
    seen: list[str] = []
    with_sink = folded(messages, tail_lines=bound, sink=seen.append)
    without = folded(messages, tail_lines=bound)
    for digest in "abc":
        ours, other = without.vertex(digest), with_sink.vertex(digest)
        assert ours is not None
        assert other is not None
        assert ours.tail == other.tail
    assert without.lines() == with_sink.lines()
    assert "".join(seen).split("\n")[-bound - 1 : -1] == with_sink.lines()


# -- steps


def test_the_shown_step_stays_until_it_ends() -> None:
    """Another step waits, with its output, and what ended is shown first; every switch is announced."""
    progress = Progress()
    progress.update(Build().step("a", 0).step("b", 0.01).log("a", 0.1, b"1\n").log("b", 0.1, b"2\n").sent())
    progress.update(Build().log("b", 0.3, b"3\n").log("a", 0.3, b"4\n").step("c", 0.2, 0.3, cached=True).sent())
    assert progress.lines() == [
        "#1 [1/1] RUN a", "#1 0.100 1", "#1 ...", "",
        "#2 [1/1] RUN c", "#2 CACHED", "",
        "#1 [1/1] RUN a", "#1 0.300 4",
    ]  # fmt: skip
    progress.update(Build().step("a", 0, 1).sent())
    assert progress.lines()[9:] == ["#1 DONE 1.0s", "", "#3 [1/1] RUN b", "#3 0.090 2", "#3 0.290 3"]


def test_a_silent_step_makes_room_and_a_crowd_takes_it() -> None:
    """Who watches sees what happens: after five silent seconds, or when another has much to say."""
    progress = Progress()
    progress.update(Build().step("a", 0).step("b", 0).log("a", 1, b"a\n").sent())
    progress.update(Build().log("b", 5, b"b\n").sent())
    assert progress.lines()[-1] == "#1 1.000 a"
    progress.update(Build().log("b", 6, b"c\n").sent())
    assert progress.lines()[-4:] == ["", "#2 [1/1] RUN b", "#2 5.000 b", "#2 6.000 c"]
    crowd = Build().log("b", 6.1, b"d\n")
    for _number in range(64):
        crowd.log("a", 6.1, b"e\n")
    progress.update(crowd.sent())
    assert progress.lines()[-66:-63] == ["", "#1 [1/1] RUN a", "#1 6.100 e"]


def test_a_step_may_run_twice() -> None:
    """For its cache key and for its result: time is the sum, a late duplicate without a start is ignored."""
    progress = Progress()
    for build in (
        Build().step("a", None),
        Build().step("a", 0, 1),
        Build().step("a", None),
        Build().step("a", 3),
        Build().step("a", 3, 4.5, cached=False),
        Build().step("a", 3, 4.5),
    ):
        progress.update(build.sent())
    progress.finish()
    assert progress.lines() == ["#1 [1/1] RUN a", "#1 DONE 1.0s", "", "#1 [1/1] RUN a", "#1 DONE 2.5s"]
    state = progress.vertex("a")
    assert state is not None
    assert (state.seconds, state.started, state.completed) == (2.5, (T0 + 3) * 10**9, T0 * 10**9 + 4_500_000_000)


def test_overlapping_runs_count_once() -> None:
    """Members of a group run at the same time."""
    build = Build()
    for digest, start, stop in (("a", 0, 4), ("b", 1, 2), ("c", 3, 5), ("d", 7, 8)):
        build.step(digest, start, stop, progressGroup={"id": "g", "name": "[2/2] COPY --link x"})
    assert folded([build.sent()]).lines() == ["#1 [2/2] COPY --link x", "#1 DONE 6.0s"]


def test_a_weak_group_is_hidden_until_it_is_wanted() -> None:
    """Its output is kept until then; vertex() of a member is the group; cached only when all members are."""
    weak = {"id": "g", "name": "[2/2] COPY --link x", "weak": True}
    progress = Progress()
    progress.update(Build().step("a", 0, 1, progressGroup=weak, cached=True).log("a", 0.5, b"text\n").sent())
    assert progress.lines() == []
    progress.update(Build().step("b", 2, progressGroup={**weak, "weak": False}, cached=True).sent())
    assert progress.lines() == ["#1 [2/2] COPY --link x", "#1 0.500 text"]
    progress.update(Build().step("b", 2, 3, progressGroup={**weak, "weak": False}, cached=True).sent())
    assert progress.lines()[-1] == "#1 CACHED"
    group = progress.vertex("a")
    assert group is progress.vertex("b")
    assert [state.name for state in progress.vertices()] == ["[2/2] COPY --link x"]


def test_errors_and_cancelled_steps() -> None:
    """A failed step is repeated at the end with its last ten lines, a cancelled one is not."""
    build = Build().step("a", 0).step("b", 0)
    for number in range(12):
        build.log("a", 1, b"line %d\n" % number)
    build.step("a", 0, 2, error="exit code: 1\nsecond line").step("b", 0, 3, error="rpc: context canceled")
    progress = folded([build.sent()])
    assert progress.lines()[13:] == [
        "#1 ERROR: exit code: 1", "second line", "", "#2 [1/1] RUN b", "#2 CANCELED",
        "------", " > [1/1] RUN a:", *(f"1.000 line {number}" for number in range(2, 12)), "------",
    ]  # fmt: skip
    progress.finish()
    assert progress.lines()[-1] == "------"
    assert progress.lines().count("------") == 2


def test_names_of_several_lines_stay_lines() -> None:
    """Each entry of lines() is one line, without control characters."""
    progress = folded([Build().step("a", 0, 1, name="RUN a\n\x1b[31mb\r").sent()])
    assert progress.lines() == ["#1 RUN a", "b", "#1 DONE 1.0s"]


# -- sub-tasks


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (1_050_000, "1.05MB"), (999_999, "1000.00kB"), (-2_000, "-2.00kB"),
     (5 * 10**9, "5.00GB"), (7 * 10**12, "7.00TB"), (2**63 - 1, "9.22EB")],
)  # fmt: skip
def test_size(count: int, text: str) -> None:
    """Decimal units, two decimals, as the CLI."""
    assert size(count) == text


def test_subtasks() -> None:
    """First and last always, in between every 5 % or 5 s; one that never started is not shown."""
    progress = Progress()
    progress.update(Build().step("a", 0).task("a", "never", None, 0).sent())
    for now, current in ((0.2, 100_000), (0.4, 120_000), (0.6, 160_000), (6.0, 170_000)):
        progress.update(Build().task("a", "sha256:x", 0, now, current=current, total=1_000_000).sent())
    progress.update(Build().task("a", "sha256:x", 0, 6.5, current=10**6, total=10**6, done=True).sent())
    progress.update(Build().task("a", "transferring context:", 6.5, 6.6, current=2, done=True).step("a", 0, 7).sent())
    assert progress.lines() == [
        "#1 [1/1] RUN a",
        "#1 sha256:x 100.00kB / 1.00MB 0.2s",
        "#1 sha256:x 160.00kB / 1.00MB 0.6s",
        "#1 sha256:x 170.00kB / 1.00MB 6.0s",
        "#1 sha256:x 1.00MB / 1.00MB 6.5s done",
        "#1 transferring context: 2B 0.1s done",
        "#1 DONE 7.0s",
    ]


def test_an_open_subtask_holds_the_end() -> None:
    """A step is not over while a sub-task of it goes on; finish() ends it."""
    progress = Progress()
    progress.update(Build().step("a", 0, 1).task("a", "pushing", 0, 1).sent())
    assert progress.lines() == ["#1 [1/1] RUN a", "#1 pushing 1.0s"]
    progress.finish()
    assert progress.lines()[-1] == "#1 DONE 1.0s"


def test_what_belongs_to_no_step_is_skipped() -> None:
    """Logs, sub-tasks and warnings of an unknown digest do not disturb."""
    build = Build().log("x", 0, b"text\n").task("x", "task", 0, 1)
    build.message.warnings.add(vertex="x", short=b"lint")
    progress = folded([build.sent()])
    assert progress.lines() == []
    assert progress.vertex("x") is None
    assert [warning.short for warning in progress.warnings] == ["lint"]


# -- this side


def ticking() -> Callable[[], int]:
    """A clock that moves a second each time it is asked."""
    now = iter(range(T0 * 10**9, (T0 + 1000) * 10**9, 10**9))
    return lambda: next(now)


def test_steps_of_this_side() -> None:
    """They share numbering and form with the daemon's, and are shown at once."""
    progress = Progress(header='building with "b" instance', clock=ticking())
    with progress.local("[internal] booting buildkit") as boot:
        boot.status("pulling image moby/buildkit", done=False)
        assert progress.lines()[-1] == "#1 pulling image moby/buildkit"
        boot.status("pulling image moby/buildkit", done=True)
        boot.log("one\ntwo")
        boot.log(b"part")
        boot.log(b"ial\n")
    progress.update(Build().step("a", 100, 101).sent())
    with pytest.raises(OSError, match="refused"), progress.local("importing to docker"):
        raise OSError("refused")
    progress.local("sending").done(cached=True)
    progress.finish()
    assert progress.lines() == [
        '#0 building with "b" instance', "",
        "#1 [internal] booting buildkit",
        "#1 pulling image moby/buildkit", "#1 pulling image moby/buildkit 1.0s done",
        "#1 3.000 one", "#1 3.000 two", "#1 4.000 partial", "#1 DONE 6.0s", "",
        "#2 [1/1] RUN a", "#2 DONE 1.0s", "",
        "#3 importing to docker", "#3 ERROR: refused", "",
        "#4 sending", "#4 CACHED",
        "------", " > importing to docker:", "------",
    ]  # fmt: skip
    assert progress.executed() == ["[1/1] RUN a"]


# -- what is concluded


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("[stage-1 2/5] RUN make", True),
        ("[linux/arm64 build 2/2] COPY . .", True),
        ("[context 2/2] RUN in a stage of that name", True),
        ("[internal 2/2] RUN in a stage of that name", True),
        ("sh -c make", True),
        ("[internal] load build context", False),
        ("[linux/amd64 internal] load metadata for docker.io/library/alpine:3", False),
        ("[auth] library/alpine:pull token for registry-1.docker.io", False),
        ("[context extra] load from client", False),
        ("[build 1/5] FROM docker.io/library/alpine:3@sha256:0", False),
        ("resolve image config for docker-image://docker.io/docker/dockerfile:1", False),
        ("docker-image://docker.io/docker/dockerfile:1@sha256:0", False),
        ("importing cache manifest from x", False),
        ("exporting to image", False),
        ("preparing build cache for export", False),
        ("resolving provenance for metadata file", False),
    ],
)
def test_what_counts_as_executed(name: str, counts: bool) -> None:
    """Work of the daemon's own is no reason to say `changed`; cached, failed and unfinished steps are none either."""
    progress = Progress()
    progress.update(Build().step("a", 0, 1, name=name).sent())
    assert progress.executed() == ([name] if counts else [])
    for fields in ({"cached": True}, {"error": "exit code: 1"}):
        assert folded([Build().step("a", 0, 1, name=name, **fields).sent()]).executed() == []
    assert folded([Build().step("a", 0, name=name).sent()]).executed() == []


def test_the_fetch_of_a_cached_add_is_not_executed() -> None:
    """ADD of a URL is a fetch, run in every build, and a copy of the same name (seen with v0.34.2)."""
    name = "[2/2] ADD https://example.org/x /x"
    fetch = Build().step("a", 0, 1, name=name).sent()
    assert folded([fetch, Build().step("b", 1, 2, name=name, cached=True).sent()]).executed() == []
    assert folded([fetch, Build().step("b", 1, 2, name=name).sent()]).executed() == [name]


def test_warnings() -> None:
    """Each once, with its place; printed on their step."""
    build = Build().step("a", 0)
    for _number in range(2):
        warning = build.message.warnings.add(vertex="a", level=1, short=b"Casing: x", detail=[b"why"], url="https://d")
        warning.info.filename = "Dockerfile"
        warning.ranges.add().start.line = 4
    progress = folded([build.step("a", 0, 1).sent()])
    assert progress.warnings == [BuildWarning("Casing: x", ("why",), "https://d", 1, "Dockerfile", 4)]
    assert progress.lines() == ["#1 [1/1] RUN a", "#1 WARN: Casing: x", "#1 DONE 1.0s"]
