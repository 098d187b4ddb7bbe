# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an image comes into an engine: only what is missing moves, with both image stores, and it is the CLI's image.

The module does what it is for; what its options do not reach (attestations, compressions, what happens within one load)
is done with the same parts in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import transfer
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.load import Loaded, LoadSink
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import solve
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content_read import ContentReader
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import FileSend, streamed
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Service
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._connect import container_dialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers, images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, BuildxError

if TYPE_CHECKING:
    from conftest import Bench

CLASSIC, CONTAINERD = "classic", "containerd"
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In a pid namespace of its own a module cannot prove whose the engine's pids are, and takes an exec."""
LARGE = 300_000
"""Bytes of a layer that one sees when it moves; all else in a tar is less than SMALL."""
SMALL = 64_000


@dataclass
class Loading:
    """A builder, and an engine with one of the stores that its images go to."""

    bench: Bench
    store: str
    builders_engine: str
    context: Path
    made: list[str] = field(default_factory=list)
    way_in: str = ""

    def name(self) -> str:
        self.made.append(f"{self.bench.image()}:latest")
        return self.made[-1]

    def write(self, dockerfile: str, **files: bytes) -> None:
        (self.context / "Dockerfile").write_text(f"FROM scratch\n{dockerfile}", encoding="utf-8")
        for name, content in files.items():
            (self.context / name).write_bytes(content)

    def module(self, name: str) -> dict[str, Any]:
        """buildx_build; its value `load`, and that of `changed` among it."""
        result = self.bench.build(self.context, name=name)
        return {**result["load"], "changed": result["changed"]}

    def load(
        self, *names: str, attrs: Mapping[str, str] | None = None, frontend: Mapping[str, str] | None = None
    ) -> Loaded:
        """The same in this process: any names, and attributes of the exporter and the frontend."""
        ours, theirs = Engine(Target(self.way_in or self.host)), Engine(Target(self.builders_engine))
        found = containers.inspect(theirs, self.bench.container)
        assert found is not None
        dialer, progress = container_dialer(theirs, found), Progress()
        by_manifest = self.store == CONTAINERD
        with ours, theirs, Client(dialer) as client:
            sink = LoadSink(ours, client, lambda: progress.local("importing to docker"), containerd=by_manifest)
            files = FileSync({"context": str(self.context), "dockerfile": str(self.context)})
            services: list[Service] = [Health(), files, FileSend({0: streamed(sink)})]
            session = Session(dialer, uuid.uuid4().hex, uuid.uuid4().hex, services)
            request = control.SolveRequest(
                Ref=uuid.uuid4().hex, Session=session.id, Frontend="dockerfile.v0", FrontendAttrs=frontend or {}
            )
            kind = "oci" if by_manifest else "docker"
            wanted = {**(attrs or {}), **({"name": ",".join(names)} if names else {})}
            request.Exporters.add(Type=kind, Attrs=wanted)
            request.ExporterDeprecated = kind
            request.ExporterAttrsDeprecated.update(wanted)
            try:
                solve.run(client, session, request, progress, Deadline(120))
            finally:
                dialer.close()
        assert sink.loaded is not None
        return sink.loaded

    @property
    def host(self) -> str:
        return self.bench.environment["DOCKER_HOST"]

    def cli(self, *arguments: str) -> str:
        """The id of the image that the real CLI loads, under a name of its own."""
        name = self.name()
        done = self.bench.buildx(
            "build", "--builder", self.bench.name, "--load", "-t", name, *arguments, str(self.context)
        )
        found = self.id(name)
        assert found, done
        return found

    def id(self, name: str) -> str:
        found = self.bench.docker("images", "-q", "--no-trunc", name).split()
        return found[0] if found else ""

    def layers(self, name: str) -> int:
        """How many layers the engine itself has of an image: those that it can write out again."""
        file = self.bench.directory / "saved.tar"
        self.bench.docker("save", "-o", str(file), name)
        with tarfile.open(file) as archive:
            return sum(1 for member in archive if member.isfile() and member.size > LARGE)

    def no_throw_away_names(self) -> bool:
        return self.bench.docker("images", "-q", transfer.TEMPORARY) == ""


@pytest.fixture(params=[CLASSIC, CONTAINERD])
def loading(request: pytest.FixtureRequest, ready: Bench, tmp_path: Path) -> Iterator[Loading]:
    builders_engine = ready.environment["DOCKER_HOST"]
    if request.param == CONTAINERD:
        host = request.getfixturevalue("containerd_engine")
        ready = replace(ready, environment={**ready.environment, "DOCKER_HOST": host})
    path = tmp_path / "context"
    path.mkdir()
    made = Loading(ready, request.param, builders_engine, path)
    yield made
    if made.made:
        ready.docker("rmi", "-f", *made.made, check=False)


def large(letter: int) -> bytes:
    """Content that compresses badly, that no cache has, and that begins with a letter."""
    return bytes([letter]) + os.urandom(LARGE + 1000)


THREE = "COPY a /a\nCOPY b /b\nCOPY c /c\n"


def test_only_what_is_missing_moves(loading: Loading) -> None:
    """All, then nothing, then what changed: the top, the configuration, a layer below; each is the CLI's image."""
    name = loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))

    first = loading.module(name)
    assert (first["way"], first["layers"], first["changed"]) == ("all", 3, True)
    assert first["bytes"] > 3 * LARGE
    ids = [loading.id(name)]
    assert loading.module(name) == {"way": "unchanged", "bytes": 0, "layers": 0, "changed": False}

    loading.write(THREE, c=large(4))
    top = loading.module(name)
    assert (top["way"], top["layers"], top["changed"]) == ("missing", 1, True)
    assert LARGE < top["bytes"] < LARGE + SMALL
    ids.append(loading.id(name))

    loading.write(f"{THREE}LABEL of={uuid.uuid4()}\n")
    configuration = loading.module(name)
    assert (configuration["way"], configuration["layers"], configuration["changed"]) == ("missing", 0, True)
    assert configuration["bytes"] < SMALL
    ids.append(loading.id(name))
    assert loading.id(name) == loading.cli()
    assert loading.layers(name) == 3

    loading.write(THREE, a=large(5))
    base = loading.module(name)
    assert base["changed"]
    # One store knows layers by all that lies below them, the other by their contents.
    assert (base["way"], base["layers"]) == (("all", 3) if loading.store == CLASSIC else ("missing", 1))
    assert loading.id(name) == loading.cli()
    assert loading.layers(name) == 3
    assert len({*ids, loading.id(name)}) == 4
    assert loading.no_throw_away_names()


def test_what_is_loaded_runs(loading: Loading, root_archive: Path) -> None:
    """A container of an image of which only a layer was sent has the files of all of them, through an exec as well."""
    shutil.copy(root_archive, loading.context / "root.tar")
    name = loading.name()
    for word, prefix in ((b"one", ()), (b"two", OWN_PIDS)):
        loading.bench.prefix = prefix
        loading.write("ADD root.tar /\nCOPY word /word\n", word=word)
        loaded = loading.module(name)
        assert loading.bench.docker("run", "--rm", name, "cat", "/word") == word.decode()
    assert (loaded["way"], loaded["layers"]) == ("missing", 1)


def test_several_names(loading: Loading) -> None:
    """Every name is looked at, and a name that is missing or has become another image's is given back."""
    one, two, other = loading.name(), loading.name(), loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))

    assert loading.load(one, two).way == "all"
    assert loading.load(one, two) == Loaded("unchanged")
    expected = loading.cli()
    assert loading.id(one) == loading.id(two) == expected

    another = "tagged" if loading.store == CLASSIC else "missing"
    loading.bench.docker("rmi", two)
    for names in ((one, two), (other,)):
        again = loading.load(*names)
        assert (again.way, again.layers) == (another, 0)
        assert again.bytes < SMALL
    assert loading.id(one) == loading.id(two) == loading.id(other) == expected

    loading.write("COPY a /else\n")
    loading.load(other)
    loading.bench.docker("tag", other, one)
    assert loading.id(one) != expected
    loading.write(THREE)
    assert loading.load(one, two).way == another
    assert loading.id(one) == loading.id(two) == expected
    assert loading.no_throw_away_names()


def test_no_name(loading: Loading) -> None:
    """An image without a name is found again by its id."""
    loading.write(THREE, a=large(1), b=large(2), c=large(3))

    assert loading.load().way == "all"
    assert loading.load() == Loaded("unchanged")

    expected = loading.cli()
    loading.made.append(expected)
    assert expected in loading.bench.docker("images", "-aq", "--no-trunc").split()


def test_layers_that_come_twice_or_are_empty(loading: Loading) -> None:
    """The same layer at two places, a layer without content, steps without a layer."""
    name = loading.name()
    steps = "COPY a /\nCOPY a /\nWORKDIR /\nENV of=nothing\nCOPY none/ /\nCOPY a /a2\n"
    (loading.context / "none").mkdir()
    frontend = {"build-arg:SOURCE_DATE_EPOCH": "1"}
    loading.write(steps, a=large(1))

    first = loading.load(name, frontend=frontend)
    assert first.way == "all"
    assert loading.load(name, frontend=frontend).way == "unchanged"
    assert loading.id(name) == loading.cli("--build-arg", "SOURCE_DATE_EPOCH=1")

    loading.write(f"{steps}LABEL of={uuid.uuid4()}\nCOPY a /a3\nCOPY a /a3\n")
    more = loading.load(name, frontend=frontend)
    assert more.way == "missing"
    assert more.layers is not None
    assert 1 <= more.layers <= 2
    assert loading.id(name) == loading.cli("--build-arg", "SOURCE_DATE_EPOCH=1")
    assert loading.bench.docker("image", "inspect", "-f", "{{len .RootFS.Layers}}", name).strip() in ("6", "5")


def test_another_compression(loading: Loading) -> None:
    """The same contents in other blobs: enough for one store, and no image for the other, which would not say so."""
    name = loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    loading.load(name)

    loading.write(f"{THREE}LABEL of={uuid.uuid4()}\n")
    zstd = {"compression": "zstd", "force-compression": "true", "oci-mediatypes": "true"}
    loaded = loading.load(name, attrs=zstd)

    assert (loaded.way, loaded.layers) == (("missing", 0) if loading.store == CLASSIC else ("all", 3))
    assert loading.load(name, attrs=zstd) == Loaded("unchanged")
    assert loading.layers(name) == 3
    assert loading.no_throw_away_names()


@pytest.mark.parametrize("loading", [CONTAINERD], indirect=True)
def test_an_image_that_is_not_whole(loading: Loading) -> None:
    """What somebody else loaded without its layers bears the name and is no image: it is found out and made whole."""
    name, whole, part = loading.name(), loading.bench.directory / "whole.tar", loading.bench.directory / "part.tar"
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    loading.load(name)
    zstd = {"compression": "zstd", "force-compression": "true", "oci-mediatypes": "true"}
    attrs = "".join(f",{key}={value}" for key, value in zstd.items())
    output = f"type=oci,dest={whole},name={name}{attrs}"
    command = ("build", "--builder", loading.bench.name, "--provenance=false", "-o", output, str(loading.context))
    loading.bench.buildx(*command)
    with tarfile.open(whole) as source, tarfile.open(part, "w") as target:
        for member in source:
            if member.size < LARGE:
                target.addfile(member, source.extractfile(member))
    assert "Loaded image" in loading.bench.docker("load", "-i", str(part)), "the engine calls it a success"

    assert loading.load(name, attrs=zstd).way == "all"

    assert loading.layers(name) == 3
    assert loading.load(name, attrs=zstd) == Loaded("unchanged")


def test_attestations(loading: Loading) -> None:
    """One store has them, and layers are still left out, though each build has another id; the other refuses them."""
    name = loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    frontend = {"attest:provenance": "mode=max"}
    if loading.store == CLASSIC:
        words = "docker exporter does not currently support exporting manifest lists"
        with pytest.raises(BuildxError, match=words):
            loading.load(name, frontend=frontend)
        command = ("build", "--builder", loading.bench.name, "--load", "--provenance=true", "-t", name)
        assert words in loading.bench.buildx(*command, str(loading.context), check=False)
        assert loading.id(name) == ""
        return

    assert loading.load(name, frontend=frontend).way == "all"
    before = loading.id(name)
    again = loading.load(name, frontend=frontend)

    assert (again.way, again.layers) == ("missing", 0)
    assert loading.id(name) != before
    assert loading.layers(name) == 3
    saved = loading.bench.directory / "saved.tar"
    theirs = loading.name()
    loading.bench.buildx(
        "build", "--builder", loading.bench.name, "--load", "--provenance=true", "-t", theirs, str(loading.context)
    )
    kinds = []
    for image in (name, theirs):
        loading.bench.docker("save", "-o", str(saved), image)
        kinds.append(sorted(_manifest_kinds(saved)))
    assert kinds[0] == kinds[1]


def _manifest_kinds(saved: Path) -> Iterator[str]:
    """For each document in a saved image: what its blobs are."""
    with tarfile.open(saved) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.startswith("blobs/") else None
            data = content.read() if content and member.size < SMALL else b""
            if data.startswith(b"{") and b'"schemaVersion"' in data:
                document = json.loads(data)
                parts = [*document.get("manifests", ()), *document.get("layers", ())]
                yield " ".join(part["mediaType"] for part in parts)


# What happens within one load.


class Door:
    """A way to an engine that can be closed: for the client the engine is then gone."""

    def __init__(self, path: Path, engine: str) -> None:
        self.host = f"unix://{path}"
        self._engine = engine
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for end in (self._listener, *self._ends):
            end.close()

    def _start(self, act: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=act, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, engine = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                self._ends += [client, engine]
                for source, target in ((client, engine), (engine, client)):
                    self._start(self._copy, source, target)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], list[int]]:
    """Let something happen before each request to load; the bytes that each took."""

    def arrange(happen: Callable[[int], None]) -> list[int]:
        real, sizes = images.load, list[int]()

        def load(engine: Engine, chunks: Iterable[bytes]) -> None:
            happen(len(sizes))
            sizes.append(0)

            def counted() -> Iterator[bytes]:
                for chunk in chunks:
                    yield chunk
                    sizes[-1] += len(chunk)

            real(engine, counted())

        monkeypatch.setattr(images, "load", load)
        return sizes

    return arrange


def test_the_old_image_is_removed_in_between(
    loading: Loading, during: Callable[[Callable[[int], None]], list[int]]
) -> None:
    """Layers that the engine had when it was asked, and has no more when the others come, are sent as well."""
    name, old = loading.name(), loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    loading.load(name)
    loading.write(THREE, c=large(4))
    last = 1 if loading.store == CLASSIC else 0

    def happen(request: int) -> None:
        if request == last:
            loading.bench.docker("rmi", "-f", name, old)

    sizes = during(happen)
    loaded = loading.load(name)

    assert (loaded.way, loaded.layers) == ("all", 3)
    assert loaded.bytes == sum(sizes)
    assert sizes[-1] > 3 * LARGE
    assert loading.id(name) == loading.cli()
    assert loading.layers(name) == 3
    assert loading.no_throw_away_names()


def test_the_new_image_is_removed_as_soon_as_it_is_there(loading: Loading, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that says that it loaded an image need not have it: it is loaded again, and at last it is a failure."""
    name = loading.name()
    real, removals = images.load, [1]

    def load(engine: Engine, chunks: Iterable[bytes]) -> None:
        real(engine, chunks)
        if removals[0]:
            removals[0] -= 1
            loading.bench.docker("rmi", "-f", name, check=False)

    monkeypatch.setattr(images, "load", load)
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    assert loading.load(name).way == "all"
    assert loading.id(name)

    removals[0] = 10
    loading.write(THREE, a=large(4))
    with pytest.raises(BuildxError, match=f"does not have the whole of it as {name}"):
        loading.load(name)


def test_two_loads_of_one_image_at_once(loading: Loading) -> None:
    """Both succeed, whoever is first, and the image is whole."""
    name = loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    loading.load(name)
    loading.write(THREE, b=large(4))
    results: list[object] = []

    def load() -> None:
        try:
            results.append(loading.load(name).way)
        except BuildxError as exc:
            results.append(exc)

    threads = [threading.Thread(target=load) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert len(results) == 3
    assert set(map(str, results)) <= {"unchanged", "tagged", "missing", "all"}, results
    assert loading.id(name) == loading.cli()
    assert loading.layers(name) == 3
    assert loading.no_throw_away_names()


@pytest.mark.parametrize("after", ["nothing", "a layer"])
def test_layers_cannot_be_read(loading: Loading, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Without the daemon's content store, from the start or in the middle of a layer, its own stream does it."""
    name = loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    real = ContentReader.chunks

    def chunks(reader: ContentReader, digest: str, seconds: float | None = None) -> Iterator[bytes]:
        for chunk in real(reader, digest, seconds):
            if after == "nothing":
                raise BuildkitError("unknown service", code="UNIMPLEMENTED")
            yield chunk[:LARGE]
            if len(chunk) > LARGE:
                raise BuildkitError("the content store is gone")

    monkeypatch.setattr(ContentReader, "chunks", chunks)
    loaded = loading.load(name)

    assert (loaded.way, loaded.layers) == ("pipe", None)
    assert loaded.bytes > 3 * LARGE
    assert loading.load(name) == Loaded("unchanged")
    assert loading.id(name) == loading.cli()
    assert loading.layers(name) == 3


def test_engine_goes_away_in_the_middle(loading: Loading, during: Callable[[Callable[[int], None]], list[int]]) -> None:
    """The task fails with the engine's address, the image that was there stays, and the next load does it."""
    name = loading.name()
    loading.write(THREE, a=large(1), b=large(2), c=large(3))
    loading.load(name)
    before = loading.id(name)
    loading.write(THREE, b=large(4))
    door = Door(loading.bench.directory / "door.sock", loading.host.removeprefix("unix://"))
    real = ContentReader.chunks

    def chunks(reader: ContentReader, digest: str, seconds: float | None = None) -> Iterator[bytes]:
        for chunk in real(reader, digest, seconds):
            if len(chunk) > LARGE:
                door.close()
            yield chunk

    loading.way_in = door.host
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContentReader, "chunks", chunks)
        with pytest.raises(BuildxError, match=door.host):
            loading.load(name)
    loading.way_in = ""
    assert loading.id(name) == before
    assert loading.load(name).way in ("missing", "all")
    assert loading.id(name) == loading.cli()
