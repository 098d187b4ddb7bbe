# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build that follows from a seed: trees, ignore files, a Dockerfile."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.patterns import Matcher, PatternError

from .builds import Inputs
from .dockerfiles import dockerfile, ignore_file
from .trees import Tree


class Case:
    """The build of a seed below a directory that must be new, and whose name must be as well."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - it must be the same again
        self._base = bytes(directory)
        directory.mkdir()
        self._context = Tree(self._chance, os.path.join(self._base, directory.name.encode()), self._base + b"/outside")
        self._context.grow()
        # The CLI's key of a directory is the last part of its path; that of two cases must not be one.
        self._others = {
            f"other{number}": self._other(self._base + b"/%d-%b" % (number, directory.name.encode()))
            for number in range(self._chance.choice((0, 0, 0, 1, 2)))
        }
        self._apart = self._chance.random() < 0.3
        self._ignored = self._chance.random() < 0.7
        self._write()

    @property
    def inputs(self) -> Inputs:
        file = self._base + b"/apart/Dockerfile.any" if self._apart else None
        others = {name: os.fsdecode(tree.root) for name, tree in self._others.items()}
        return Inputs(os.fsdecode(self._context.root), os.fsdecode(file) if file else None, others)

    def change(self) -> None:
        """Change the trees, and the Dockerfile so that it copies what is there."""
        for tree in (self._context, *self._others.values()):
            tree.change()
        self._write()

    def _other(self, path: bytes) -> Tree:
        tree = Tree(self._chance, path, path + b".outside")
        tree.grow()
        if self._chance.random() < 0.5:
            tree.put(b".dockerignore", ignore_file(self._chance, tree.paths()))
        return tree

    def _write(self) -> None:
        paths = self._context.paths()
        ignored = ignore_file(self._chance, paths) if self._ignored else b""
        left = list(_left(paths, ignored.lstrip(b"\xef\xbb\xbf").splitlines()))
        text = dockerfile(self._chance, left, self._context.linked(left), list(self._others))
        name = b"Dockerfile"
        if self._apart:
            name = b"Dockerfile.any"
            os.makedirs(self._base + b"/apart", exist_ok=True)
            Path(os.fsdecode(self._base + b"/apart/" + name)).write_bytes(text)
        else:
            self._context.put(name, text)
        own = self._chance.random() < 0.3
        if self._ignored and own and self._apart:
            Path(os.fsdecode(self._base + b"/apart/" + name + b".dockerignore")).write_bytes(ignored)
        elif self._ignored:
            self._context.put(name + b".dockerignore" if own else b".dockerignore", ignored)


def _left(paths: Iterable[bytes], lines: list[bytes]) -> Iterable[bytes]:
    """About what an ignore file leaves, so that a Dockerfile names mostly what is there."""
    patterns = [line.strip().lstrip(b"/") for line in lines if not line.startswith(b"#")]
    try:
        matcher = Matcher(patterns)
        states = {b"": 0}
        for path in paths:
            dropped, states[path] = matcher.match(path, states.get(os.path.dirname(path), 0))
            if not dropped:
                yield path
    except PatternError:
        return
