# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract of observe, plan and runner: check mode predicts, one run is enough, and whatever goes wrong half way
leaves something that the next run finishes.

The engine here is a dict of containers behind docker-py's calls. It refuses what a real one refuses; that it answers
as a real one does is proven by the integration tests.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import docker
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import Instance, NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.observe import observe
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.plan import Step, Wish, plan
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.runner import VERBS, Runner
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.store import Store
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.workers import Workers
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildkitError, BuildxError

NAME, ASIDE, VOLUME = "buildx_buildkit_ci0", "buildx_previous_ci0", "buildx_buildkit_ci0_state"
DEFAULT = "moby/buildkit:buildx-stable-1"
WORKERS = Workers("v0.34.2", ["w"], ["linux/amd64"], [], {})
GIB = 1 << 30


class Crash(BaseException):
    """The process ends here: nothing is cleaned up."""


class FakeEngine:
    """docker-py's client. `changes` counts the calls that change something; the one numbered `break_at` fails."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, list[str]] = {}
        self.registry = {name: f"sha256:{number}" for number, name in enumerate([DEFAULT, "other:1", "other:2"])}
        self.images: dict[str, str] = {}
        self.mute: set[str] = set()  # images whose daemon does not answer
        self.changes: list[str] = []
        self.break_at: int | None = None
        self.break_with: BaseException = Crash()
        self._made = 0

    # What changes something.

    def _change(self, what: str) -> None:
        self.changes.append(what)
        if self.break_at is not None and len(self.changes) == self.break_at:
            raise self.break_with

    def pull(self, repository: str, tag: str, **options: bool) -> Iterator[dict[str, str]]:
        self._change("pull")
        name = f"{repository}:{tag}"
        if name not in self.registry:
            return iter([{"error": f"manifest for {name} not found"}])
        self.images[name] = self.registry[name]
        return iter([{"status": "done"}])

    def create_container_from_config(self, body: dict[str, Any], name: str) -> dict[str, str]:
        self._change("create")
        if name in self.containers:
            raise refused(409, "the name is in use")
        if body["Image"] not in self.images:
            raise refused(404, f"No such image: {body['Image']}")
        self._made += 1
        host = copy.deepcopy(body["HostConfig"])
        host["NetworkMode"] = host.get("NetworkMode") or "bridge"
        host["MemorySwap"] = host.get("MemorySwap") or 2 * host.get("Memory", 0)
        volume = host["Mounts"][0]["Source"]
        self.volumes.setdefault(volume, [])
        self.containers[name] = {
            "Id": f"c{self._made}",
            "Image": self.images[body["Image"]],
            "State": {"Status": "created", "Running": False},
            "Config": {"Image": body["Image"], "Cmd": body["Cmd"], "Env": ["PATH=/bin", *body.get("Env", [])],
                       "Entrypoint": ["buildkitd"]},
            "HostConfig": host,
            "Mounts": [{"Destination": "/var/lib/buildkit", "Name": volume}],
            "files": {},
        }  # fmt: skip
        return {"Id": f"c{self._made}"}

    def _status(self, name: str, status: str, running: bool) -> None:
        self._container(name)["State"] = {"Status": status, "Running": running, "ExitCode": 0}

    def start(self, name: str) -> None:
        self._change("start")
        one = self._container(name)
        for other in self.containers.values():
            shared = other is not one and other["Mounts"] == one["Mounts"]
            assert not (shared and other["State"]["Running"]), "two daemons would share the state"
        if one["State"]["Status"] == "dead":
            raise refused(409, "container is marked for removal and cannot be started")
        self.volumes[VOLUME].append("build cache")
        self._status(name, "running", True)

    def stop(self, name: str, timeout: int) -> None:
        self._change("stop")
        self._awake(name)
        self._status(name, "exited", False)

    def restart(self, name: str, timeout: int) -> None:
        self._change("restart")
        self._awake(name)
        self._status(name, "running", True)

    def unpause(self, name: str) -> None:
        self._change("unpause")
        if self._container(name)["State"]["Status"] != "paused":
            raise refused(409, "is not paused")
        self._status(name, "running", True)

    def _awake(self, name: str) -> None:
        if self._container(name)["State"]["Status"] == "paused":
            raise refused(409, "is paused. Unpause the container before stopping or killing")

    def rename(self, name: str, new_name: str) -> None:
        self._change("rename")
        if new_name in self.containers:
            raise refused(409, "the name is in use")
        self.containers[new_name] = self._container(name)
        del self.containers[name]

    def update_container(self, name: str, restart_policy: Any = None, **limits: Any) -> None:
        self._change("update")
        host = self._container(name)["HostConfig"]
        words = {"mem_limit": "Memory", "memswap_limit": "MemorySwap", "cpu_quota": "CpuQuota",
                 "cpu_period": "CpuPeriod", "cpu_shares": "CpuShares", "cpuset_cpus": "CpusetCpus",
                 "cpuset_mems": "CpusetMems"}  # fmt: skip
        if 0 <= limits.get("memswap_limit", host["MemorySwap"]) < limits.get("mem_limit", 0):
            raise refused(409, "Memory limit should be smaller than already set memoryswap limit")
        host.update({words[key]: value for key, value in limits.items() if value})
        if restart_policy:
            host["RestartPolicy"] = restart_policy

    def put_archive(self, name: str, path: str, data: bytes) -> None:
        self._change("put files")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    self._container(name)["files"][f"{path}/{member.name}"] = stream.read()

    def remove_container(self, name: str, v: bool, force: bool) -> None:
        self._change("remove")
        self._container(name)
        del self.containers[name]

    def remove_volume(self, name: str) -> None:
        self._change("remove volume")
        if name not in self.volumes:
            raise refused(404, "no such volume")
        if any(mount["Name"] == name for one in self.containers.values() for mount in one["Mounts"]):
            raise refused(409, "volume is in use")
        del self.volumes[name]

    # What only looks.

    def _container(self, name: str) -> dict[str, Any]:
        if name not in self.containers:
            raise refused(404, f"No such container: {name}")
        return self.containers[name]

    def ask(self, what: str, method: str, path: str, body: object) -> tuple[int, bytes]:
        """Questions of the API, as the engine's own connection asks them."""
        assert method == "GET", what
        kind, _slash, name = path.strip("/").partition("/")
        looks = {"info": self.info, "containers": self.inspect_container, "volumes": self.inspect_volume,
                 "images": self.inspect_image}  # fmt: skip
        try:
            found = looks[kind](*([unquote(name.removesuffix("/json"))] if name else []))
        except docker.errors.APIError as exc:
            return exc.status_code, json.dumps({"message": exc.explanation}).encode()
        return 200, json.dumps(found).encode()

    def info(self) -> dict[str, Any]:
        return {"CgroupDriver": "systemd"}

    def inspect_container(self, name: str) -> dict[str, Any]:
        return {key: copy.deepcopy(value) for key, value in self._container(name).items() if key != "files"}

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self.volumes:
            raise refused(404, "no such volume")
        return {"Name": name}

    def inspect_image(self, name: str) -> dict[str, Any]:
        known = {**self.images, **{identity: identity for identity in self.images.values()}}
        if name not in known:
            raise refused(404, f"No such image: {name}")
        config = {"Env": ["PATH=/bin"], "Entrypoint": ["buildkitd"]}
        return {"Id": known[name], "Config": config, "RepoDigests": [f"x@{known[name]}"]}

    def inspect_distribution(self, name: str) -> dict[str, Any]:
        return {"Descriptor": {"digest": self.registry[name]}}

    def get_archive(self, name: str, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        files = {key: value for key, value in self._container(name)["files"].items() if key.startswith(path)}
        if not files:
            raise refused(404, "Could not find the file")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for key, value in files.items():
                entry = tarfile.TarInfo(key[len("/etc/") :])
                entry.size = len(value)
                archive.addfile(entry, io.BytesIO(value))
        return iter([buffer.getvalue()]), {}

    def logs(self, name: str, **options: Any) -> bytes:
        self._container(name)
        return b"buildkitd: could not listen\n"

    def probe(self, inspect: Mapping[str, Any], seconds: float) -> Workers:
        """What the daemon of a container says of itself."""
        if inspect["State"]["Status"] != "running" or inspect["Config"]["Image"] in self.mute:
            raise BuildkitError("no answer")
        return WORKERS

    def seen(self) -> str:
        return json.dumps([self.containers, self.volumes, self.images], default=repr, sort_keys=True)


def refused(status: int, words: str) -> Exception:
    response = requests.Response()
    response.status_code = status
    error: Exception = docker.errors.APIError("refused", response=response, explanation=words)
    return error


class Bench:
    """One builder, its store and its engine."""

    def __init__(self, directory: Path) -> None:
        self.api = FakeEngine()
        self.store = Store(str(directory / "buildx"))
        self.said: list[str] = []

    def wish(self, entry: NodeEntry | None, state: str = "started", **facts: Any) -> Wish:
        stored = self.store.load("ci")
        desired = None if entry is None else Instance("ci", "docker-container", (entry,))
        looked_for = entry or (stored.nodes[0] if stored else NodeEntry("ci0", "e"))
        pull = facts.get("pull", "auto")
        return Wish(
            state=state,
            stored=stored,
            desired=desired,
            selected=self.store.current("e") == "ci",
            nodes=(observe(self.engine, looked_for, pull=pull),),
            **facts,
        )

    @property
    def engine(self) -> Engine:
        engine: Any = Engine(Target("unix:///nowhere"))
        engine._library()._api = engine._questions = self.api
        return engine  # type: ignore[no-any-return]

    def apply(self, wish: Wish, steps: list[Step], log: Any = None) -> Runner:
        runner = Runner(
            wish, {"ci0": self.engine}, self.store, probe=lambda node: self.api.probe, wait_seconds=0, key="e", log=log
        )
        runner.apply(steps)
        return runner

    def run(self, entry: NodeEntry | None, state: str = "started", **facts: Any) -> list[str]:
        """One task; what it did."""
        wish = self.wish(entry, state, **facts)
        steps = plan(wish)
        self.apply(wish, steps)
        return [step.verb for step in steps]

    @property
    def status(self) -> str | None:
        found = self.api.containers.get(NAME)
        return found["State"]["Status"] if found else None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def entry(*, config: str | None = None, **options: str) -> NodeEntry:
    words = {key.replace("_", "-"): value for key, value in options.items()}
    files = {} if config is None else {"buildkitd.toml": config.encode()}
    return NodeEntry("ci0", "e", driver_opts=words, flags=("--debug",), files=files)


PLAIN = entry()
ENTRIES = {
    "plain": PLAIN,
    "image": entry(image="other:1"),
    "memory": entry(memory="1g"),
    "more memory": entry(memory="4g"),
    "config": entry(config="debug = true\n"),
    "other config": entry(config="debug = false\n"),
    "many": entry(image="other:2", memory="2g", config="debug = true\n", cpu_shares="7"),
}


def set_aside(bench: Bench) -> None:
    """As an interrupted re-creation does."""
    bench.api._status(NAME, "exited", False)
    bench.api.rename(NAME, ASIDE)


def remove_all(bench: Bench) -> None:
    bench.api.containers.clear()
    bench.api.volumes.clear()


BEHIND_OUR_BACK: dict[str, Callable[[Bench], Any]] = {
    "nothing": lambda bench: None,
    "stopped": lambda bench: bench.api._status(NAME, "exited", False),
    "paused": lambda bench: bench.api._status(NAME, "paused", True),
    "dead": lambda bench: bench.api._status(NAME, "dead", False),
    "removed": lambda bench: bench.api.containers.clear(),
    "removed with its volume": remove_all,
    "set aside": set_aside,
    "image removed": lambda bench: bench.api.images.clear(),
    "newer image": lambda bench: bench.api.registry.update({DEFAULT: "sha256:9", "other:1": "sha256:8"}),
    "memory changed": lambda bench: bench.api.containers[NAME]["HostConfig"].update(Memory=GIB, MemorySwap=2 * GIB),
    "command changed": lambda bench: bench.api.containers[NAME]["Config"].update(Cmd=["--root=/x"]),
    "configuration changed": lambda bench: bench.api.containers[NAME]["files"].update(
        {"/etc/buildkit/buildkitd.toml": b"[by hand"}
    ),
    "forgotten": lambda bench: bench.store.remove("ci"),
}
STATES = ("started", "present", "stopped", "absent")


def test_every_verb_is_here() -> None:
    """What the tests below can come across."""
    assert set(VERBS) == {
        "register", "unregister", "use", "pull", "create", "configure", "update", "start", "unpause", "stop", "restart",
        "recreate", "restore", "discard", "remove", "remove_volume",
    }  # fmt: skip


@given(
    first=st.sampled_from(list(ENTRIES)),
    happened=st.sampled_from(list(BEHIND_OUR_BACK)),
    second=st.sampled_from(list(ENTRIES)),
    state=st.sampled_from(STATES),
    pull=st.sampled_from(["auto", "always", "missing"]),
    use=st.booleans(),
)
@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_run_is_enough_and_check_mode_predicts_it(  # noqa: PLR0917 - what hypothesis draws
    tmp_path_factory: pytest.TempPathFactory, first: str, happened: str, second: str, state: str, pull: str, use: bool
) -> None:
    bench = Bench(tmp_path_factory.mktemp("one"))
    bench.run(ENTRIES[first])
    BEHIND_OUR_BACK[happened](bench)
    before = bench.status
    wanted = None if state == "absent" else ENTRIES[second]
    facts: dict[str, Any] = {"pull": pull, "select": use and wanted is not None}

    seen = bench.api.seen()
    predicted = [step.verb for step in plan(bench.wish(wanted, state, **facts))]
    assert bench.api.seen() == seen, "looking changes nothing"
    assert bench.run(wanted, state, **facts) == predicted
    assert plan(bench.wish(wanted, state, **facts)) == []

    again = ("running", "paused")
    if state == "started":
        assert bench.status == "running"
    elif state == "absent":
        assert bench.status is None
    elif state == "stopped":
        assert bench.status in (None, "exited", "created")
    else:
        assert (bench.status in again) == (before in again)
    assert ASIDE not in bench.api.containers
    assert (VOLUME in bench.api.volumes) or state == "absent" or "volume" in happened
    assert bench.store.load("ci") == (None if wanted is None else Instance("ci", "docker-container", (wanted,)))


CHANGES = [
    ("plain", "image", "started"),
    ("plain", "image", "present"),
    ("memory", "plain", "started"),
    ("plain", "config", "started"),
    ("config", "other config", "started"),
    ("many", "more memory", "started"),
    ("plain", "many", "stopped"),
    ("many", None, "absent"),
]


@pytest.mark.parametrize(("first", "second", "state"), CHANGES)
@pytest.mark.parametrize("end", ["crash", "refusal"])
def test_whatever_breaks_half_way_the_next_run_finishes(
    tmp_path: Path, first: str, second: str | None, state: str, end: str
) -> None:
    """After each single call to the engine, by the death of the process and by a refusal."""
    wanted = ENTRIES[second] if second else None
    number, reached = 0, True
    while reached:
        number += 1
        bench = Bench(tmp_path / str(number))
        bench.run(ENTRIES[first])
        bench.api.changes.clear()
        bench.api.break_at = number
        bench.api.break_with = Crash() if end == "crash" else refused(500, "oops")
        with contextlib.suppress(Crash, BuildxError):
            bench.run(wanted, state)
        reached = len(bench.api.changes) >= number
        bench.api.break_at = None
        bench.run(wanted, state)
        assert plan(bench.wish(wanted, state)) == []
        assert ASIDE not in bench.api.containers
        if state != "absent":
            assert "build cache" in bench.api.volumes[VOLUME], "the cache survives"
    assert number > 1, "something was broken"


def test_a_daemon_that_does_not_answer_costs_nothing(bench: Bench) -> None:
    """The old container comes back, with its name, its state and its words in the store."""
    bench.run(PLAIN)
    old = bench.api.containers[NAME]["Id"]
    bench.api.mute.add("other:1")
    with pytest.raises(BuilderError, match="does not answer") as caught:
        bench.run(ENTRIES["image"])
    assert bench.api.containers[NAME]["Id"] == old
    assert bench.status == "running"
    assert ASIDE not in bench.api.containers
    assert bench.store.load("ci") == Instance("ci", "docker-container", (PLAIN,))
    assert caught.value.details["rolled_back"] is True
    assert [step["step"] for step in caught.value.details["steps"]] == ["pull"]  # type: ignore[attr-defined]
    assert caught.value.details["daemon_log"] == ["buildkitd: could not listen"]
    assert "The container that was there before is back." in str(caught.value.hint)


def test_a_stopped_node_is_not_started_by_the_way_back(bench: Bench) -> None:
    bench.run(PLAIN)
    bench.run(PLAIN, "stopped")
    bench.api.mute.add("other:1")
    with pytest.raises(BuilderError):
        bench.run(ENTRIES["image"])
    assert bench.status == "exited"


def test_a_first_boot_that_fails_is_known_to_the_store(bench: Bench) -> None:
    bench.api.mute.add(DEFAULT)
    with pytest.raises(BuilderError) as caught:
        bench.run(PLAIN)
    steps: Any = caught.value.details["steps"]
    assert [step["step"] for step in steps] == ["pull", "register", "create", "start"]
    assert caught.value.details["changed"] is True
    bench.run(None, "absent")
    assert bench.api.containers == {}
    assert bench.store.load("ci") is None


def test_an_image_that_cannot_be_had_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(BuilderError, match="can neither be pulled nor found") as caught:
        bench.run(entry(image="no/such:1"))
    assert caught.value.details["changed"] is False
    assert caught.value.details["steps"] == []
    assert bench.store.load("ci") is None
    assert bench.api.containers == {}


@pytest.mark.parametrize(("pull", "works"), [("auto", True), ("always", False), ("missing", True), ("never", True)])
def test_without_the_registry(bench: Bench, pull: str, works: bool) -> None:
    """`auto` falls back to what is there, as the CLI does."""
    bench.api.images = {DEFAULT: "sha256:0"}
    bench.api.registry.clear()
    if works:
        bench.run(PLAIN, pull=pull)
        assert bench.status == "running"
    else:
        with pytest.raises(BuilderError, match="the image of the node ci0 cannot be pulled: "):
            bench.run(PLAIN, pull=pull)


def test_a_started_builder_answers_even_when_nothing_was_done(bench: Bench) -> None:
    bench.run(PLAIN)
    wish = bench.wish(PLAIN)
    assert bench.apply(wish, plan(wish)).workers == {"ci0": WORKERS}
    bench.api.mute.add(DEFAULT)
    with pytest.raises(BuilderError, match="does not answer") as caught:
        bench.run(PLAIN)
    assert caught.value.details["changed"] is False
    assert caught.value.details["steps"] == []
    bench.run(PLAIN, "present")
    bench.run(PLAIN, "stopped")


def test_limits_are_changed_in_one_call(bench: Bench) -> None:
    """Memory above the swap limit, which the engine had made twice the old memory, is refused without it."""
    bench.run(entry(memory="1g", cpu_shares="5"))
    bench.api.changes.clear()
    assert bench.run(entry(memory="8g", cpu_shares="6")) == ["update", "register"]
    assert bench.api.changes == ["update"]
    host = bench.api.containers[NAME]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["CpuShares"]) == (8 * GIB, 16 * GIB, 6)


def test_a_paused_daemon_can_be_stopped_restarted_and_replaced(bench: Bench) -> None:
    bench.run(ENTRIES["config"])
    for wanted, state in ((ENTRIES["other config"], "started"), (ENTRIES["many"], "present"), (PLAIN, "stopped")):
        bench.api._status(NAME, "paused", True)
        bench.run(wanted, state)
        assert bench.status == ("running" if state != "stopped" else "created")
        if state == "stopped":
            bench.run(wanted)


def test_removal_is_verified(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(PLAIN)
    monkeypatch.setattr(bench.api, "remove_container", lambda name, **options: None)
    with pytest.raises(BuilderError, match=f"still has the container {NAME}"):
        bench.run(None, "absent")
    assert bench.store.load("ci") is not None


def test_a_configuration_that_does_not_boot_goes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(ENTRIES["config"])

    def probe(inspect: Mapping[str, Any], seconds: float) -> Workers:
        if b"false" in bench.api.containers[NAME]["files"]["/etc/buildkit/buildkitd.toml"]:
            raise BuildkitError("no answer")
        return WORKERS

    monkeypatch.setattr(bench.api, "probe", probe)
    with pytest.raises(BuilderError, match="does not answer") as caught:
        bench.run(ENTRIES["other config"])
    assert caught.value.details["rolled_back"] is True
    assert bench.api.containers[NAME]["files"]["/etc/buildkit/buildkitd.toml"] == b"debug = true\n"
    assert plan(bench.wish(ENTRIES["config"])) == []
    assert bench.run(ENTRIES["config"]) == []


def test_devices_survive_a_new_container(bench: Bench) -> None:
    bench.run(PLAIN)
    bench.api.containers[NAME]["HostConfig"]["DeviceRequests"] = [{"Count": -1}]
    assert bench.run(ENTRIES["image"]) == ["pull", "recreate", "register"]
    assert bench.api.containers[NAME]["HostConfig"]["DeviceRequests"] == [{"Count": -1}]


def test_the_boot_in_the_clis_words(bench: Bench) -> None:
    class Log:
        def __init__(self) -> None:
            self.lines: list[tuple[str, bool]] = []

        def status(self, text: str, *, done: bool = False) -> None:
            self.lines.append((text, done))

    log = Log()
    wish = bench.wish(PLAIN)
    bench.apply(wish, plan(wish), log)
    texts = [f"pulling image {DEFAULT}", f"creating container {NAME}", f"starting container {NAME}"]
    assert log.lines == [(text, done) for text in texts for done in (False, True)]


def test_a_second_node_is_left_alone_by_the_failure_of_the_first(bench: Bench) -> None:
    """Its steps had not begun: the result says which were done."""
    bench.run(PLAIN)
    wish = bench.wish(ENTRIES["image"])
    second = dataclasses.replace(wish.nodes[0], entry=dataclasses.replace(PLAIN, name="ci1"), found=None)
    both = dataclasses.replace(wish, nodes=(wish.nodes[0], second))
    bench.api.mute.add("other:1")
    runner = Runner(
        both,
        {"ci0": bench.engine, "ci1": bench.engine},
        bench.store,
        probe=lambda node: bench.api.probe,
        wait_seconds=0,
        key="e",
    )
    with pytest.raises(BuilderError):
        runner.apply(plan(both))
    assert set(bench.api.containers) == {NAME}
