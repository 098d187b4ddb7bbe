# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two directories never meet under one key in the daemon, which takes equal sizes and times for equal content.

The directories of these tests look the same: names, modes, sizes and times are equal, the content is not.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.builds import Inputs, Ours

if TYPE_CHECKING:
    from conftest import Bench

STAMP = 1_600_000_000_000_000_000
COPY = "FROM scratch\nCOPY . /\n"
BOTH = "FROM scratch\nCOPY --from=one . /one/\nCOPY --from=two . /two/\n"


def look_alike(path: Path, content: str, dockerfile: str = COPY) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    (path / "Dockerfile").write_text(dockerfile)
    for each in (path / "file", path / "Dockerfile", path):
        os.utime(each, ns=(STAMP, STAMP))
    return path


@pytest.fixture
def make_client(ready: Bench) -> Iterator[Callable[..., Ours]]:
    made: list[Ours] = []

    def make(key: Callable[[Inputs], str] | None = None) -> Ours:
        made.append(Ours(ready.inspect(), key))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_trap_is_there(make_client: Callable[..., Ours], tmp_path: Path) -> None:
    """Under one key the daemon does give the other directory's content: what the tests below would see."""
    key = uuid.uuid4().hex
    careless = make_client(lambda _inputs: key)
    one, two = (look_alike(tmp_path / name, name) for name in ("one", "two"))

    assert careless.build(Inputs(str(one))) == careless.build(Inputs(str(two)))


def other_path(top: Path) -> Iterator[Inputs]:
    for name in ("one", "two"):
        yield Inputs(str(look_alike(top / name / "context", name)))


def moved_away(top: Path) -> Iterator[Inputs]:
    for name in ("one", "two"):
        yield Inputs(str(look_alike(top / "context", name)))
        (top / "context").rename(top / name)


def put_in_its_place(top: Path) -> Iterator[Inputs]:
    other = look_alike(top / "other", "two")
    yield Inputs(str(look_alike(top / "context", "one")))
    (top / "context").rename(top / "old")
    other.rename(top / "context")
    yield Inputs(str(top / "context"))


def made_anew(top: Path) -> Iterator[Inputs]:
    """The new directory may well have the old one's inode."""
    for name in ("one", "two", "six"):
        yield Inputs(str(look_alike(top / "context", name)))
        shutil.rmtree(top / "context")


def other_dockerfile(top: Path) -> Iterator[Inputs]:
    context = look_alike(top / "context", "context")
    for name in ("one", "two"):
        dockerfile = look_alike(top / name, "", COPY.replace("/\n", f"/{name}/\n")) / "Dockerfile"
        yield Inputs(str(context), str(dockerfile))


def swapped_names(top: Path) -> Iterator[Inputs]:
    context = str(look_alike(top / "context", "context", BOTH))
    one, two = (str(look_alike(top / name, name)) for name in ("one", "two"))
    yield Inputs(context, contexts={"one": one, "two": two})
    yield Inputs(context, contexts={"one": two, "two": one})


def other_directory_of_a_name(top: Path) -> Iterator[Inputs]:
    context = str(look_alike(top / "context", "context", BOTH))
    for name in ("one", "two"):
        named = str(look_alike(top / name / "base", name))
        yield Inputs(context, contexts={"one": named, "two": named})


def context_as_a_name(top: Path) -> Iterator[Inputs]:
    one, two = (str(look_alike(top / name, name, BOTH)) for name in ("one", "two"))
    yield Inputs(one, contexts={"one": two, "two": one})
    yield Inputs(two, contexts={"one": one, "two": two})


SCENES = [
    other_path,
    moved_away,
    put_in_its_place,
    made_anew,
    other_dockerfile,
    swapped_names,
    other_directory_of_a_name,
    context_as_a_name,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_directories_that_look_the_same(
    make_client: Callable[..., Ours], tmp_path: Path, scene: Callable[[Path], Iterator[Inputs]]
) -> None:
    """Each build has the content of its own directories, as it has with a key that was never used."""
    ours, fresh = make_client(), make_client(lambda _inputs: uuid.uuid4().hex)
    seen = set()
    for inputs in scene(tmp_path):
        result = ours.build(inputs)

        assert not result.error
        assert result == fresh.build(inputs)
        seen.add(result.image)
    assert len(seen) > 1


def test_what_is_known_is_not_sent_again(make_client: Callable[..., Ours], tmp_path: Path) -> None:
    """The keys are those of the same directories in the next build, by whatever path they are named."""
    context = str(look_alike(tmp_path / "context", "context", BOTH))
    one, two = (str(look_alike(tmp_path / name, name)) for name in ("one", "two"))
    (tmp_path / "link").symlink_to("one")
    inputs = Inputs(context, contexts={"one": one, "two": two})
    ours = make_client()
    ours.build(inputs)
    assert ours.sent[0] > 4

    ours.build(replace(inputs, contexts={"one": str(tmp_path / "link"), "two": two + "/../two/"}))

    assert ours.sent[0] == 1, "more than the Dockerfile"


def test_swapped_contexts_of_the_module(ready: Bench, tmp_path: Path) -> None:
    path = look_alike(tmp_path / "context", "context", BOTH)
    one, two = (str(look_alike(tmp_path / name, name)) for name in ("one", "two"))
    for first, second in ((one, two), (two, one)):
        out = tmp_path / "out"

        ready.build(path, build_contexts={"one": first, "two": second}, outputs=[{"type": "local", "dest": str(out)}])

        assert (out / "one/file").read_text() == os.path.basename(first)
        assert (out / "two/file").read_text() == os.path.basename(second)
        shutil.rmtree(out)


def test_a_directory_that_took_the_place_of_another_in_the_module(ready: Bench, tmp_path: Path) -> None:
    for inputs, content in zip(put_in_its_place(tmp_path), ("one", "two")):
        out = tmp_path / "out"

        ready.build(Path(inputs.context), outputs=[{"type": "local", "dest": str(out)}])

        assert (out / "file").read_text() == content
        shutil.rmtree(out)
