# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record what a real daemon and the CLI say about small builds, as golden data of the unit tests.

Needs a buildkitd that listens on --address, the CLI's buildx, a static busybox, and grpcio. Each scenario is
built with the CLI; its file then has the daemon's messages (Status, live and replayed from the history, and
the status of the error), and what the CLI printed for the replay and at the end of the build.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests/unit/plugins/module_utils/_buildkit/golden/builds"
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import (  # noqa: E402
    content,
    control,
    rpc,
)

BASE = "FROM scratch AS base\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n"
SCENARIOS: dict[str, tuple[str, list[str]]] = {  # name → Dockerfile, flags
    "stages": (
        BASE + "FROM base AS one\n"
        "RUN echo one; busybox sleep 0.4; echo -n part; busybox sleep 0.3; echo ial; echo é; printf '\\377bad\\n'\n"
        "FROM base AS two\nRUN for i in 1 2 3 4 5; do echo two $i; busybox sleep 0.2; done; echo two > /two\n"
        "FROM base\nCOPY --from=one /bin/sh /one\nCOPY --from=two /two /two\n",
        ["--no-cache"],
    ),
    "group": (BASE + "COPY --link Dockerfile /x\n", ["--no-cache"]),
    "warnings": (BASE + "from base\nENV API_TOKEN=x\nWORKDIR a\n", ["--no-cache"]),
    "export": (BASE, ["--output", "type=oci,dest=/dev/null"]),
    "many_lines": (BASE + "RUN for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do echo line $i >&2; done; exit 3\n", []),
    "run_fails": (BASE + "RUN echo before; echo fail >&2; exit 7\nRUN echo never\n", []),
    "run_first_lines": ("FROM scratch\nRUN true\n", []),
    "heredoc_fails": (BASE + "RUN <<EOT\necho a\nexit 9\nEOT\nRUN echo never\n", []),
    "continuation_fails": (BASE + "RUN echo a && \\\n    echo b && \\\n    exit 4\n", []),
    "killed": (BASE + "RUN exit 137\n", []),
    "parallel_fails": (
        BASE + "FROM base AS a\nRUN busybox sleep 0.3; exit 5\nFROM base AS b\nRUN busybox sleep 30\n"
        "FROM base\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n",
        [],
    ),
    "copy_missing": (BASE + "COPY no/such/file /x\n", []),
    "unknown_instruction": (BASE + "FROO x\n", []),
    "parse_error": (BASE + 'LABEL "x\n', []),
    "no_stage": (BASE, ["--target", "nowhere"]),
    "no_dockerfile": ("", ["--file", "nothing"]),
    "no_registry": ("FROM 127.0.0.1:1/nobody/nothing:1\n", []),
    "entitlement": (BASE + "RUN --security=insecure true\n", []),
    "secret_missing": (BASE + "RUN --mount=type=secret,id=nope,required=true true\n", []),
}


class Recorder:
    """The CLI on one side, the daemon's API on the other."""

    def __init__(self, address: str, buildx: str, busybox: str, config: str) -> None:
        self._buildx, self._busybox = buildx, busybox
        self._env = {**os.environ, "BUILDX_CONFIG": config, "BUILDX_BUILDER": "recorded"}
        self._cli("create", "--name", "recorded", "--driver", "remote", address)
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        version = control.InfoResponse.FromString(self._one("moby.buildkit.v1.Control/Info", b"")).buildkitVersion
        self.source = f"BuildKit {version.version}, {self._cli('version').stdout.split()[1]}"

    def record(self, dockerfile: str, flags: list[str]) -> dict[str, object]:
        seen: list[bytes] = []
        live = threading.Thread(target=self._follow, args=(seen,), daemon=True)
        live.start()
        with tempfile.TemporaryDirectory() as context:
            Path(context, "Dockerfile").write_text(dockerfile, encoding="utf-8")
            Path(context, "busybox").write_bytes(Path(self._busybox).read_bytes())
            Path(context, "busybox").chmod(0o755)
            done = self._cli("build", "--progress=plain", "--provenance=false", *flags, context)
        live.join(10)
        ref = seen[0].decode()
        record = next(self._history(Ref=ref, EarlyExit=True)).record
        error = b""
        if record.externalError.digest:
            request = content.ReadContentRequest(digest=record.externalError.digest).SerializeToString()
            parts = self._many("containerd.services.content.v1.Content/Read", request)
            error = b"".join(content.ReadContentResponse.FromString(part).data for part in parts)
        return {
            "source": self.source,
            "exit_code": done.returncode,
            "printed": _end(done.stderr),
            "replay_printed": self._cli("history", "logs", "--progress=plain", ref).stderr,
            "live": [_text(part) for part in seen[1:]],
            "replay": [_text(part) for part in self._status(ref)],
            "error": _text(error),
            "message": rpc.Status.FromString(error).message,
        }

    def _follow(self, seen: list[bytes]) -> None:
        """The first build that starts: its ref, then its Status messages."""
        for event in self._history(ActiveOnly=True):
            if event.type == control.BuildHistoryEventType.STARTED:
                seen.append(event.record.Ref.encode())
                seen.extend(self._status(event.record.Ref))
                return

    def _status(self, ref: str) -> Iterator[bytes]:
        return self._many("moby.buildkit.v1.Control/Status", control.StatusRequest(Ref=ref).SerializeToString())

    def _history(self, **fields: object) -> Iterator[Any]:
        request = control.BuildHistoryRequest(**fields).SerializeToString()
        for part in self._many("moby.buildkit.v1.Control/ListenBuildHistory", request):
            yield control.BuildHistoryEvent.FromString(part)

    def _one(self, method: str, request: bytes) -> bytes:
        answer: bytes = self._channel.unary_unary(f"/{method}", bytes, bytes)(request)
        return answer

    def _many(self, method: str, request: bytes) -> Iterator[bytes]:
        yield from self._channel.unary_stream(f"/{method}", bytes, bytes)(request)

    def _cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [self._buildx, *args]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, errors="replace", check=False)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _end(printed: str) -> str:
    """From where progress ends: the excerpts and the error."""
    return re.sub(r"\A.*?(?=^(?:[^\n#]+:\d+\n-----|ERROR: |\Z))", "", printed, flags=re.DOTALL | re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="unix:///… of a buildkitd")
    parser.add_argument("--buildx", default="docker-buildx")
    parser.add_argument("--busybox", default="/bin/busybox")
    parser.add_argument("--suffix", default="", help="of the names of the files, for another daemon")
    parser.add_argument("names", nargs="*", help="scenarios, default all")
    args = parser.parse_args()
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as config:
        recorder = Recorder(args.address, args.buildx, args.busybox, config)
        for name in args.names or SCENARIOS:
            case = recorder.record(*SCENARIOS[name])
            (TARGET / f"{name}{args.suffix}.json").write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")
            print(name, case["exit_code"], len(str(case["live"])), case["message"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
