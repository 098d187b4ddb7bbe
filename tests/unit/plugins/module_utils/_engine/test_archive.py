# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees in and out of a container; Python's own tarfile is the other side."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import archive
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)


def is_tree(files: dict[str, bytes]) -> bool:
    """No file is also a directory, and every name fits the format."""
    directories = {path[:end] for path in files for end, char in enumerate(path) if char == "/"}
    return not directories & set(files) and all(len(path.encode()) < 100 for path in files)


def members(content: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as found:
        return found.getmembers()


def unpack(content: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as found:
        for member in found:
            stream = found.extractfile(member)
            if stream is not None:
                files[member.name] = stream.read()
    return files


@given(st.dictionaries(PATHS, st.binary(max_size=60), max_size=6).filter(is_tree))
@settings(deadline=None, max_examples=60)
def test_what_goes_in_comes_out(files: dict[str, bytes]) -> None:
    content = archive.pack(files)
    assert unpack(content) == files
    assert archive.pack(dict(reversed(files.items()))) == content


def test_directories_come_first_and_each_part_is_sorted() -> None:
    content = archive.pack({"buildkit/certs/r/ca.pem": b"c", "buildkit/buildkitd.toml": b"t", "a": b""})
    assert [member.name for member in members(content)] == [
        "buildkit",
        "buildkit/certs",
        "buildkit/certs/r",
        "a",
        "buildkit/buildkitd.toml",
        "buildkit/certs/r/ca.pem",
    ]


def test_owner_modes_and_times_are_fixed() -> None:
    """Private keys as well: the CLI writes them so, and the daemon is root (buildx.md §3.5)."""
    for member in members(archive.pack({"d/key.pem": b"secret"})):
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
        assert member.mode == (0o755 if member.isdir() else 0o644)


def test_nothing_is_an_empty_archive() -> None:
    assert members(archive.pack({})) == []


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a/.", "a\\b", "a\0b", "..", ".", "/"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(EngineError, match="invalid config file path"):
        archive.pack({"fine": b"", path: b""})


def test_a_file_cannot_be_a_directory_too() -> None:
    with pytest.raises(EngineError, match="'a/b' conflicts with directory"):
        archive.pack({"a/b": b"", "a/b/c": b""})


def test_a_name_that_the_format_cannot_hold_is_refused() -> None:
    assert unpack(archive.pack({"d" * 90 + "/" + "f" * 90: b"x"})) == {"d" * 90 + "/" + "f" * 90: b"x"}
    with pytest.raises(EngineError, match="too long"):
        archive.pack({"f" * 101: b""})


class Api:
    """docker-py's archive calls, on an archive that somebody else wrote."""

    api_version = "1.43"

    def __init__(self, content: bytes, step: int = 700) -> None:
        self.content, self.step = content, step
        self.put: list[tuple[str, str, bytes]] = []

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        del container, path
        return (self.content[at : at + self.step] for at in range(0, len(self.content), self.step)), {}

    def put_archive(self, container: str, path: str, data: bytes) -> None:
        self.put.append((container, path, data))


def engine(api: Api) -> Engine:
    made = Engine(Target("unix:///nowhere"))
    made._library()._api = api
    return made


def as_the_engine_packs(kinds: dict[str, Any]) -> bytes:
    """A tree with its top directory's name in front, links and directories among it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, content in kinds.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            made.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def test_a_tree_is_read_back() -> None:
    long = "certs/" + "x" * 150 + ".pem"
    content = as_the_engine_packs(
        {
            "buildkit/": None,
            "buildkit/buildkitd.toml": b"debug = true\n",
            "buildkit/certs/": None,
            f"buildkit/{long}": b"c" * 2000,
            "buildkit/link": "/etc/passwd",
            "buildkit/empty": b"",
        }
    )
    files = archive.read_tree(engine(Api(content)), "c", "/etc/buildkit")
    assert files == {"buildkitd.toml": b"debug = true\n", long: b"c" * 2000, "empty": b""}


def test_a_tree_is_not_read_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST", 4096)
    content = as_the_engine_packs({"buildkit/big": bytes(10_000)})
    with pytest.raises(EngineError, match="larger than"):
        archive.read_tree(engine(Api(content)), "c", "/etc/buildkit")


def test_files_are_put_below_the_parent() -> None:
    api = Api(b"")
    archive.write_tree(engine(api), "c", "/etc", {"buildkit/buildkitd.toml": b"x"})
    [(container, parent, data)] = api.put
    assert (container, parent, unpack(data)) == ("c", "/etc", {"buildkit/buildkitd.toml": b"x"})
