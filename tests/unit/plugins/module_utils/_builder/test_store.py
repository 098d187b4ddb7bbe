# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store on disk: the layout, the modes, the lock and the resolution rules of the CLI (buildx.md §1)."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry, encode
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.store import Store
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import StoreError

CI = Instance("ci", "docker-container", (NodeEntry("ci0", "unix:///var/run/docker.sock"),))
KEY = "unix:///var/run/docker.sock"
KEY_FILE = "13c4025c96f36e94b348"  # as the CLI names it [V]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0o022)
    yield tmp_path / "home" / ".docker" / "buildx"
    os.umask(before)


@pytest.fixture
def store(directory: Path) -> Store:
    return Store(str(directory))


def put(store: Store, path: str, text: str) -> Path:
    """A file as the CLI, or somebody, left it."""
    file = Path(store.directory) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# What is written.


def test_an_entry_comes_back(store: Store) -> None:
    with store.locked():
        store.save(CI)
    assert store.load("ci") == CI
    assert store.load("CI") == CI
    assert store.names() == ["ci"]
    assert (Path(store.directory) / "instances" / "ci").read_text() == encode(CI)


def test_the_file_is_lower_case_and_the_name_is_kept(store: Store) -> None:
    mixed = Instance("RSX-Case", "docker-container", ())
    store.save(mixed)
    assert store.names() == ["rsx-case"]
    assert store.load("rsx-case") == mixed
    assert set(tree(Path(store.directory))) == {"instances/rsx-case", "activity/RSX-Case"}


def test_modes(store: Store, directory: Path) -> None:
    """Of every directory that had to be made as well: keys and passwords lie below."""
    with store.reconciling("ci", 5), store.locked():
        store.save(CI)
        store.select(KEY, "ci")
        store.record_build("ci", "ci0", "ref", "/src", "/src/Dockerfile")
        store.client_id()
    for path in [directory.parent.parent, directory.parent, directory, *directory.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o644 if path.name == "ref" else 0o600
        assert mode(path) == expected, path


def test_a_directory_that_is_there_keeps_its_mode(store: Store, directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o750)
    with store.locked():
        store.save(CI)
    assert mode(directory) == 0o750


def test_nothing_is_left_over(store: Store, directory: Path) -> None:
    """A stray file among the entries makes every command of the CLI fail."""
    for _time in range(3):
        store.save(CI)
    assert set(tree(directory)) == {"instances/ci", "activity/ci"}


def test_a_file_is_replaced_and_not_written_into(store: Store) -> None:
    store.save(CI)
    path = Path(store.directory) / "instances" / "ci"
    inode = path.stat().st_ino
    with path.open() as reader:
        store.save(Instance("ci", "docker-container", ()))
        assert reader.read() == encode(CI)
    assert path.stat().st_ino != inode


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(
    store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(CI)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.save(Instance("ci", "other", ()))
    assert tree(directory)["instances/ci"] == encode(CI)
    assert set(tree(directory)) == {"instances/ci", "activity/ci"}


def test_a_writer_that_is_interrupted_leaves_nothing_else(
    store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save(CI)
    assert tree(directory) == {}


def test_a_symbolic_link_is_not_written_through(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    link = Path(store.directory) / "instances" / "ci"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"):
        store.save(CI)
    assert not target.exists()


@pytest.mark.parametrize("blocked", ["instances", "activity"])
def test_a_file_where_a_directory_should_be(store: Store, blocked: str) -> None:
    put(store, blocked, "")
    with pytest.raises(StoreError, match="cannot be"):
        store.save(CI)


def test_activity_is_a_time_without_an_end_of_line(store: Store) -> None:
    """A newline there makes the CLI fail for every command that lists the builder."""
    store.touch("RSX-Case")
    text = (Path(store.directory) / "activity" / "RSX-Case").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    assert store.last_activity("RSX-Case") == text


def test_activity_that_is_not_known(store: Store) -> None:
    assert store.last_activity("ci") is None
    put(store, "activity/ci", "")
    assert store.last_activity("ci") is None
    put(store, "activity/ci", "2026-11-23T02:38:19Z\n")
    assert store.last_activity("ci") == "2026-11-23T02:38:19Z"


def test_the_record_of_a_build(store: Store) -> None:
    store.record_build("ci", "ci0", "w6tw80ppmbqfz2m3q3nvhgl4o", "/srv/<app>", "/srv/<app>/Dockerfile")
    path = Path(store.directory) / "refs" / "ci" / "ci0" / "w6tw80ppmbqfz2m3q3nvhgl4o"
    assert path.read_text() == (
        r'{"Target":"default","LocalPath":"/srv/\u003capp\u003e","DockerfilePath":"/srv/\u003capp\u003e/Dockerfile"}'
    )


def test_a_directory_whose_name_is_no_text_can_be_recorded(store: Store) -> None:
    name = os.fsdecode(b"/srv/\xff\xfe")
    store.record_build("ci", "ci0", "ref", name, f"{name}/Dockerfile")
    text = (Path(store.directory) / "refs" / "ci" / "ci0" / "ref").read_text()
    assert r'"LocalPath":"/srv/\ufffd\ufffd"' in text


def test_the_identity_of_the_client_is_made_once(store: Store) -> None:
    identity = store.client_id()
    assert re.fullmatch(r"[0-9a-f]{16}", identity)
    assert store.client_id() == identity
    assert (Path(store.directory) / ".buildNodeID").read_text() == identity


def test_removing_forgets_everything_of_a_builder(store: Store, directory: Path) -> None:
    mixed = Instance("CI", "docker-container", ())
    for instance in (mixed, Instance("other", "docker-container", ())):
        store.save(instance)
        for name in sorted({instance.name, instance.name.lower()}):
            store.record_build(name, "n0", "ref", "/a", "/a/Dockerfile")
    (directory / "refs" / "ci" / "link").symlink_to(directory / "instances")
    store.remove("CI")
    assert set(tree(directory)) == {"instances/other", "activity/other", "refs/other/n0/ref"}
    assert {path.name for path in (directory / "refs").iterdir()} == {"other"}
    store.remove("CI")


def test_what_cannot_be_removed_is_named(store: Store) -> None:
    (Path(store.directory) / "instances" / "ci").mkdir(parents=True)
    with pytest.raises(StoreError, match="instances/ci cannot be removed"):
        store.remove("ci")
    put(store, "refs/dev", "")
    with pytest.raises(StoreError, match="refs/dev cannot be removed"):
        store.remove("dev")


# What is read.


def test_a_store_that_is_not_there_is_empty_and_stays_away(store: Store, directory: Path) -> None:
    assert store.names() == []
    assert store.load("ci") is None
    assert store.current(KEY) is None
    assert store.last_activity("ci") is None
    assert not directory.exists()


def test_what_can_be_no_builder_is_left_out(store: Store) -> None:
    store.save(CI)
    for name in (".tmp-ci123", "0ci", "-x", "a b", "Upper", "ü", "b~", "b\n"):
        put(store, f"instances/{name}", "junk")
    assert store.names() == ["ci"]


@pytest.mark.parametrize("text", ["", "{", '{"Name":3}'])
def test_a_corrupt_entry_is_named(store: Store, text: str) -> None:
    path = put(store, "instances/ci", text)
    with pytest.raises(StoreError, match=str(path)):
        store.load("ci")


def test_an_entry_that_cannot_be_read_is_named(store: Store) -> None:
    path = put(store, "instances/ci", "")
    path.write_bytes(b"\xff")
    with pytest.raises(StoreError, match=r"instances/ci cannot be read"):
        store.load("ci")
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"instances/ci cannot be read"):
        store.load("ci")


def selection(key: str, name: str, everywhere: bool = False) -> str:
    return f'{{"Key":"{key}","Name":"{name}","Global":{"true" if everywhere else "false"}}}'


@pytest.mark.parametrize(
    ("current", "default", "found"),
    [
        (None, None, None),
        # 1. selected for every endpoint
        (selection("other", "ci", True), "dev", "ci"),
        (selection("other", "ci", True), None, "ci"),
        (selection("other", "gone", True), "dev", "dev"),
        (selection("other", "gone", True), None, None),
        # 2. selected for this endpoint
        (selection(KEY, "ci"), "dev", "ci"),
        (selection(KEY, "CI"), None, "CI"),
        (selection(KEY, "gone"), "dev", None),
        (selection(KEY, "gone", True), "dev", None),
        (selection(KEY, ""), "dev", "dev"),
        # 3. and 4. the default of this endpoint
        (selection("other", "ci"), None, None),
        (selection("other", "ci"), "dev", "dev"),
        (None, "dev", "dev"),
        (None, "gone", None),
        (None, "", None),
        ("", "dev", "dev"),
        ("{}", "dev", "dev"),
        ('{"Key":null,"Name":null,"Global":null}', "dev", "dev"),
        # A name that would lead out of the store.
        (selection(KEY, "../instances/ci"), None, None),
        (None, "../activity/ci", None),
    ],
)
def test_the_selected_builder(store: Store, current: str | None, default: str | None, found: str | None) -> None:
    """The table of buildx.md §1.6; unlike the CLI, looking writes nothing."""
    for name in ("ci", "dev"):
        store.save(Instance(name, "docker-container", ()))
    if current is not None:
        put(store, "current", current)
    if default is not None:
        put(store, f"defaults/{KEY_FILE}", default)
    before = tree(Path(store.directory))
    assert store.current(KEY) == found
    assert tree(Path(store.directory)) == before


def test_selecting_as_use_does(store: Store, directory: Path) -> None:
    """Without options it takes the default of the endpoint away."""
    store.save(CI)
    put(store, f"defaults/{KEY_FILE}", "dev")
    put(store, "defaults/another", "dev")
    store.select(KEY, "ci")
    assert tree(directory)["current"] == selection(KEY, "ci")
    assert [path for path in tree(directory) if path.startswith("defaults/")] == ["defaults/another"]
    assert store.current(KEY) == "ci"
    assert store.current("tcp://other:2375") is None


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", "[" * 100_000])
def test_a_corrupt_selection_is_named(store: Store, text: str) -> None:
    put(store, "current", text)
    with pytest.raises(StoreError, match=r"buildx/current is corrupt"):
        store.current(KEY)


# The lock.

_HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_RDONLY, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_elsewhere(path: Path) -> Iterator[Any]:
    """Another process that holds flock(2) on a file, as the CLI does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        if process.stdin is not None:
            process.stdin.close()


def test_the_lock_of_another_process_is_respected_and_waited_for(store: Store) -> None:
    with held_elsewhere(Path(store.directory) / ".lock") as holder:
        began = time.monotonic()
        words = r"the store is locked by another process for more than 0\.2 s"
        with pytest.raises(StoreError, match=words), store.locked(0.2):
            pytest.fail("two hold the lock")
        assert 0.2 <= time.monotonic() - began < 5
        with pytest.raises(StoreError, match="locked by another process"), store.locked(0):
            pytest.fail("two hold the lock")
        threading.Timer(0.2, holder.stdin.close).start()
        with store.locked(20):
            pass


def test_a_process_that_dies_gives_the_lock_back(store: Store) -> None:
    with held_elsewhere(Path(store.directory) / ".lock") as holder:
        holder.kill()
        with store.locked(20):
            pass


@pytest.mark.parametrize("end", [None, RuntimeError])
def test_the_lock_is_given_back(store: Store, end: type[Exception] | None) -> None:
    with contextlib.suppress(RuntimeError), store.locked():
        if end is not None:
            raise end
    with store.locked(0):
        pass


def test_two_of_this_process_exclude_each_other_too(store: Store) -> None:
    with store.locked(), pytest.raises(StoreError, match="locked"), Store(store.directory).locked(0):
        pytest.fail("two hold the lock")


def test_a_node_has_a_lock_of_its_own(store: Store, directory: Path) -> None:
    """It is kept through pulls and boots, which the CLI must not have to wait for."""
    with store.reconciling("ci", 5):
        with store.locked(0), store.reconciling("other", 0):
            pass
        with pytest.raises(StoreError, match="the builder ci is locked"), store.reconciling("ci", 0):
            pytest.fail("two reconcile the same node")
    assert store.names() == []
    assert set(tree(directory)) == {".lock", ".reconcile/ci.lock", ".reconcile/other.lock"}


def test_writers_at_the_same_time_leave_whole_files(store: Store) -> None:
    instances = [Instance("ci", f"driver{number}" * 500, ()) for number in range(4)]

    def write(instance: Instance) -> None:
        for _time in range(5):
            with store.locked():
                store.save(instance)

    threads = [threading.Thread(target=write, args=(instance,)) for instance in instances]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(store.load("ci"))
    for thread in threads:
        thread.join()
    assert all(found is None or found in instances for found in seen)
    assert store.load("ci") in instances
