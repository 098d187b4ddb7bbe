# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A failed call to BuildKit, told as the CLI tells it: cause, end of the step's log, place in the Dockerfile.

The status of a failed Solve carries details in a trailer, as JSON in `Any` (wire §8.1). All of it was
written by the other side: every field may be missing or of another type, and then it does not exist.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, SolveError

from .logtext import clean, clean_text
from .messages import rpc
from .progress import EXCERPT, Progress
from .vertex import VertexState

RULE = "-" * 20
EXCERPT_MAX = 60  # lines; a heredoc may have thousands
_PREFIX = "github.com/moby/buildkit/"
_EXIT_CODE = re.compile(r"did not complete successfully: exit code: (\d+)")

# Without evidence of a build in the details these come from the way to the daemon, not from the build.
_NOT_THE_BUILD = frozenset(
    {"CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "INTERNAL"}
)

_HINTS = (  # what the message says → what to do; the first that matches
    (
        r"exit code: 137\b",
        "The step was killed, mostly for want of memory: give the builder more of it, or the build less to do.",
    ),
    (
        r"failed to calculate checksum of ref|failed to compute cache key.*not found",
        "The file is not in the build context: check the path, and whether .dockerignore leaves it out.",
    ),
    (
        r"no space left on device",
        "The builder's disk is full: prune its cache, or give it limits for garbage collection.",
    ),
    (
        r"\bentitlements?\b|(?:security\.insecure|network\.host) is not allowed",
        "Grant the entitlement to the build, and to the builder in its flags or its configuration.",
    ),
    (
        r"pull access denied|push access denied|insufficient_scope|authorization failed|401 Unauthorized|403 Forbidden",
        "The registry refused: check the name of the image and the credentials of the user that runs the build.",
    ),
    (
        r"x509: certificate signed by unknown authority",
        "Name the registry's authority in the builder's buildkitd_config, as ca of its registry table.",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "The registry speaks plain HTTP: set http in its registry table of the builder's buildkitd_config.",
    ),
    (
        r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake|x509:",
        "The builder could not reach a server: check its network, its DNS, its proxy and its certificates.",
    ),
    (r"no active session|session .*not found", "The session with the builder was lost; the builder may be overloaded."),
    (r"target stage .* could not be found", "Name one of the stages of the Dockerfile as target."),
    (r"^secret .*not found", "Give the build a secret of this id."),
    (
        r"failed to read dockerfile",
        "Name the Dockerfile by its path, and check whether .dockerignore leaves it out.",
    ),
    (r"dockerfile parse error|unknown instruction", "Correct the Dockerfile."),
    (r"did not complete successfully: exit code", "The output of the step says why."),
    (
        r"received metadata size exceeds",
        "The real error was too large for the transport; the log of the build may show it.",
    ),
)
_HINTS_BY_CODE = {
    "UNIMPLEMENTED": "The BuildKit of this builder is too old for what was asked; update its image.",
    "UNAVAILABLE": "The builder does not answer any more; look at the log of its container.",
    "CANCELLED": "The build was cancelled, by a timeout or by hand.",
}


@dataclass
class Source:
    """Where in a file an error is. lines: of the file. ranges: first and last line, from 1."""

    filename: str
    lines: list[str]
    ranges: list[tuple[int, int]]

    @property
    def line(self) -> int:
        return min(start for start, _end in self.ranges)

    def excerpt(self) -> str:
        """As the CLI prints it: two lines around one line, one line around several."""
        first, last = self.line, min(max(end for _start, end in self.ranges), len(self.lines))
        around = 2 if first == last else 1
        shown = range(max(first - around, 1), min(last + around, len(self.lines)) + 1)
        out = [f"{self.filename}:{first}", RULE]
        for number in shown[:EXCERPT_MAX]:
            mark = ">>>" if any(start <= number <= end for start, end in self.ranges) else "   "
            out.append(f" {number:3} | {mark} {self.lines[number - 1]}")
        if len(shown) > EXCERPT_MAX:
            out.append(f"     |     ({len(shown) - EXCERPT_MAX} more lines)")
        return "\n".join([*out, RULE])


@dataclass
class Details:
    """What the trailer says. vertexes: digests. others: every part that is not understood, name → value."""

    vertexes: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    exit_code: Optional[int] = None
    capability: str = ""
    denials: list[str] = field(default_factory=list)
    of_build: bool = False
    others: list[tuple[str, bytes]] = field(default_factory=list)


def decode_details(trailer: bytes) -> Details:
    """Read a serialized google.rpc.Status; what cannot be read is left out or kept raw, never an error."""
    from google.protobuf.message import DecodeError

    found = Details()
    try:
        status = rpc.Status.FromString(trailer)
    except DecodeError:
        return found
    for part in status.details:
        name = part.type_url[len(_PREFIX) :] if part.type_url.startswith(_PREFIX) else part.type_url
        name = name[: -len("+json")] if name.endswith("+json") else name
        found.of_build = found.of_build or name.startswith(("errdefs.", "gatewayapi.", "policysession."))
        try:
            value = json.loads(part.value)
        except (ValueError, RecursionError):  # also text that is not UTF-8; a nesting made to hurt
            value = None
        read = _READERS.get(name)
        if read is None or not isinstance(value, dict) or not read(found, value):
            found.others.append((name, part.value))
    return found


def from_rpc(code: str, message: str, details: bytes, progress: Optional[Progress]) -> BuildkitError:
    """The error to raise for a failed Solve.

    code:    name of the gRPC status, such as `UNKNOWN`. message: of the status.
    details: value of the trailer `grpc-status-details-bin`, b"" when there is none.
    Result:  SolveError when the build failed, else BuildkitError. Its details: `code`, `step` (name),
             `exit_code`, `excerpt` (text), `dockerfile`, `dockerfile_line`, `step_log` (lines of the failing
             step); None or empty when unknown.
    """
    found = decode_details(details)
    failed = _failed(found, progress)
    message = clean_text(message).strip()
    exit_code = found.exit_code
    if exit_code is None and (told := _EXIT_CODE.search(message)):
        exit_code = int(told[1])
    excerpts = list(dict.fromkeys(source.excerpt() for source in found.sources))
    place = found.sources[-1] if found.sources else None  # the last is nearest to the cause
    solve = found.of_build or code not in _NOT_THE_BUILD
    cause = message or "the daemon gave no reason"
    if not solve:
        cause = f"the builder broke off the build ({code}): {cause}"
    elif not cause.startswith("failed to solve"):
        cause = f"failed to solve: {cause}"
    kind = SolveError if solve else BuildkitError
    return kind(
        _text(cause, found, failed, excerpts),
        hint=_hint(code, message, found),
        code=code,
        step=failed.name if failed else None,
        exit_code=exit_code,
        excerpt="\n".join(excerpts) or None,
        dockerfile=place.filename if place else None,
        dockerfile_line=place.line if place else None,
        step_log=failed.log if failed else [],
    )


def _text(cause: str, found: Details, failed: Optional[VertexState], excerpts: list[str]) -> str:
    """Cause first, because many displays show one line; then what the CLI prints before it."""
    out = [cause, *(f"denied by policy: {reason}" for reason in found.denials)]
    if failed is not None and failed.tail:
        out += ["------", f" > {failed.name}:", *failed.tail[-EXCERPT:], "------"]
    return "\n".join(out + excerpts)


def _failed(found: Details, progress: Optional[Progress]) -> Optional[VertexState]:
    """The step that failed: the one that the details name, else the first that has an error of its own."""
    if progress is None:
        return None
    for digest in reversed(found.vertexes):
        state = progress.vertex(digest)
        if state is not None:
            return state
    failed = (state for state in progress.vertices() if state.error and not state.canceled)
    return next(failed, None)


def _hint(code: str, message: str, found: Details) -> Optional[str]:
    if found.capability:
        return f"This builder has no {found.capability}: update its image, or the frontend that the Dockerfile names."
    for pattern, hint in _HINTS:
        if re.search(pattern, message):
            return hint
    if found.sources and not found.vertexes:
        return f"Correct {found.sources[-1].filename} at the marked line."  # the frontend refused it
    return _HINTS_BY_CODE.get(code)


# -- readers of one kind of detail each; False: not as expected, so keep it raw


def _read_vertex(found: Details, value: Mapping[str, Any]) -> bool:
    digest = value.get("digest")
    if not isinstance(digest, str):
        return False
    found.vertexes.append(digest)
    return True


def _read_source(found: Details, value: Mapping[str, Any]) -> bool:
    info, ranges = value.get("info"), value.get("ranges")
    if not isinstance(info, dict) or not isinstance(ranges, list):
        return False
    try:
        data = base64.b64decode(info.get("data", ""))
    except (TypeError, ValueError, binascii.Error):
        return False
    lines = clean(data).split("\n")
    places = [(_line(part, "start"), _line(part, "end")) for part in ranges]
    inside = [(start, max(start, end)) for start, end in places if 1 <= start <= len(lines)]
    if not inside:
        return False
    found.sources.append(Source(clean_text(str(info.get("filename", ""))), lines, inside))
    return True


def _line(part: Any, end: str) -> int:
    """Line of one end of a Range, 0 when it has none."""
    position = part.get(end) if isinstance(part, dict) else None
    line = position.get("line") if isinstance(position, dict) else None
    return line if isinstance(line, int) else 0


def _read_exit(found: Details, value: Mapping[str, Any]) -> bool:
    code = value.get("Code")
    if not isinstance(code, int):
        return False
    found.exit_code = code
    return True


def _read_capability(found: Details, value: Mapping[str, Any]) -> bool:
    found.capability = clean_text(str(value.get("name", "")))
    return bool(found.capability)


def _read_decision(found: Details, value: Mapping[str, Any]) -> bool:
    reasons = value.get("denyMessages")
    if not isinstance(reasons, list):
        return False
    found.denials += [clean_text(str(part.get("message", ""))) for part in reasons if isinstance(part, dict)]
    return True


def _skip(_found: Details, _value: Mapping[str, Any]) -> bool:
    """Of no use to a user: stacks of Go, and the failed operation, whose environment may hold secrets."""
    return True


_READERS = {
    "errdefs.Vertex": _read_vertex,
    "errdefs.Source": _read_source,
    "errdefs.FrontendCap": _read_capability,
    "errdefs.Subrequest": _read_capability,
    "errdefs.Frontend": _skip,
    "errdefs.Solve": _skip,
    "gatewayapi.ExitMessage": _read_exit,
    "policysession.DecisionResponse": _read_decision,
    "stack.Stack": _skip,
}
