# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One process, measured: wall seconds from start to exit, and the most memory that it or a child of it had."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_SECONDS = 900


class MeasuringError(Exception):
    """A run that is no figure: the process failed, or did not do the work of its row."""


@dataclass(frozen=True)
class Sample:
    """One run. peak: bytes, of the largest process (the CLI's builds are run by a child of `docker`).

    cpu: seconds of all processes, which say more than the clock on a machine that has other work.
    """

    seconds: float
    cpu: float
    peak: int
    output: Path

    def lines(self) -> Iterator[str]:
        """What the process said, one line at a time: a long log must not grow our own memory (see `run`)."""
        with self.output.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                yield line.rstrip("\n")


def run(command: Sequence[str], environment: Mapping[str, str], given: str, output: Path) -> Sample:
    """Run to the end, with both of its channels in one file. Raises MeasuringError when it fails.

    The kernel counts the memory of whoever started a process into that process' peak, since a vfork shares it: what
    measures must stay smaller than what it measures.
    """
    question = output.with_suffix(".in")
    question.write_text(given, encoding="utf-8")
    with question.open("rb") as stdin, output.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), stdin=stdin, stdout=out, stderr=subprocess.STDOUT)
        timer = threading.Timer(LONGEST_SECONDS, process.kill)
        timer.start()
        try:
            _pid, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MeasuringError(f"{command[0]} ended with {process.returncode}:\n{_tail(output)}")
    return Sample(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, output)


def _tail(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4000))
        return stream.read().decode("utf-8", "replace").strip()
