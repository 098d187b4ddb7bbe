# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each option of a build does to the image, and which files and which builder a build takes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"


@pytest.fixture
def word() -> str:
    """Content that no cache has."""
    return uuid.uuid4().hex


def test_args(ready: Bench, context: Callable[..., Path]) -> None:
    """Build arguments arrive as text, letter by letter; booleans as YAML writes them, nothing as no text."""
    values = {
        "text": "a b",
        "quoted": "\"'$x\\",
        "letters": "é日本",
        "lines": "a\nb",
        "equal": "a=b,c=d",
        "yes": True,
        "no": False,
        "number": 1.5,
        "whole": 10,
        "empty": "",
        "none": None,
    }
    said = [values["text"], values["quoted"], "é日本", "a\nb", "a=b,c=d", "true", "false", "1.5", "10", "", ""]
    declared = "".join(f"ARG {key}\n" for key in values)
    given = " ".join(f'"${key}"' for key in values)
    path = context(f'{BASE}{declared}RUN printf "<%s>" {given} > /said\nCMD ["cat", "/said"]\n')
    name = ready.image()

    ready.build(path, name=name, args=values)

    assert ready.docker("run", "--rm", name) == "".join(f"<{text}>" for text in said)


def test_labels(ready: Bench, context: Callable[..., Path]) -> None:
    """Labels are set as text, win over those of the Dockerfile, and make another image."""
    path, name = context("FROM scratch\nLABEL mine=old kept=yes\nCOPY file /\n", file="x"), ready.image()
    wanted = {"mine": "new", "org.example/a.b": "with = and , in it", "flag": True, "empty": ""}

    first = ready.build(path, name=name, labels=wanted)

    assert first["image"]["Config"]["Labels"] == {**wanted, "flag": "true", "kept": "yes"}
    assert not ready.build(path, name=name, labels=wanted)["changed"]
    assert ready.build(path, name=name, labels={"mine": "newer"})["changed"]


def test_target(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """A target builds that stage and what it needs, no other; without one the last stage is built."""
    path = context(
        f"{BASE.replace('scratch', 'scratch AS base')}"
        f'FROM base AS one\nRUN echo {word} one > /said\nCMD ["cat", "/said"]\n'
        f'FROM base AS two\nRUN echo {word} two > /said\nCMD ["cat", "/said"]\n'
    )
    name = ready.image()

    first = ready.build(path, name=name, target="one")

    assert ready.docker("run", "--rm", name) == f"{word} one\n"
    assert not [step for step in first["executed"] if "two" in step]
    assert ready.build(path, name=name)["changed"]
    assert ready.docker("run", "--rm", name) == f"{word} two\n"
    refused = ready.failed_build(path, name=name, target="three")
    assert "three" in refused["msg"]


@pytest.mark.parametrize(
    ("platform", "architecture"),
    [(["linux/arm64/v8"], "arm64"), (["Linux/x86_64"], "amd64")],
)
def test_platform(ready: Bench, context: Callable[..., Path], platform: list[str], architecture: str) -> None:
    """The image is of the platform that was asked for, however that was written."""
    path, name = context("FROM scratch\nCOPY file /\n", file="x"), ready.image()

    result = ready.build(path, name=name, platform=platform)

    assert (result["image"]["Os"], result["image"]["Architecture"]) == ("linux", architecture)


def test_two_platforms(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """Two platforms are built into the cache; an engine that takes only one refuses them before anything is built."""
    path = context("FROM scratch\nARG TARGETARCH\nCOPY file /\nWORKDIR /${TARGETARCH}\n", file=word)
    both = ["linux/amd64", "linux/arm64"]

    refused = ready.failed_build(path, name=ready.image(), platform=both)
    built = ready.build(path, platform=both)

    assert "docker exporter does not currently support exporting manifest lists" in refused["msg"]
    assert refused["error"]["kind"] == "config"
    assert {"[linux/amd64 2/2] WORKDIR /amd64", "[linux/arm64 2/2] WORKDIR /arm64"} <= set(built["executed"])
    cli = ready.buildx("build", "--builder", ready.name, "--load", "--platform", ",".join(both), str(path), check=False)
    assert "docker exporter does not currently support exporting manifest lists" in cli


def test_pull(bench: Bench, context: Callable[..., Path], word: str) -> None:
    """The engine's own BuildKit takes the engine's image of a base; pull asks the registry for a newer one."""
    base = f"{bench.environment['BUILDX_LAB_REGISTRY']}/{bench.name}/base"
    files = {"directory": "base", "file": "old"}
    for text in ("new", "old"):
        bench.build(context("FROM scratch\nCOPY file /\n", **{**files, "file": text}), builder="default", name=base)
        if text == "new":
            bench.docker("push", base)
    path, name = context(f'FROM {base}\nLABEL w={word}\nCMD ["/file"]\n', directory="over"), bench.image()

    def layers(image: str) -> list[str]:
        found: list[str] = bench.inspect(image)["RootFS"]["Layers"]
        return found

    old = layers(base)
    bench.build(path, builder="default", name=name)
    assert layers(name) == old
    bench.build(path, builder="default", name=name, pull=True)
    assert layers(name) != old


@pytest.mark.parametrize("where", ["relative", "below", "absolute", "outside", "link", "lower case"])
def test_dockerfile(ready: Bench, context: Callable[..., Path], tmp_path: Path, where: str) -> None:
    """The Dockerfile may have any name and lie anywhere; its COPY is from the context all the same."""
    path, name = context("FROM scratch\nLABEL file=wrong\n", file="x"), ready.image()
    text = 'FROM scratch\nCOPY file /\nLABEL file="right"\n'
    below, outside = path / "below", tmp_path / "outside"
    below.mkdir()
    outside.mkdir()
    file, option = {
        "relative": (path / "Other.Dockerfile", "Other.Dockerfile"),
        "below": (below / "Dockerfile", "below/Dockerfile"),
        "absolute": (path / "Other", str(path / "Other")),
        "outside": (outside / "Dockerfile", str(outside / "Dockerfile")),
        "link": (path / "real", "link"),
        "lower case": (path / "dockerfile", None),
    }[where]
    if where == "link":
        (path / "link").symlink_to("real")
    if where == "lower case":
        (path / "Dockerfile").unlink()
    file.write_text(text)

    result = ready.build(path, name=name, dockerfile=option)

    assert result["image"]["Config"]["Labels"] == {"file": "right"}


@pytest.mark.parametrize(
    ("ignore", "own", "left"),
    [
        ("*\n!kept\n!sub/kept\n", None, {"kept", "sub/kept"}),
        ("sub\n!sub/kept\n", None, {"Dockerfile", ".dockerignore", "kept", "other", "sub/kept"}),
        ("*\n", "other\n**/kept\n", {"Dockerfile", ".dockerignore", "Dockerfile.dockerignore", "sub/other"}),
        ("# a comment\n\n./other/\n/sub\n", None, {"Dockerfile", ".dockerignore", "kept"}),
    ],
    ids=["all but", "exception below", "the Dockerfile's own", "forms"],
)
def test_dockerignore(
    ready: Bench,
    tmp_path: Path,
    ignore: str,
    own: str | None,
    left: set[str],
) -> None:
    """Only what .dockerignore leaves is in the context; a file beside the Dockerfile with its name wins over it."""
    path, name = tmp_path / "context", ready.image()
    (path / "sub").mkdir(parents=True)
    for file in ("kept", "other", "sub/kept", "sub/other"):
        (path / file).write_text(file)
    (path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (path / ".dockerignore").write_text(ignore)
    if own is not None:
        (path / "Dockerfile.dockerignore").write_text(own)

    ready.build(path, name=name)

    assert ready.files(name) == left
    other = ready.image()
    ready.buildx("build", "--builder", ready.name, "--load", "-t", other, str(path))
    assert ready.inspect(name)["RootFS"]["Layers"] == ready.inspect(other)["RootFS"]["Layers"]


def test_stages_and_heredoc(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """Several stages that copy from one another, heredocs, ARG before FROM and cache mounts build as they should."""
    path = context(
        f"""ARG from=base
FROM scratch AS base
ADD root.tar /
FROM base AS maker
WORKDIR /work
COPY <<EOF made
{word}
EOF
RUN --mount=type=cache,target=/cache <<EOF
cat made made > twice
cp made /cache/made
EOF
FROM ${{from}}
COPY --from=maker --chmod=0440 --chown=12:34 /work/twice /twice
RUN --mount=type=bind,from=maker,source=/work,target=/mnt cat /mnt/made >> /twice
CMD ["sh", "-c", "cat /twice; stat -c '%a %u %g' /twice"]
"""
    )
    name = ready.image()

    ready.build(path, name=name)

    assert ready.docker("run", "--rm", name) == f"{word}\n" * 3 + "440 12 34\n"
    assert not ready.build(path, name=name)["changed"]


@pytest.mark.parametrize(
    ("name", "tag", "wanted"),
    [
        ("NAME", None, "NAME:latest"),
        ("NAME", "1.10", "NAME:1.10"),
        ("NAME:own", "1.10", "NAME:own"),
        ("registry.example.com:5000/NAME", None, "registry.example.com:5000/NAME:latest"),
        ("registry.example.com:5000/NAME:v_1.2-x", "unused", "registry.example.com:5000/NAME:v_1.2-x"),
        ("docker.io/library/NAME", "x", "NAME:x"),
    ],
)
def test_names(ready: Bench, context: Callable[..., Path], name: str, tag: str | None, wanted: str) -> None:
    """The image is in the engine under name and tag; a tag in the name wins; a port is no tag."""
    mine = ready.image().replace("/", "-")
    path = context("FROM scratch\nCOPY file /\n", file=mine)
    options = {"tag": tag} if tag else {}

    result = ready.build(path, name=name.replace("NAME", mine), **options)

    assert result["image"]["RepoTags"] == [wanted.replace("NAME", mine)]


@pytest.mark.parametrize("how", ["option", "environment", "use", "default"])
def test_which_builder(ready: Bench, context: Callable[..., Path], word: str, how: str) -> None:
    """The option names the builder, else $BUILDX_BUILDER, else what `use` selected, else the engine's own builds."""
    path, name = context(f"{BASE}RUN echo {word}\n"), ready.image()
    options: dict[str, Any] = {"builder": None}
    if how == "option":
        options, ready.environment["BUILDX_BUILDER"] = {"builder": ready.name}, "nobody"
    elif how == "environment":
        ready.environment["BUILDX_BUILDER"] = ready.name
    elif how == "use":
        ready.buildx("use", ready.name)

    try:
        result = ready.build(path, name=name, **options)
    finally:
        ready.buildx("use", "default")

    builder = "default" if how == "default" else ready.name
    assert f'/{result["ref"]}"' in ready.buildx("history", "ls", "--builder", builder, "--format", "json")


def test_engines_own_builder(bench: Bench, context: Callable[..., Path], word: str) -> None:
    """The engine's own BuildKit sees the engine's images, and what it builds is in the engine without a load."""
    base = bench.environment["BUILDX_LAB_BASE_IMAGE"]
    local = bench.image()
    bench.docker("tag", base, local)
    path, name = (
        context(f'FROM {local}\nCOPY word /\nRUN cp /word /said\nCMD ["cat", "/said"]\n', word=word),
        bench.image(),
    )

    first = bench.build(path, builder="default", name=name)

    assert first["changed"]
    assert bench.docker("run", "--rm", name) == word
    assert not bench.build(path, builder="default", name=name)["changed"]
    other = bench.image()
    bench.buildx("build", "--builder", "default", "-t", other, str(path))
    assert bench.inspect(other)["Id"] == first["image"]["Id"] == bench.inspect(name)["Id"]
    assert bench.build(path, builder="default", name=name, nocache=True)["changed"]

    (path / "word").write_text(word[::-1])
    cached = bench.build(path, builder="default", name=name, load=False)
    assert cached["changed"]
    assert not bench.warnings(cached)
    assert bench.docker("run", "--rm", name) == word


def test_unknown_builder(ready: Bench, context: Callable[..., Path]) -> None:
    """A builder that is not there is named, with those that are."""
    refused = ready.failed_build(context(BASE), builder="nobody")

    assert refused["error"]["kind"] == "builder"
    assert "nobody" in refused["msg"]
    assert ready.name in refused["msg"]
    assert "default" in refused["msg"]


def test_builder_of_a_docker_context(bench: Bench, context: Callable[..., Path], word: str) -> None:
    """A docker context has a builder of its name when it is the task's; of another one the message says what to do."""
    host = bench.environment.pop("DOCKER_HOST")
    bench.docker("context", "create", "elsewhere", "--docker", f"host={host}")
    path, name = context(f"{BASE}LABEL w={word}\n"), bench.image()

    refused = bench.failed_build(path, builder="elsewhere", name=name)
    bench.environment["DOCKER_CONTEXT"] = "elsewhere"
    built = [bench.build(path, builder=builder, name=name) for builder in ("elsewhere", None)]

    assert "DOCKER_CONTEXT=elsewhere" in refused["msg"]
    assert [result["changed"] for result in built] == [True, False]
    assert built[0]["image"]["Config"]["Labels"] == {"w": word}
    assert json.loads(bench.docker("inspect", name))[0]["Id"] == built[0]["image"]["Id"]
