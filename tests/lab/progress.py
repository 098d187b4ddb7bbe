# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps that say what they are doing, with the elapsed time, and keep their output in a log.

Many steps run side by side, so each line on the terminal is whole and carries the step's name; what
programs print goes to the step's log only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import LabError, StepError

HEARTBEAT_SECONDS = 30.0


class Step:
    """One named piece of work with a log of its own."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self.name = name
        self.log = progress.logs / (re.sub(r"[^A-Za-z0-9_.-]+", "-", name) + ".log")
        self.spoke = False

    def say(self, text: str) -> None:
        self.spoke = True
        self._progress.print(f"{self.name}: {text}")

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: IO[bytes] | None = None,
    ) -> None:
        """Run a program with its output in the log; a failure names the log and shows its end."""
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            try:
                done = subprocess.run(
                    command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, check=False
                )
            except OSError as error:
                raise LabError(f"{self.name}: {command[0]} cannot be run: {error}") from error
        if done.returncode:
            raise StepError(f"{self.name}: {command[0]} ended with status {done.returncode}", self.log)

    def capture(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a program whose output we need."""
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            try:
                done = subprocess.run(
                    command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, check=False
                )
            except OSError as error:
                raise LabError(f"{self.name}: {command[0]} cannot be run: {error}") from error
            log.write(done.stdout)
        if done.returncode:
            raise StepError(f"{self.name}: {command[0]} ended with status {done.returncode}", self.log)
        return done.stdout.decode()


class Progress:
    """The terminal, shared by all steps; it never writes to stdout, which is for results."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._running: dict[Step, float] = {}

    def print(self, text: str) -> None:
        with self._lock:
            print(f"[{time.monotonic() - self._started:6.1f}s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A step that reports its end when it has said something; cached work stays silent."""
        self.logs.mkdir(parents=True, exist_ok=True)
        step = Step(self, name)
        step.log.write_bytes(b"")
        started = self._running[step] = time.monotonic()
        try:
            yield step
        finally:
            del self._running[step]
        if step.spoke:
            self.print(f"{name}: done in {time.monotonic() - started:.1f} s")

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Says every half minute what is still running, so that a long step is not mistaken for a hang."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            now = time.monotonic()
            running = [f"{step.name} ({now - began:.0f} s)" for step, began in list(self._running.items())]
            if running:
                self.print("still at work: " + ", ".join(running))
