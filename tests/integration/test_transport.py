# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways to a daemon: its own socket, an exec through the engine, the engine's own; over unix, TCP and TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""In a pid namespace of its own a module cannot prove whose the engine's pids are, and takes an exec."""


class Proxy:
    """A port of this machine that leads to the lab's engine.

    tls: speak it. answer: takes the head of a request, and gives the whole answer to it, None: the engine's; b"": the
    connection is cut. cut: breaks all connections.
    """

    def __init__(
        self,
        engine: str,
        *,
        tls: ssl.SSLContext | None = None,
        answer: Callable[[bytes], bytes | None] = lambda head: None,
    ) -> None:
        self._engine = engine.removeprefix("unix://")
        self._answer = answer
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls))
        self.host = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        self._run(self._abort())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, task: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(20)

    async def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0.1)  # the loop tells the other ends

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_unix_connection(self._engine)
        self._open |= {writer, back}
        copies = [
            asyncio.ensure_future(self._requests(reader, back, writer)),
            asyncio.ensure_future(_copy(there, writer)),
        ]
        await asyncio.wait(copies)
        for end in (writer, back):
            end.transport.abort()
            self._open.discard(end)

    async def _requests(self, reader: asyncio.StreamReader, engine: Any, client: Any) -> None:
        try:
            while data := await reader.read(1 << 16):
                head = data
                answer = self._answer(head) if head.startswith((b"POST ", b"GET ")) else None
                if answer is None:
                    engine.write(data)
                    await engine.drain()
                    continue
                while answer and b"chunked" in head and not data.endswith(b"0\r\n\r\n"):
                    data = await reader.read(1 << 16)
                client.write(answer)
                client.close()
                return
        except OSError:
            pass
        finally:
            if engine.can_write_eof():
                engine.write_eof()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        pass


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    """Make a Proxy, which ends with the test."""
    made: list[Proxy] = []

    def make(bench: Bench, **options: Any) -> Proxy:
        made.append(Proxy(bench.environment["DOCKER_HOST"], **options))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture
def alias(bench: Bench, ready: Bench) -> Callable[[str], None]:
    """Make this test's builder another name of the shared container, at another endpoint of the same engine."""

    def make(endpoint: str) -> None:
        node, real = f"{ready.name}0", bench.environment["DOCKER_HOST"]
        bench.buildx("create", "--name", bench.name, "--node", node, "--driver", "docker-container", real)
        entry = bench.store / "instances" / bench.name
        text = entry.read_text()
        assert text.count(real) == 1
        entry.write_text(text.replace(real, endpoint))

    return make


class Execs:
    """Counts the tunnels that were opened into a container, by the engine's own events."""

    def __init__(self, bench: Bench, container: str) -> None:
        self._bench, self._container = bench, container
        self._since = f"{time.time():.9f}"

    def count(self) -> int:
        until = f"{time.time():.9f}"
        wanted = ("--filter", f"container={self._container}", "--filter", "event=exec_create")
        events = self._bench.docker("events", "--since", self._since, "--until", until, *wanted)
        return events.count("buildctl dial-stdio")


def test_ways_have_one_result(ready: Bench, context: Callable[..., Path]) -> None:
    """The daemon's own socket needs no exec; in another pid namespace execs are taken; the results are the same."""
    word = uuid.uuid4().hex
    path, name = context(f"{BASE}COPY word /\nRUN cat /word\n", word=word), ready.image()
    execs = Execs(ready, ready.container)

    direct = ready.build(path, name=name)
    assert execs.count() == 0
    ready.prefix = OWN_PIDS
    tunnelled = ready.build(path, name=name)
    assert execs.count() == 2  # one for grpcio, one for the session

    assert direct["changed"]
    assert not tunnelled["changed"]
    assert direct["image"]["Id"] == tunnelled["image"]["Id"]
    (path / "word").write_text(word[::-1])
    assert ready.build(path, name=name)["executed"] == ["[2/3] COPY word /", "[3/3] RUN cat /word"]
    failed = ready.failed_build(context(f"{BASE}RUN exit 5\n"))
    assert failed["exit_code"] == 5
    assert "   3 | >>> RUN exit 5" in failed["excerpt"]


@pytest.mark.parametrize(
    "less",
    [("unshare", "--user", "--map-root-user"), ("setpriv", "--bounding-set=-sys_ptrace")],
    ids=["in a user namespace", "without the capability"],
)
def test_less_than_root(ready: Bench, context: Callable[..., Path], less: tuple[str, ...]) -> None:
    """A process that may not look into the container's takes the exec."""
    ready.prefix = less
    execs = Execs(ready, ready.container)

    result = ready.build(context(f"{BASE}RUN : {uuid.uuid4()}\n"), name=ready.image())

    assert result["changed"]
    assert execs.count() >= 2


@pytest.mark.parametrize("way", ["direct", "exec"])
def test_proxy_that_forbids_execs(
    bench: Bench,
    context: Callable[..., Path],
    way: str,
    proxy: Callable[..., Proxy],
    alias: Callable[[str], None],
) -> None:
    """A proxy may allow less than the engine does: the direct way does not need it, the other says what is missing."""
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\nsays the proxy\r\n"
    through = proxy(bench, answer=lambda head: refusal if b"/exec" in head.split(b"\r\n")[0] else None)
    alias(through.host)
    bench.prefix = OWN_PIDS if way == "exec" else ()

    result = bench.module(
        "buildx_build", builder=bench.name, path=str(context(BASE)), name=bench.image(), docker_host=through.host
    )

    if way == "direct":
        assert result.get("changed"), result
    else:
        assert result["failed"]
        assert "says the proxy" in result["msg"]
        assert "Traceback" not in result["msg"]


SSH = """#!/bin/sh
# Stands for a host that ssh leads to: what would run there, runs here.
while :; do case "$1" in -o|-l|-p) shift 2;; --) shift;; -*) shift;; *) break;; esac; done
echo "$1" >> {log}
shift
DOCKER_HOST={engine} exec sh -c "$*"
"""


@pytest.mark.parametrize("way", ["direct", "exec", "engine"])
def test_engine_by_ssh(bench: Bench, context: Callable[..., Path], way: str, alias: Callable[[str], None]) -> None:
    """An engine behind ssh serves each way, and the load. No sshd: what is between is the program's own affair."""
    programs, log = bench.directory / "programs", bench.directory / "hosts"
    programs.mkdir()
    (programs / "ssh").write_text(SSH.format(log=log, engine=bench.environment["DOCKER_HOST"]))
    (programs / "ssh").chmod(0o755)
    host = "ssh://far.lab"
    alias(host)
    bench.environment["PATH"] = f"{programs}:{bench.environment['PATH']}"
    bench.environment["DOCKER_HOST"] = "unix:///no/such.sock"
    bench.prefix = OWN_PIDS if way == "exec" else ()
    word, name = uuid.uuid4().hex, bench.image()
    path = context(f"{BASE}RUN echo {word} > /said\nCMD cat /said\n")
    builder = "default" if way == "engine" else bench.name

    results = [bench.build(path, builder=builder, name=name, docker_host=host) for _run in range(2)]

    assert [result["changed"] for result in results] == [True, False]
    bench.environment["DOCKER_HOST"] = host
    assert bench.docker("run", "--rm", name) == f"{word}\n"
    assert set(log.read_text().split()) == {"far.lab"}


def test_ssh_that_fails(bench: Bench, context: Callable[..., Path]) -> None:
    """What ssh says is what is wrong."""
    programs = bench.directory / "programs"
    programs.mkdir()
    (programs / "ssh").write_text("#!/bin/sh\necho 'me@far.lab: Permission denied (publickey).' >&2; exit 255\n")
    (programs / "ssh").chmod(0o755)
    bench.environment["PATH"] = f"{programs}:{bench.environment['PATH']}"

    result = bench.failed_build(context(BASE), builder="default", name=bench.image(), docker_host="ssh://me@far.lab")

    assert result["error"]["kind"] == "engine_unreachable"
    assert "ssh://me@far.lab: me@far.lab: Permission denied (publickey)." in result["msg"]


DECOY = """
import os, socket, subprocess, sys
pid, root, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
with open("/proc/sys/kernel/ns_last_pid", "w") as stream:
    stream.write(str(pid - 1))
ready, tell = os.pipe()
child = os.fork()
if not child:
    os.chroot(root)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/run/buildkit/buildkitd.sock")
    listener.listen()
    os.write(tell, b"x")
    while True:
        listener.accept()
        open("/touched", "w").close()
os.read(ready, 1)
with open(os.path.join(root, "pid"), "w") as stream:
    stream.write(str(child))
sys.exit(subprocess.run(command).returncode)
"""


def test_pid_of_another_process(ready: Bench, context: Callable[..., Path], tmp_path: Path) -> None:
    """A process that has the container's pid here, and even a socket where the daemon's would be, is left alone."""
    root = tmp_path / "r"
    (root / "run/buildkit").mkdir(parents=True)
    pid = ready.inspect()["State"]["Pid"]
    decoy = tmp_path / "decoy.py"
    decoy.write_text(DECOY)
    ready.prefix = (*OWN_PIDS, sys.executable, str(decoy), str(pid), str(root))
    execs = Execs(ready, ready.container)

    ready.build(context(f"{BASE}RUN : {uuid.uuid4()}\n"))

    assert (root / "pid").read_text() == str(pid), "the test did not get the pid that it needs"
    assert execs.count() == 2
    assert not (root / "touched").exists()


def test_daemon_at_another_address(bench: Bench, context: Callable[..., Path]) -> None:
    """A daemon that listens elsewhere is reached by the exec, which knows its environment."""
    address = "unix:///run/other.sock"
    bench.builder(buildkitd_flags=f"--addr {address}", env={"BUILDKIT_HOST": address})
    execs = Execs(bench, bench.container)
    name = bench.image()

    result = bench.build(context(f"{BASE}RUN echo {uuid.uuid4()} > /said\n"), name=name)

    assert result["changed"]
    assert execs.count() == 2
    assert bench.row()["Nodes"][0]["Status"] == "running"


@pytest.mark.parametrize("way", ["direct", "exec", "engine"])
def test_engine_by_tcp(
    bench: Bench,
    context: Callable[..., Path],
    way: str,
    proxy: Callable[..., Proxy],
    alias: Callable[[str], None],
) -> None:
    """An engine at a TCP address serves each way, and the load."""
    through = proxy(bench)
    alias(through.host)
    bench.environment["DOCKER_HOST"] = "unix:///no/such.sock"
    bench.prefix = OWN_PIDS if way == "exec" else ()
    word = uuid.uuid4().hex
    path, name = context(f"{BASE}RUN echo {word} > /said\nCMD cat /said\n"), bench.image()
    builder = "default" if way == "engine" else bench.name

    results = [bench.build(path, builder=builder, name=name, docker_host=through.host) for _run in range(2)]

    bench.environment["DOCKER_HOST"] = through.host
    assert [result["changed"] for result in results] == [True, False]
    assert bench.docker("run", "--rm", name) == f"{word}\n"
    assert through.connections > 2


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away authority, with a certificate for 127.0.0.1 and one for a client."""
    path = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=path, check=True, capture_output=True, timeout=60)

    for ca in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{ca}-key.pem", "-out", f"{ca}.pem",
                "-subj", f"/CN={ca}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    for name in ("server", "client"):
        (path / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\nkeyUsage=digitalSignature\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-out", f"{name}.pem",
                "-days", "2", "-extfile", f"{name}.ext", "-CAcreateserial")  # fmt: skip
    return path


@pytest.fixture
def encrypted(bench: Bench, proxy: Callable[..., Proxy], certificates: Path) -> tuple[Proxy, dict[str, Any]]:
    """An engine that wants a client's certificate, as dockerd does with --tlsverify, and the options that fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    made = proxy(bench, tls=context)
    return made, {
        "docker_host": made.host,
        "validate_certs": True,
        "ca_path": str(certificates / "ca.pem"),
        "client_cert": str(certificates / "client.pem"),
        "client_key": str(certificates / "client-key.pem"),
    }


@pytest.mark.parametrize("way", ["direct", "exec", "engine"])
def test_engine_by_tls(
    bench: Bench,
    context: Callable[..., Path],
    way: str,
    alias: Callable[[str], None],
    encrypted: tuple[Proxy, dict[str, Any]],
) -> None:
    """An engine behind TLS serves each way, an image of megabytes in both directions included."""
    through, options = encrypted
    alias(through.host)
    engine = bench.environment.pop("DOCKER_HOST")
    # requests would prefer it to the authority that the task names.
    bench.environment["REQUESTS_CA_BUNDLE"] = str(Path(options["ca_path"]).with_name("other.pem"))
    bench.prefix = OWN_PIDS if way == "exec" else ()
    path, name = context(f"{BASE}COPY noise /\nRUN wc -c < /noise > /said\nCMD cat /said\n"), bench.image()
    (path / "noise").write_bytes(uuid.uuid4().bytes * (1 << 20))

    result = bench.build(path, builder="default" if way == "engine" else bench.name, name=name, **options)

    assert result["changed"]
    bench.environment["DOCKER_HOST"] = engine
    assert bench.docker("run", "--rm", name) == f"{16 << 20}\n"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("another authority", "certificate verify failed"), ("no certificate", "")],
)
def test_tls_that_does_not_fit(
    bench: Bench, context: Callable[..., Path], wrong: str, words: str, encrypted: tuple[Proxy, dict[str, Any]]
) -> None:
    """An engine whose certificate is not signed by the authority, or that refuses ours, is not talked to."""
    through, options = encrypted
    if wrong == "another authority":
        options["ca_path"] = str(Path(options["ca_path"]).with_name("other.pem"))
    else:
        del options["client_cert"], options["client_key"]

    asked = bench.failed_build(context(BASE), builder="default", name=bench.image(), **options)
    upgraded = bench.failed_build(context(BASE), builder="default", **options)

    assert asked["error"]["kind"] == "engine_unreachable"
    assert through.host in asked["msg"]
    assert upgraded["error"]["kind"].startswith("engine")
    for result in (asked, upgraded):
        assert words in result["msg"]


def test_tls_without_its_files(ready: Bench, context: Callable[..., Path]) -> None:
    """A file for TLS that is not there is named."""
    result = ready.failed_build(
        context(BASE),
        builder="default",
        docker_host="tcp://127.0.0.1:1",
        validate_certs=True,
        ca_path="/no/such/ca.pem",
    )

    assert result["error"]["kind"] == "config"
    assert "/no/such/ca.pem" in result["msg"]


def test_tunnel_is_cut(
    bench: Bench, context: Callable[..., Path], proxy: Callable[..., Proxy], alias: Callable[[str], None]
) -> None:
    """A build whose connection to the engine is cut fails within seconds, leaves nothing, and the next one works."""
    through = proxy(bench)
    alias(through.host)
    bench.prefix = OWN_PIDS
    temporary = bench.directory / "tmp"
    temporary.mkdir()
    bench.environment["TMPDIR"] = str(temporary)
    mark = f"600.{uuid.uuid4().int % 10**9}"
    path, name = context(f"{BASE}RUN echo begun; sleep {mark}\n"), bench.image()
    build = bench.begin("buildx_build", builder=bench.name, path=str(path), name=name, docker_host=through.host)
    bench.wait("the step runs", lambda: bench.runs("sleep", mark))

    cut = time.monotonic()
    through.cut()
    result = bench.finish(build)

    assert time.monotonic() - cut < 10
    assert result["failed"]
    assert "connection to the daemon broke" in result["msg"]
    assert any(line.endswith(" begun") for line in result["log_tail"])
    assert list(temporary.iterdir()) == []
    bench.wait("the step has ended", lambda: not bench.runs("sleep", mark), 15)
    assert bench.build(context(f"{BASE}RUN : {mark}\n"), name=name, docker_host=through.host)["changed"]


def test_engine_has_the_image(ready: Bench, context: Callable[..., Path], proxy: Callable[..., Proxy]) -> None:
    """An image that the engine has under its name is not sent again."""
    loads: list[bytes] = []

    def answer(head: bytes) -> None:
        if b"/images/load" in head:
            loads.append(head)

    through = proxy(ready, answer=answer)
    path, name = context(f"{BASE}RUN : {uuid.uuid4()}\n"), ready.image()

    for changed in (True, False):
        loads.clear()
        assert ready.build(path, name=name, docker_host=through.host)["changed"] is changed
        assert bool(loads) is changed
    ready.docker("rmi", name)
    assert ready.build(path, name=name, docker_host=through.host)["changed"]
    assert loads


def test_engine_goes_away_before_the_load(
    ready: Bench, context: Callable[..., Path], proxy: Callable[..., Proxy]
) -> None:
    """An engine that is gone when the image comes fails the task, with its address; the builder is not blamed."""
    through = proxy(ready)
    mark = f"2.{uuid.uuid4().int % 10**9}"
    path, name = context(f"{BASE}RUN sleep {mark}\n"), ready.image()
    build = ready.begin("buildx_build", builder=ready.name, path=str(path), name=name, docker_host=through.host)
    ready.wait("the step runs", lambda: ready.runs("sleep", mark))

    through.close()
    result = ready.finish(build)

    assert result["failed"]
    assert through.host in result["msg"]
    assert ready.build(path, name=name)["changed"]


LOADS = {
    "error key": (
        b"200 OK",
        b'{"errorDetail":{"message":"no space left, says the lab"},"error":"no space left, says the lab"}\r\n',
    ),
    "unpacking": (
        b"200 OK",
        b'{"stream":"Loaded image: x\\n"}\r\n{"stream":"Error unpacking image x: says the lab"}\r\n',
    ),
    "status": (b"500 Internal Server Error", b'{"message":"refused, says the lab"}\r\n'),
    "nothing loaded": (b"200 OK", b'{"stream":"Loaded image: x\\n"}\r\n'),
    "cut": (b"", b""),
}


@pytest.mark.parametrize("how", LOADS)
def test_load_fails(ready: Bench, context: Callable[..., Path], how: str, proxy: Callable[..., Proxy]) -> None:
    """An engine that does not load the image fails the task, with its words, whatever form they have."""
    status, body = LOADS[how]

    def answer(head: bytes) -> bytes | None:
        if b"/images/load" not in head.split(b"\r\n")[0]:
            return None
        if not status:
            return b""
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n" % status
        if not status.startswith(b"200"):
            return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    through = proxy(ready, answer=answer)
    path, name = context(f"{BASE}RUN : {uuid.uuid4()}\n"), ready.image()

    result = ready.failed_build(path, name=name, docker_host=through.host)

    assert ("says the lab" in result["msg"]) is (b"says the lab" in body)
    assert name in result["msg"] or "load" in result["msg"]
    assert not result["changed"]
    assert "importing to docker" in "\n".join(result["log_tail"])
    assert ready.docker("images", "-q", name) == ""
    assert ready.build(path, name=name)["changed"]
