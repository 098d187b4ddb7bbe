# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""followpaths: the few paths that a Dockerfile needs, with what their symbolic links lead to (wire §4.5)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Sequence
from typing import Optional

from .patterns import PatternError, clean

_WILDCARD = re.compile(rb"(?s)(?:\\.|[^\\*?[])*[*?[]")  # `*`, `?` or `[` that is not escaped


def include_patterns(root: bytes, includes: Sequence[bytes], follow: Sequence[bytes]) -> list[bytes]:
    """The include patterns that say the same as includes and followpaths together; [] lets everything in.

    Raises OSError for a link or a directory that cannot be read; what is not there is no error.
    """
    found = followed(root, follow) if follow else None
    # Go clients drop repetitions from the joined list without sorting it first; that decides what is sent.
    return list(includes) if found is None else _outermost([*includes, *found]) or []


def followed(root: bytes, follow: Iterable[bytes]) -> Optional[list[bytes]]:
    """The paths, relative to the root, that are needed for following some paths; None for all. Raises as above."""
    return _outermost(sorted(_Resolver(root).resolve(follow)))


def _outermost(paths: Iterable[bytes]) -> Optional[list[bytes]]:
    """Paths without those directly behind, and below, another one; None when the root is among them."""
    kept: list[bytes] = []
    for path in paths:
        if path == b".":
            return None
        if not path.startswith((kept[-1] if kept else b"") + b"/"):
            kept.append(path)
    return kept


class _Resolver:
    def __init__(self, root: bytes) -> None:
        self._root = root
        self._found: set[bytes] = set()

    def resolve(self, paths: Iterable[bytes]) -> set[bytes]:
        """All names, relative to the root, through which the paths go or at which they end."""
        for path in paths:
            pending = [path]
            while pending:  # depth first in the order of the Go clients: what is known already ends a path
                pending += reversed(self._follow(clean(b"./" + pending.pop())))
        return self._found

    def _follow(self, path: bytes) -> list[bytes]:
        """Walk down one clean path to its end or to its first links; the paths that are to be followed next."""
        if path == b".." or path.startswith(b"../"):  # nothing in the tree has such a name: nothing to look at
            self._found.add(path)
            return []
        current = b""
        while True:
            part, _slash, path = path.partition(b"/")
            parent, current = current, os.path.join(current, part)
            targets = self._links(parent, part)
            if path and targets is None:
                continue
            if current in self._found:
                return []
            self._found.add(current)
            return [os.path.join(target, path) for target in targets or ()]

    def _links(self, parent: bytes, name: bytes) -> Optional[list[bytes]]:
        """Targets, confined to the root, of the link or, for a pattern, of the links of that name; None: no link."""
        names = self._matching(parent, name) if _WILDCARD.match(name) else [name]
        targets = (self._link(parent, each) for each in names)
        return [target for target in targets if target is not None] or None

    def _matching(self, parent: bytes, pattern: bytes) -> list[bytes]:
        from .globs import glob_match

        try:
            names = sorted(os.listdir(os.path.join(self._root, parent)))
            return [name for name in names if glob_match(pattern, name)]
        except (PatternError, FileNotFoundError, NotADirectoryError):
            return []

    def _link(self, parent: bytes, name: bytes) -> Optional[bytes]:
        try:
            target = os.readlink(os.path.join(self._root, parent, name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is there, and no link
                raise
            return None
        return clean(os.path.join(b"/", parent, target)).lstrip(b"/")
