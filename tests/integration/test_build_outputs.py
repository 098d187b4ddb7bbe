# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results as files, caches, secrets and named contexts, through the module, beside what the CLI makes of the same."""

from __future__ import annotations

import json
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

FILES = "FROM scratch\nCOPY word /in/word\nCOPY word /other\n"
RUNS = "FROM scratch\nADD root.tar /\nCOPY word /word\nRUN cat /proc/sys/kernel/random/uuid > /once\n"


@pytest.fixture
def word() -> str:
    """What no build before has seen."""
    return uuid.uuid4().hex


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return sorted(member.name.rstrip("/") for member in opened)


def test_a_directory(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """Changed is what is different on disk; what was there before stays, unless mode=delete."""
    path, out = context(FILES, word=word), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("stays")
    into: dict[str, Any] = {"outputs": [{"type": "local", "dest": str(out)}]}

    first, second = ready.build(path, **into), ready.build(path, **into)

    assert (first["changed"], second["changed"]) == (True, False)
    assert ready.warnings(first) == []
    assert ready.tree(out) == {
        "in": ("0o40755", b""),
        "in/word": ("0o100644", word.encode()),
        "mine": ("0o100644", b"stays"),
        "other": ("0o100644", word.encode()),
    }
    (out / "other").write_text("edited")
    assert ready.build(path, **into)["changed"]
    deleting = ready.build(path, outputs=[f"type=local,dest={out},mode=delete"])
    assert deleting["changed"]
    assert sorted(ready.tree(out)) == ["in", "in/word", "other"]
    assert not ready.build(path, outputs=[f"type=local,dest={out},mode=delete"])["changed"]


def test_archives(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """The archives of the CLI, several at once, and each of them changed only when its content is."""
    path, name = context(FILES, word=word), ready.image()
    outputs = [
        {"type": "tar", "dest": str(tmp_path / "files.tar")},
        {"type": "oci", "dest": str(tmp_path / "deep/er/oci.tar")},
        {"type": "docker", "dest": str(tmp_path / "docker.tar")},
    ]

    first = ready.build(path, name=name, outputs=outputs)
    second = ready.build(path, name=name, outputs=outputs)

    assert (first["changed"], second["changed"]) == (True, False)
    assert names(tmp_path / "files.tar") == ["in", "in/word", "other"]
    ready.docker("load", "-q", "-i", str(tmp_path / "docker.tar"))
    assert ready.files(name) == {"in/word", "other"}
    theirs = tmp_path / "theirs.tar"
    ready.buildx("build", "--builder", ready.name, "-t", name, "-o", f"type=oci,dest={theirs}", str(path))
    assert names(theirs) == names(tmp_path / "deep/er/oci.tar")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_layout(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    path, name, layout = context(FILES, word=word), ready.image(), tmp_path / "layout"
    output = {"type": "oci", "dest": str(layout), "tar": False}

    first, second = (ready.build(path, name=name, tag="1.0", outputs=[output]) for _time in range(2))

    assert (first["changed"], second["changed"]) == (True, False)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == first["digest"]
    assert entry["annotations"]["io.containerd.image.name"] == f"docker.io/{name}:1.0"
    assert (layout / "blobs" / entry["digest"].replace(":", "/")).is_file()


def test_several_results_of_one_build(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """With outputs nothing is loaded by itself; load adds to them, under every name."""
    path, name, more = context(FILES, word=word), ready.image(), ready.image()
    output = {"type": "local", "dest": str(tmp_path / "out")}

    alone = ready.build(path, name=name, outputs=[output])
    both = ready.build(path, name=name, tags=[f"{more}:2"], outputs=[output], load=True)

    assert (alone["changed"], alone["image"]) == (True, {})
    assert both["changed"]
    assert sorted(both["image"]["RepoTags"]) == sorted([f"{name}:latest", f"{more}:2"])
    assert not ready.build(path, name=name, tags=[f"{more}:2"], outputs=[output], load=True)["changed"]


def test_nothing_on_purpose(ready: Bench, context: Callable[..., Path], word: str) -> None:
    """cacheonly, as for the CLI, is no reason for a warning."""
    result = ready.build(context(FILES, word=word), outputs=["type=cacheonly"], name="unused")

    assert ready.warnings(result) == []
    assert (result["changed"], result["image"]) == (True, {})


def test_a_destination_that_cannot_be(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """Told before anything is built; the context is not a place to empty."""
    path = context(FILES, word=word)
    (tmp_path / "file").write_text("x")
    for output, words in (
        ({"type": "local", "dest": str(tmp_path / "file")}, "is a file"),
        ({"type": "tar", "dest": str(tmp_path)}, "is a directory"),
        ({"type": "local", "dest": str(tmp_path), "mode": "delete"}, "would remove everything else"),
    ):
        failed = ready.failed_build(path, outputs=[output])
        assert words in failed["msg"]
        assert failed["error"]["kind"] == "config"
    assert (path / "word").read_text() == word


def test_a_local_cache(bench: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """A builder whose cache is gone takes the steps from a directory; one that is not there yet is passed over."""
    path, cache = context(RUNS, word=word), tmp_path / "cache"
    bench.builder()
    caches = {"cache_from": [f"type=local,src={cache}"], "cache_to": [f"type=local,dest={cache},mode=max"]}

    first = bench.build(path, **caches)
    bench.buildx("prune", "--builder", bench.name, "-af")
    second = bench.build(path, cache_from=[{"type": "local", "src": str(cache)}])

    assert any(f"there is no cache latest in {cache}" in text for text in bench.warnings(first))
    assert len(first["executed"]) == 3
    assert second["executed"] == []
    bench.buildx("prune", "--builder", bench.name, "-af")
    printed = bench.buildx(
        "build", "--builder", bench.name, "--progress=plain", "--cache-from", f"type=local,src={cache}", str(path)
    )
    assert "CACHED" in printed


def test_a_cache_inside_the_image(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """inline and the CLI's build argument say the same."""
    path = context(RUNS, word=word)
    for number, options in enumerate(({"cache_to": ["inline"]}, {"args": {"BUILDKIT_INLINE_CACHE": "1"}})):
        layout = tmp_path / f"layout{number}"
        ready.build(path, outputs=[{"type": "oci", "dest": str(layout), "tar": False}], **options)
        blobs = [file.read_bytes() for file in (layout / "blobs/sha256").iterdir()]
        assert any(b'"moby.buildkit.cache.v0"' in blob for blob in blobs)


def test_secrets(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """From a file, the environment and a text; in no result and no log, not even with everything that Ansible tells."""
    (tmp_path / "token").write_text(f"file {word}")
    ready.environment["TOKEN"] = f"variable {word}"
    mounts = "--mount=type=secret,id=file --mount=type=secret,id=env --mount=type=secret,id=text"
    path = context(
        f"FROM scratch\nADD root.tar /\nRUN {mounts} --mount=type=secret,id=none,required=false "
        f"cat /run/secrets/* | md5sum > /sum && test ! -e /run/secrets/none && echo {word[::-1]}\n"
        "FROM scratch\nCOPY --from=0 /sum /\n"
    )
    secrets = [
        {"id": "file", "src": str(tmp_path / "token")},
        {"id": "env", "env": "TOKEN"},
        {"id": "text", "type": "value", "value": f"text {word}"},
    ]

    result = ready.build(path, secrets=secrets, outputs=[str(tmp_path / "out")])

    given = f"variable {word}file {word}text {word}"  # in the order of their ids
    sum_ = ready.run("sh", "-c", f"printf '%s' '{given}' | md5sum").stdout
    assert (tmp_path / "out/sum").read_text() == sum_
    assert word not in json.dumps(result)


def test_secrets_that_are_not_there(ready: Bench, context: Callable[..., Path], word: str) -> None:
    path = context(f"FROM scratch\nADD root.tar /\nRUN --mount=type=secret,id=token,required=true echo {word}\n")

    missing = ready.failed_build(path, secrets=[{"id": "other", "value": "x"}])
    no_file = ready.failed_build(path, secrets=[{"id": "token", "src": "/does/not/exist"}])

    assert "secret token: not found" in missing["msg"]
    assert "the file of the secret token cannot be read: /does/not/exist" in no_file["msg"]


def test_named_contexts(ready: Bench, context: Callable[..., Path], word: str, tmp_path: Path) -> None:
    """Directories in place of images; as for the CLI, each with an ignore file of its own."""
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "kept").write_text(word)
    (extra / "left").write_text(word)
    (extra / ".dockerignore").write_text("left\n")
    path = context("FROM extra AS base\nFROM scratch\nCOPY --from=base / /base/\nCOPY --from=second / /second/\n")

    result = ready.build(
        path, build_contexts={"extra": str(extra), "second": str(extra)}, outputs=[str(tmp_path / "out")]
    )

    assert result["changed"]
    found = {name for name, (mode, _content) in ready.tree(tmp_path / "out").items() if mode.startswith("0o100")}
    assert found == {"base/.dockerignore", "base/kept", "second/.dockerignore", "second/kept"}
    missing = ready.failed_build(path, build_contexts={"extra": str(tmp_path / "nowhere")})
    assert "failed to get build context extra" in missing["msg"]
