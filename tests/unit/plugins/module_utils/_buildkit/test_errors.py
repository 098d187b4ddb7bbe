# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failed call says what failed, where, and what to do; whatever the daemon sends, it stays an error message."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.errors import (
    EXCERPT_MAX,
    RULE,
    decode_details,
    from_rpc,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control, rpc
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import SolveError

GOLDEN = Path(__file__).parent / "golden" / "builds"  # written by tools/record_builds.py, never by hand
CASES: dict[str, dict[str, Any]] = {
    path.stem: case
    for path in sorted(GOLDEN.glob("*.json"))
    if (case := json.loads(path.read_text(encoding="utf-8")))["error"]
}
PREFIX = "github.com/moby/buildkit/"
KEYS = {"code", "step", "exit_code", "excerpt", "dockerfile", "dockerfile_line", "step_log"}


def failure(name: str, *, with_progress: bool = True) -> SolveError:
    case = CASES[name]
    progress: Optional[Progress] = None
    if with_progress:
        progress = Progress()
        for part in case["live"]:
            progress.update(control.StatusResponse.FromString(base64.b64decode(part)))
    found = from_rpc("UNKNOWN", case["message"], base64.b64decode(case["error"]), progress)
    assert isinstance(found, SolveError)
    return found


def trailer(*parts: tuple[str, object]) -> bytes:
    status = rpc.Status(code=2, message="x")
    for name, value in parts:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        status.details.add(type_url=f"{PREFIX}{name}+json", value=data)
    serialized: bytes = status.SerializeToString()
    return serialized


def source(text: str, *ranges: tuple[int, int], name: str = "Dockerfile") -> tuple[str, object]:
    data = base64.b64encode(text.encode()).decode()
    places = [{"start": {"line": first}, "end": {"line": last}} for first, last in ranges]
    return "errdefs.Source", {"info": {"filename": name, "data": data}, "ranges": places}


def test_corpus_is_there() -> None:
    """An empty corpus would let the next test pass."""
    assert len(CASES) >= 12


@pytest.mark.parametrize("name", CASES)
def test_same_words_as_the_cli(name: str) -> None:
    """The excerpt is byte for byte the CLI's, the cause is that of its last line, and nothing is lost on the way."""
    printed = CASES[name]["printed"].rstrip("\n")
    excerpt, _error, cause = printed.rpartition("ERROR: failed to build: failed to solve: ")
    found = failure(name)
    assert str(found).splitlines()[0] == f"failed to solve: {cause}"
    assert found.details["excerpt"] == (excerpt.rstrip("\n") or None)
    assert set(found.details) == KEYS
    assert json.loads(json.dumps(found.details)) == found.details
    assert found.hint
    assert found.kind == "solve"


def test_a_failed_step() -> None:
    """Everything about a RUN that fails, in the details and in the message; the step's log only once."""
    found = failure("run_fails")
    assert found.details == {
        "code": "UNKNOWN",
        "step": "[3/4] RUN echo before; echo fail >&2; exit 7",
        "exit_code": 7,
        "excerpt": found.details["excerpt"],
        "dockerfile": "Dockerfile",
        "dockerfile_line": 4,
        "step_log": ["before", "fail"],
    }
    lines = str(found).splitlines()
    assert lines[1:3] == ["------", " > [3/4] RUN echo before; echo fail >&2; exit 7:"]
    assert [line.split(" ", 1)[1] for line in lines[3:5]] == ["before", "fail"]
    assert lines[5:7] == ["------", "Dockerfile:4"]
    assert lines[-1] == RULE


def test_only_the_end_of_a_long_log_is_in_the_message() -> None:
    """Ten lines as in the CLI; the details have more."""
    found = failure("many_lines")
    assert found.details["step_log"] == [f"line {number}" for number in range(1, 14)]
    assert "line 3\n" not in str(found)
    assert "line 4\n" in str(found)


def test_without_progress() -> None:
    """The details alone give place and exit code, but no name and no log."""
    details = failure("run_fails", with_progress=False).details
    assert (details["step"], details["step_log"]) == (None, [])
    assert (details["exit_code"], details["dockerfile_line"]) == (7, 4)


def test_without_details() -> None:
    """When the trailer is lost: the step from Status, the exit code from the message."""
    progress = Progress()
    for part in CASES["parallel_fails"]["live"]:
        progress.update(control.StatusResponse.FromString(base64.b64decode(part)))
    found = from_rpc("UNKNOWN", CASES["parallel_fails"]["message"], b"", progress)
    assert isinstance(found, SolveError)
    assert found.details["step"] == "[a 1/1] RUN busybox sleep 0.3; exit 5"
    assert found.details["exit_code"] == 5


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("copy_missing", ".dockerignore"),
        ("no_stage", "stages"),
        ("no_registry", "network"),
        ("killed", "memory"),
        ("secret_missing", "secret"),
        ("entitlement", "entitlement"),
        ("no_dockerfile", "Dockerfile"),
        ("run_fails", "output of the step"),
        ("parse_error", "Dockerfile"),
    ],
)
def test_hints(name: str, word: str) -> None:
    """What to do depends on what failed."""
    assert word in (failure(name).hint or "")


@pytest.mark.parametrize("code", ["CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL"])
def test_the_way_is_not_the_build(code: str) -> None:
    """A transport that breaks is no failure of the build, unless the details speak of one."""
    found = from_rpc(code, "x", b"", None)
    assert (found.kind, str(found)) == ("buildkit", f"the builder broke off the build ({code}): x")
    assert from_rpc(code, "x", trailer(("stack.Stack", {})), None).kind == "buildkit"
    assert from_rpc(code, "x", trailer(("errdefs.Vertex", {"digest": "sha256:0"})), None).kind == "solve"


def test_a_missing_capability() -> None:
    """Names what is missing; the code alone says as much as it can."""
    found = from_rpc("UNIMPLEMENTED", "unsupported", trailer(("errdefs.FrontendCap", {"name": "x.contexts"})), None)
    assert "x.contexts" in (found.hint or "")
    assert "too old" in (from_rpc("UNIMPLEMENTED", "unknown method", b"", None).hint or "")


def test_a_denied_source() -> None:
    """The reasons of a policy are part of the message."""
    part = ("policysession.DecisionResponse", {"action": "DENY", "denyMessages": [{"message": "not signed"}]})
    assert str(from_rpc("UNKNOWN", "denied", trailer(part), None)).splitlines()[1] == "denied by policy: not signed"


@pytest.mark.parametrize(
    ("ranges", "shown"),
    [
        ([(1, 1)], [">1", "2", "3"]),
        ([(5, 5)], ["3", "4", ">5", "6", "7"]),
        ([(9, 9)], ["7", "8", ">9"]),
        ([(4, 6)], ["3", ">4", ">5", ">6", "7"]),
        ([(8, 20)], ["7", ">8", ">9"]),
        ([(3, 3), (6, 6)], ["2", ">3", "4", "5", ">6", "7"]),
        ([(5, 0)], ["3", "4", ">5", "6", "7"]),
    ],
)
def test_excerpt(ranges: list[tuple[int, int]], shown: list[str]) -> None:
    """Two lines around one, one around several; a range without an end is one line."""
    text = "\n".join(f"L{number}" for number in range(1, 10))
    excerpt = str(from_rpc("UNKNOWN", "m", trailer(source(text, *ranges)), None).details["excerpt"])
    first = next(line for line in shown if line.startswith(">"))[1:]
    body = [f" {line.lstrip('>'):>3} | {'>>>' if line[0] == '>' else '   '} L{line.lstrip('>')}" for line in shown]
    assert excerpt.split("\n") == [f"Dockerfile:{first}", RULE, *body, RULE]


def test_excerpts_of_several_files() -> None:
    """All are shown, each once; the last is nearest to the cause."""
    details = trailer(source("a", (1, 1), name="one"), source("a", (1, 1), name="one"), source("b\nc", (2, 2)))
    found = from_rpc("UNKNOWN", "m", details, None)
    assert str(found.details["excerpt"]).count(":1\n") == 1
    assert (found.details["dockerfile"], found.details["dockerfile_line"]) == ("Dockerfile", 2)


def test_a_long_excerpt_is_cut() -> None:
    """A heredoc of thousands of lines does not fill the message."""
    found = from_rpc("UNKNOWN", "m", trailer(source("x\n" * 5000, (1, 4000))), None)
    assert len(str(found.details["excerpt"]).splitlines()) == EXCERPT_MAX + 4
    assert f"({4001 - EXCERPT_MAX} more lines)" in str(found)


def test_a_failed_operation_is_not_shown() -> None:
    """errdefs.Solve has the environment of the step, with what build arguments brought into it."""
    operation = {"op": {"exec": {"meta": {"env": ["TOKEN=hush"]}}}}
    details = trailer(
        ("errdefs.Solve", operation), ("stack.Stack", {"cmdline": ["hush"]}), ("new.Thing", {"x": "hush"})
    )
    found = from_rpc("UNKNOWN", "m", details, None)
    assert "hush" not in f"{found} {found.details} {found.hint}"


def test_what_is_not_understood_is_kept_raw() -> None:
    """Unknown kinds, broken JSON and unexpected shapes, in order and as they came."""
    deep = b"[" * 100_000
    parts: list[tuple[str, object]] = [
        ("new.Thing", {"a": 1}),
        ("errdefs.Vertex", b"\xff"),
        ("errdefs.Source", []),
        ("errdefs.Source", deep),
    ]
    assert decode_details(trailer(*parts)).others == [
        ("new.Thing", b'{"a": 1}'),
        ("errdefs.Vertex", b"\xff"),
        ("errdefs.Source", b"[]"),
        ("errdefs.Source", deep),
    ]


def test_control_characters_do_not_get_through() -> None:
    """Message and excerpt come from the other side."""
    found = from_rpc("UNKNOWN", "bad \x1b[31mred\r", trailer(source("RUN \x1b]0;t\x07x\r\n", (1, 1))), None)
    assert str(found).startswith("failed to solve: bad red\n")
    assert "\x1b" not in str(found)
    assert ">>> RUN x\n" in str(found)


NAMES = st.sampled_from(
    ["errdefs.Vertex", "errdefs.Source", "errdefs.FrontendCap", "gatewayapi.ExitMessage", "stack.Stack",
     "policysession.DecisionResponse", "errdefs.Solve", "unknown"]
)  # fmt: skip
KEY = st.sampled_from(["digest", "info", "ranges", "start", "end", "line", "data", "filename", "Code", "name",
                       "denyMessages", "message"])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["YQ==", "YQpiCg=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=12,
)


@given(code=st.text(), message=st.text(), parts=st.lists(st.tuples(NAMES, JSON | st.binary()), max_size=4))
def test_any_details_give_an_error(code: str, message: str, parts: list[tuple[str, object]]) -> None:
    """Whatever shape the details have, the result is an error that can be written as JSON."""
    found = from_rpc(code, message, trailer(*parts), Progress())
    assert str(found)
    json.dumps(found.details)


@given(details=st.binary())
def test_any_trailer_gives_an_error(details: bytes) -> None:
    """A trailer that is no message is as good as none."""
    assert str(from_rpc("UNKNOWN", "m", details, None)).startswith("failed to solve: m")
