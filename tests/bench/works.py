# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of the table: what is built, what must be so before each run, and the proof that the work was done."""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from . import trees
from .hands import Build, Hands, executed, result
from .processes import MeasuringError, Sample


@dataclass(frozen=True)
class Sizes:
    """How much of everything. layer: bytes of each of the image's layers."""

    files: int = 10_000
    many_files: int = 100_000
    large_file: int = 1 << 30
    layer: int = 128 << 20
    top: int = 1 << 20
    log_lines: int = 1_000_000


QUICK = Sizes(files=200, many_files=500, large_file=4 << 20, layer=1 << 20, top=64 << 10, log_lines=2_000)
LAYERS = 8
Goals = tuple[Optional[float], Optional[float]]
NO_GOALS = (None, None)
COPY_ALL = "FROM scratch\nCOPY . /\n"
MAKE_FILES = r"""FROM scratch AS made
ADD root.tar /
RUN text=$(head -c 1020 /dev/urandom | hexdump -v -e '/1 "%%02x"'); \
    for d in $(seq %d); do mkdir -p /made/$d; for f in $(seq %d); do echo "$d$f$text" > /made/$d/$f; done; done
FROM scratch
COPY --from=made /made /
"""


class Work(ABC):
    """One row. goals: of the module's time divided by the CLI's, on the direct way and through an exec.

    option: the option of buildx_build without which there is nothing to measure yet.
    """

    option: Optional[str] = None

    def __init__(self, name: str, title: str, goals: Goals) -> None:
        self.name = name
        self.title = title
        self.goals = goals

    @abstractmethod
    def prepare(self, hands: Hands) -> None:
        """Once: make the files, and let both sides do the work so that all caches are warm."""

    @abstractmethod
    def before(self, hands: Hands) -> Build:
        """Before each run, unmeasured: the build, with everything as the row wants to find it."""

    @abstractmethod
    def check(self, hands: Hands, sample: Sample) -> None:
        """After each run. Raises MeasuringError when it was not the work of the row."""

    def clean(self, hands: Hands) -> None:  # noqa: B027 - most rows leave nothing that weighs
        """Once, at the end."""


class Sync(Work):
    """A directory goes to the daemon. Its COPY is cached by content, which proves that all of it arrived."""

    def __init__(self, name: str, title: str, goals: Goals, *, files: int, first: bool = False, changed: bool = False):
        super().__init__(name, title, goals)
        self._files, self._first, self._changed = files, first, changed

    def _tree(self, hands: Hands) -> Path:
        return trees.small_files(hands.scratch / f"files-{self._files}", self._files)

    def prepare(self, hands: Hands) -> None:
        self._context = self._tree(hands)
        (self._context / "Dockerfile").write_text(COPY_ALL, encoding="utf-8")
        _both(hands, Build(self._context))

    def before(self, hands: Hands) -> Build:
        if self._first:
            hands.forget_contexts()
            os.sync()
        if self._changed:
            (self._context / "d0000" / "f000000").write_bytes(os.urandom(trees.FILE_BYTES))
        return Build(self._context)

    def check(self, hands: Hands, sample: Sample) -> None:
        _expect_executed(sample, {"[1/1] COPY . /"} if self._changed else set())


class LargeFile(Sync):
    """One large file goes to the daemon."""

    def _tree(self, hands: Hands) -> Path:
        tree = hands.scratch / "large-file"
        trees.large_file(tree / "file", self._files)
        return tree

    def clean(self, hands: Hands) -> None:
        hands.forget_contexts()
        shutil.rmtree(self._context)


class Load(Work):
    """An image of layers of random bytes goes to the engine; the id under its name proves that it arrived."""

    def __init__(
        self, name: str, title: str, goals: Goals, *, sizes: Sizes, changed: bool = False, first: bool = False
    ):
        super().__init__(name, title, goals)
        self._sizes, self._changed, self._first = sizes, changed, first

    def prepare(self, hands: Hands) -> None:
        self._context = hands.scratch / "layers"
        self._image = f"{hands.builder}/layers"
        names = [f"layer{number}" for number in range(LAYERS)]
        if not self._context.exists():
            for name in names:
                trees.large_file(self._context / name, self._sizes.layer)
            trees.large_file(self._context / "top", self._sizes.top)
        copies = "".join(f"COPY {name} /\n" for name in [*names, "top"])
        (self._context / "Dockerfile").write_text(f"FROM scratch\n{copies}", encoding="utf-8")
        self._remove(hands)
        self._without = hands.engine.layers_size()
        hands.cli(Build(self._context, image=self._image))
        self._id = self._id_in_engine(hands)
        hands.module(Build(self._context, image=self._image))

    def before(self, hands: Hands) -> Build:
        if self._changed:
            trees.large_file(self._context / "top", self._sizes.top)
        if self._first:
            self._remove(hands)
            # An image without a name would keep its layers, and the load would find them.
            if hands.engine.layers_size() > self._without:
                raise MeasuringError("the engine still has layers of the image that was removed")
        os.sync()
        return Build(self._context, image=self._image)

    def check(self, hands: Hands, sample: Sample) -> None:
        found = self._id_in_engine(hands)
        if (found == self._id) is self._changed:
            raise MeasuringError(f"the engine has {found} under the name, after {self._id}")
        _expect_executed(sample, {f"[{LAYERS + 1}/{LAYERS + 1}] COPY top /"} if self._changed else set())
        if self._changed:
            hands.docker("rmi", self._id)
            self._id = found

    def clean(self, hands: Hands) -> None:
        self._remove(hands)

    def _remove(self, hands: Hands) -> None:
        hands.docker("rmi", "--force", self._image, check=False)

    def _id_in_engine(self, hands: Hands) -> str:
        return hands.docker("image", "inspect", "--format={{.Id}}", self._image).strip()


class LocalOutput(Work):
    """A tree of files comes back from the daemon."""

    option = "outputs"

    def __init__(self, name: str, title: str, goals: Goals, *, files: int):
        super().__init__(name, title, goals)
        self._files = files

    def prepare(self, hands: Hands) -> None:
        numbers = (self._files // trees.FILES_IN_DIRECTORY, trees.FILES_IN_DIRECTORY)
        self._context = _context_with_base(hands, "output", MAKE_FILES % numbers)
        self._output = hands.scratch / "written"
        self._expected: Optional[tuple[int, int]] = None
        hands.cli(self.before(hands))
        self._expected = trees.count_files(self._output)
        if self._expected[0] != self._files:
            raise MeasuringError(f"{self._expected[0]} files were made instead of {self._files}")
        hands.module(self.before(hands))

    def before(self, hands: Hands) -> Build:
        if self._output.exists():
            shutil.rmtree(self._output)
        os.sync()
        return Build(self._context, output=self._output)

    def check(self, hands: Hands, sample: Sample) -> None:
        found = trees.count_files(self._output)
        if found != self._expected:
            raise MeasuringError(f"(files, bytes) written are {found} instead of {self._expected}")


class Log(Work):
    """A step says very much."""

    def __init__(self, name: str, title: str, goals: Goals, *, lines: int):
        super().__init__(name, title, goals)
        self._lines = lines

    def prepare(self, hands: Hands) -> None:
        script = f"ARG RUN_ID\nRUN : $RUN_ID; seq {self._lines}\n"
        self._context = _context_with_base(hands, "log", f"FROM scratch\nADD root.tar /\n{script}")
        _both(hands, self.before(hands))

    def before(self, hands: Hands) -> Build:
        return Build(self._context, args={"RUN_ID": uuid.uuid4().hex})

    def check(self, hands: Hands, sample: Sample) -> None:
        steps = executed(sample)
        if len(steps) != 1:
            raise MeasuringError(f"other steps were run than the one that speaks: {steps}")
        lines = sample.lines()
        if not any(line.endswith(f" {self._lines}") for line in (_log_tail(sample) or lines)):
            raise MeasuringError("the last line of the step is missing")


class Cached(Work):
    """A build of which everything is known."""

    def prepare(self, hands: Hands) -> None:
        self._context = _context_with_base(hands, "tiny", "FROM scratch\nADD root.tar /\nRUN echo built > /built\n")
        _both(hands, Build(self._context))

    def before(self, hands: Hands) -> Build:
        return Build(self._context)

    def check(self, hands: Hands, sample: Sample) -> None:
        _expect_executed(sample, set())


def works(sizes: Sizes) -> list[Work]:
    """All rows, in the order of the table."""
    few, many, large, top = sizes.files, sizes.many_files, sizes.large_file, sizes.top
    image = f"load of an image of {_size(LAYERS * sizes.layer)} in {LAYERS} layers"
    return [
        Sync("few-first", f"{few:,} small files, first sync", (0.7, 0.95), files=few, first=True),
        Sync("few-unchanged", f"{few:,} small files, unchanged", (0.75, 0.9), files=few),
        Sync("few-changed", f"{few:,} small files, one changed", NO_GOALS, files=few, changed=True),
        Sync("many-unchanged", f"{many:,} small files, unchanged", (0.5, 0.6), files=many),
        Sync("many-first", f"{many:,} small files, first sync", (0.5, 0.8), files=many, first=True),
        LargeFile("large-first", f"one file of {_size(large)}, first sync", (0.4, 0.65), files=large, first=True),
        Load("load-unchanged", f"{image}, unchanged", (0.1, 0.1), sizes=sizes),
        Load("load-changed", f"{image}, {_size(top)} on top changed", (0.1, 0.1), sizes=sizes, changed=True),
        Load("load-first", f"{image}, first", (0.6, 0.6), sizes=sizes, first=True),
        LocalOutput("output", f"local output of {few:,} files", (0.4, 0.8), files=few),
        Log("log", f"{sizes.log_lines:,} log lines", (0.5, 0.6), lines=sizes.log_lines),
        Cached("cached", "fully cached tiny build", (1.5, 1.8)),
    ]


def _size(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB")):
        if count >> shift:
            return f"{count >> shift} {unit}"
    return f"{count >> 10} KiB"


def _context_with_base(hands: Hands, name: str, dockerfile: str) -> Path:
    context = hands.scratch / name
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    hands.base(context)
    return context


def _both(hands: Hands, build: Build) -> None:
    """Each side keeps a copy of its own of a context with the daemon."""
    hands.cli(build)
    hands.module(build)


def _expect_executed(sample: Sample, expected: set[str]) -> None:
    steps = executed(sample)
    if steps != expected:
        raise MeasuringError(f"the steps that were run are {sorted(steps)} instead of {sorted(expected)}")


def _log_tail(sample: Sample) -> list[str]:
    """The log in a module's result, [] for the CLI, which has nothing but its log."""
    try:
        return list(result(sample)["log_tail"])
    except StopIteration:
        return []
