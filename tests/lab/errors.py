# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab says when it cannot go on."""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 25


class LabError(Exception):
    """A failure whose message says what happened and, where we know, what to do."""


class StepError(LabError):
    """A step that left a log: the message names it and carries its end, so nobody has to go and look."""

    def __init__(self, what: str, log: Path) -> None:
        super().__init__(f"{what}\n  log: {log}\n{_tail(log)}")


class NotAvailableError(LabError):
    """Something optional that this machine does not have, such as an old interpreter; callers may skip."""


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"  (no log: {error})"
    return "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:])
