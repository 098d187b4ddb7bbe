# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store that somebody else has damaged, locked or put things into, and how the modules leave it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Bench


def verbs(result: dict[str, Any]) -> list[str]:
    return [step["step"] for step in result["steps"]]


def info(bench: Bench) -> dict[str, dict[str, Any]]:
    result = bench.module("buildx_info")
    assert not result.get("failed"), result
    return {row["Name"]: row for row in result["builders"]}


def put(bench: Bench, name: str, content: bytes | str) -> Path:
    """A file among the instances."""
    file = bench.store / "instances" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


CORRUPT = {
    "cut off": b'{"Name":"x","Driver":"docker-contai',
    "empty": b"",
    "not text": b"\xff\xfe\x00",
    "no object": b"[]",
    "no name": b'{"Driver":"docker-container","Nodes":[]}',
    "nodes of another kind": b'{"Name":"x","Driver":"docker-container","Nodes":["x0"]}',
    "files that are not base64": b'{"Name":"x","Driver":"docker-container","Nodes":[{"Name":"x0","Files":{"a":"?"}}]}',
}


@pytest.mark.parametrize("what", CORRUPT)
def test_corrupt_entry(bench: Bench, what: str) -> None:
    """An entry that cannot be read is a row that names the file beside all others; no state of a task touches it."""
    bench.builder(state="present")
    broken = put(bench, f"{bench.name}-broken", CORRUPT[what])

    rows = info(bench)

    assert str(broken) in rows[broken.name]["Err"]
    assert rows[broken.name]["Nodes"] == []
    assert rows[bench.name]["Nodes"][0]["Status"] == "inactive"
    assert rows["default"]["Nodes"][0]["Status"] == "running"
    for state in ("started", "present", "absent"):
        result = bench.module("buildx_builder", name=broken.name, state=state)
        assert result["failed"]
        assert str(broken) in result["msg"]
        assert result["error"]["kind"] == "store"
        assert "Traceback" not in str(result)
    assert broken.read_bytes() == CORRUPT[what]
    assert bench.builder(state="present")["changed"] is False


def test_a_directory_among_the_entries(bench: Bench) -> None:
    """A directory where an entry should be is reported like a corrupt entry."""
    (bench.store / "instances" / f"{bench.name}-broken").mkdir(parents=True)

    assert f"{bench.name}-broken" in info(bench)[f"{bench.name}-broken"]["Err"]
    result = bench.module("buildx_builder", name=f"{bench.name}-broken")
    assert result["failed"]
    assert result["error"]["kind"] == "store"


def test_stray_files(bench: Bench) -> None:
    """What cannot be an entry is no builder, bricks nothing, and stays."""
    bench.builder(state="present")
    strays = [put(bench, name, "{") for name in (".tmp-x123", "1abc", "two words", "UPPER", ".hidden")]

    rows = info(bench)

    assert sorted(rows) == sorted([bench.name, "default"])
    assert verbs(bench.builder(state="present", memory="1g")) == ["register"]
    assert all(stray.read_text() == "{" for stray in strays)


@pytest.mark.parametrize("content", ['{"Key":', "[]", '"text"', "\xff"])
def test_corrupt_selection(bench: Bench, content: str) -> None:
    """Without a readable selection builders are listed and managed all the same, and `use` makes a new one."""
    bench.builder(state="present")
    current = bench.store / "current"
    current.write_bytes(content.encode("latin-1"))

    result = bench.module("buildx_info")

    assert not result.get("failed"), result
    assert {row["Name"]: row["Current"] for row in result["builders"]} == {bench.name: False, "default": False}
    assert result["current"] == ""
    assert str(current) in str(result["warnings"])
    assert bench.builder(state="present")["changed"] is False
    assert current.read_bytes() == content.encode("latin-1")
    assert verbs(bench.builder(state="present", use=True)) == ["use"]
    assert json.loads(current.read_text())["Name"] == bench.name
    assert f"{bench.name}*" in bench.buildx("ls")


def test_an_odd_activity_file(bench: Bench) -> None:
    """An activity file that was written by hand, with its newline, is read."""
    bench.builder(state="present")
    (bench.store / "activity" / bench.name).write_text("2026-01-02T03:04:05Z\n")

    assert info(bench)[bench.name]["LastActivity"] == "2026-01-02T03:04:05Z"


def test_an_entry_without_nodes(bench: Bench) -> None:
    """An entry that names no node gets the first one."""
    put(bench, bench.name, json.dumps({"Name": bench.name, "Driver": "docker-container", "Nodes": None}))

    assert info(bench)[bench.name]["Nodes"] == []
    assert verbs(bench.builder(state="present")) == ["register"]
    assert [node["Name"] for node in info(bench)[bench.name]["Nodes"]] == [f"{bench.name}0"]


def test_a_minimal_entry(bench: Bench) -> None:
    """An entry that somebody wrote by hand with the least that the CLI accepts is a builder like any other."""
    node = {"Name": f"{bench.name}0", "Endpoint": bench.environment["DOCKER_HOST"]}
    put(bench, bench.name, json.dumps({"Name": bench.name, "Driver": "docker-container", "Nodes": [node]}))

    assert bench.builder()["builder"]["Nodes"][0]["Status"] == "running"
    assert bench.inspect()["Config"]["Cmd"] in (None, [])
    assert bench.builder()["changed"] is False


@pytest.mark.parametrize("driver", ["kubernetes", "remote", "cloud"])
def test_other_drivers(bench: Bench, driver: str) -> None:
    """An entry of a driver that is not managed here is listed and refused in every state, untouched."""
    node = {"Name": f"{bench.name}0", "Endpoint": "tcp://127.0.0.1:1", "Internal": "kept"}
    entry = put(bench, bench.name, json.dumps({"Name": bench.name, "Driver": driver, "Nodes": [node]}))
    before = bench.tree()

    row = info(bench)[bench.name]

    assert row["Driver"] == driver
    if driver == "remote":  # which is built with, as the CLI made it
        assert row["Nodes"][0]["Status"] == "inactive"
    else:
        assert driver in row["Nodes"][0]["Err"]
    for state in ("started", "present", "stopped", "absent"):
        result = bench.module("buildx_builder", name=bench.name, state=state)
        assert result["failed"]
        assert driver in result["msg"]
    assert entry.read_bytes() == before[f"instances/{bench.name}"][1]


def test_an_entry_that_is_a_link(bench: Bench) -> None:
    """An entry is not written through a symbolic link, as the CLI does not."""
    bench.builder(state="present")
    target = bench.directory / "target"
    bench.entry.rename(target)
    bench.entry.symlink_to(target)
    before = target.read_bytes()

    result = bench.module("buildx_builder", name=bench.name, state="present", memory="1g")

    assert result["failed"]
    assert "symbolic link" in result["msg"]
    assert target.read_bytes() == before
    assert bench.entry.is_symlink()


@pytest.mark.parametrize("place", ["", "instances", ".lock"])
def test_a_store_that_is_none(bench: Bench, place: str) -> None:
    """Where a file or a directory of the store cannot be what it has to be, the task names it."""
    wrong = bench.store / place if place else bench.store
    wrong.parent.mkdir(exist_ok=True)
    if place == ".lock":
        wrong.mkdir()
    else:
        wrong.write_text("in the way")

    result = bench.module("buildx_builder", name=bench.name, state="present")

    assert result["failed"]
    assert str(bench.store) in result["msg"]
    assert result["error"]["kind"] == "store"
    assert "Traceback" not in str(result)


def test_a_corrupt_default_configuration(bench: Bench) -> None:
    """The user's default configuration is named when a new builder would need it and it is no TOML."""
    bench.store.mkdir()
    default = bench.store / "buildkitd.default.toml"
    default.write_text("[worker\n")

    result = bench.module("buildx_builder", name=bench.name, state="present")

    assert result["failed"]
    assert str(default) in result["msg"]
    assert not bench.entry.exists()
    default.write_text("debug = true\n")
    bench.builder(state="present")
    assert list(bench.stored()["Files"]) == ["buildkitd.toml"]


@pytest.mark.parametrize("what", ["config.json", "meta.json"])
def test_corrupt_docker_configuration(bench: Bench, what: str) -> None:
    """A configuration of docker that cannot be read is named: which engine is meant would be a guess."""
    del bench.environment["DOCKER_HOST"]
    docker = bench.store.parent
    file = docker / what if what == "config.json" else docker / "contexts/meta/abc" / what
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{")

    builder: dict[str, Any] = {"name": bench.name, "state": "present"}
    for result in (bench.module("buildx_info"), bench.module("buildx_builder", **builder)):
        assert result["failed"]
        assert str(file) in result["msg"]
        assert result["error"]["kind"] == "config"


@contextmanager
def held(file: Path) -> Iterator[Callable[[], object]]:
    """Another process has the lock; the value lets it go."""
    file.parent.mkdir(parents=True, exist_ok=True)
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process.communicate
    finally:
        if process.poll() is None:
            process.communicate()


def waits_for(bench: Bench, process: subprocess.Popen[str], lock: Path) -> None:
    """Wait until a module has opened a lock, and see that it goes no further."""

    def opened() -> bool:
        assert process.poll() is None, process.communicate()
        links = f"/proc/{process.pid}/fd"
        try:
            return str(lock) in [os.readlink(f"{links}/{number}") for number in os.listdir(links)]
        except FileNotFoundError:
            return False

    bench.wait(f"the module waits for {lock}", opened)


def test_the_lock_of_the_store(bench: Bench) -> None:
    """While the CLI holds its lock, writing waits and reading does not; then the run goes on as if nothing had been."""
    lock = bench.store / ".lock"
    with held(lock) as release:
        process = bench.begin("buildx_builder", name=bench.name, state="present", use=True)
        waits_for(bench, process, lock)
        assert not bench.entry.exists()
        assert "default" in info(bench)
        assert verbs(bench.builder(state="present", check=True)) == ["register"]
        release()
    result = bench.finish(process)

    assert not result.get("failed"), result
    assert verbs(result) == ["register", "use"]
    assert bench.entry.exists()


def test_the_lock_of_a_reconcile(bench: Bench) -> None:
    """While another run changes the same builder, a run waits; check mode, facts and other builders do not."""
    bench.builder(state="present")
    lock = bench.store / ".reconcile" / f"{bench.name}.lock"
    with held(lock) as release:
        process = bench.begin("buildx_builder", name=bench.name, state="present", memory="1g")
        waits_for(bench, process, lock)
        assert bench.stored()["DriverOpts"] is None
        assert bench.row()["Name"] == bench.name
        assert bench.builder(state="present", check=True)["changed"] is False
        assert verbs(bench.builder(name=f"{bench.name}-other", state="present")) == ["register"]
        assert f"{bench.name}-other" in bench.buildx("ls")
        release()
    assert verbs(bench.finish(process)) == ["register"]
    assert bench.stored()["DriverOpts"] == {"memory": "1g"}


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_modes(bench: Bench, mask: int) -> None:
    """What is written is the user's alone, whatever the umask, and nothing temporary stays."""
    before = os.umask(mask)
    try:
        bench.builder(state="present", use=True)
        bench.builder(state="present", env={"A": "b"})
    finally:
        os.umask(before)

    modes = {path: mode for path, (mode, _content) in bench.tree().items()}
    assert {path: mode for path, mode in modes.items() if mode.startswith("0o4") and mode != "0o40700"} == {}
    assert {path: mode for path, mode in modes.items() if mode.startswith("0o1") and mode != "0o100600"} == {}
    assert oct(bench.store.stat().st_mode) == "0o40700"
    assert {path for path in modes if not path.startswith(".reconcile")} == {
        *(".lock", "current", "activity", "instances"),
        *(f"activity/{bench.name}", f"instances/{bench.name}"),
    }
