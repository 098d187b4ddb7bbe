# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""A file that is written aside, compared on the way with what it is to replace, and put in its place whole."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Optional

from .destination import continues_with, create, look, open_file, replace, write_all


class Replacement:
    """`write` what comes, then `place` it, or `discard` it.

    old: lstat of what has the name now, None for nothing. same: whether all that was written so far is what the
    old file begins with; False when there is none that could be compared.
    """

    def __init__(
        self, name: bytes, directory: int, temporary: bytes, size: Optional[int] = None, mode: int = 0o600
    ) -> None:
        """directory: descriptor, which stays the caller's. size: in bytes, when it is known before.

        mode: of the file as long as it is aside, less the umask.
        """
        self._name = name
        self._temporary = temporary
        self.old = look(name, directory)
        self._old = -1
        self.file = create(temporary, directory, mode)
        self._directory = os.dup(directory)
        self._written = 0
        if self.old is not None and stat.S_ISREG(self.old.st_mode) and size in (None, self.old.st_size):
            with contextlib.suppress(OSError):  # what cannot be read is replaced
                self._old = open_file(name, directory)
        self.same = self._old >= 0

    def write(self, data: bytes) -> None:
        self.same = self.same and continues_with(self._old, data)
        write_all(self.file, data)
        self._written += len(data)

    def end(self) -> None:
        """All is written: a shorter file is not the same."""
        self.same = self.same and self.old is not None and self.old.st_size == self._written

    def place(self) -> None:
        """Give the file its name. What is there must not be a directory."""
        replace(self._temporary, self._name, self._directory)
        self._temporary = b""
        self.discard()

    def discard(self) -> None:
        """Remove what was written, if it has not got its name; close everything. May be called twice."""
        if self._temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._directory)
            self._temporary = b""
        for opened in (self.file, self._old, self._directory):
            if opened >= 0:
                os.close(opened)
        self.file = self._old = self._directory = -1
