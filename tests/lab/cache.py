# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cache that all clones of a user share: made once, whole or not at all.

An entry's name carries a hash of everything that went into it. It is made under a lock, so that two
clones that want the same thing wait for each other, and it becomes visible whole: by a rename, or,
where a thing cannot be moved (a virtual environment), by a marker that is written last.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .progress import Step

MARKER = ".complete"

Ingredients = Mapping[str, object]


class Cache:
    """Entries below one directory, as `<kind>/<name>-<hash of the ingredients>`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, kind: str, name: str, ingredients: Ingredients) -> Path:
        """Where an entry is or would be."""
        text = json.dumps(ingredients, sort_keys=True)
        return self.root / kind / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def obtain(self, kind: str, name: str, ingredients: Ingredients, step: Step, make: Callable[[Path], None]) -> Path:
        """The entry, made when missing: `make` fills a directory that is renamed when it returns."""
        final = self.entry(kind, name, ingredients)
        if final.is_dir():
            return final
        with exclusive(final.with_name(final.name + ".lock"), lambda: step.say("waiting for another clone's work")):
            if final.is_dir():
                return final
            temporary = final.with_name(final.name + ".making")
            remove_tree(temporary)
            temporary.mkdir(mode=0o755)
            make(temporary)
            temporary.rename(final)
        return final

    def obtain_in_place(
        self, kind: str, name: str, ingredients: Ingredients, step: Step, make: Callable[[Path], None]
    ) -> Path:
        """As `obtain`, for what knows its own path: it is whole when its marker is there."""
        final = self.entry(kind, name, ingredients)
        marker = final / MARKER
        if marker.exists():
            return final
        with exclusive(final.with_name(final.name + ".lock"), lambda: step.say("waiting for another clone's work")):
            if not marker.exists():
                remove_tree(final)
                final.mkdir(mode=0o755)
                make(final)
                marker.write_text(json.dumps(ingredients, sort_keys=True, indent=1) + "\n")
        return final


@contextmanager
def exclusive(path: Path, when_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a file's lock; the kernel lets go of it when we die, so no lock is ever stale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove what may be there; mounts cannot lie below, every mount of ours is in a private namespace."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
