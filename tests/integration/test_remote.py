# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builders of the driver `remote`, made by the CLI: over unix, TCP, TLS, ssh and an exec; and every wrong certificate.

The daemon runs in a container of the lab, in whose network the modules run: its loopback is theirs.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from conftest import Bench

BASE = "FROM scratch\nADD root.tar /\n"
PORTS = {"mutual": 1201, "tls": 1202, "expired": 1203, "tcp": 1204, "mortal": 1205, "nobody": 1206}
"""What the daemons of the container listen at; at the last one nobody, and `mortal` is for one test."""
NAME = "buildkit.lab"
"""What the certificates are for, besides 127.0.0.1."""
DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates, which lie in a directory as NAME.pem and NAME-key.pem."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self._name, self._key, DAY).add_extension(basic, critical=True)
        self._write(name, builder, self._key)

    def sign(self, name: str, *, names: tuple[str, ...] = (NAME,), age: datetime.timedelta = DAY) -> None:
        """age: how long it is valid from now, negative for one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        others: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if NAME in names else []
        alternatives = x509.SubjectAlternativeName([*map(x509.DNSName, names), *others])
        self._write(name, self._builder(subject, key, age).add_extension(alternatives, critical=False), key)

    def _builder(self, subject: x509.Name, key: Any, age: datetime.timedelta) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now + age)
        )

    def _write(self, name: str, builder: x509.CertificateBuilder, key: Any) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self._directory / f"{name}.pem").write_bytes(signed.public_bytes(encoding))
        (self._directory / f"{name}-key.pem").write_bytes(private)


class Far:
    """A daemon that is no builder's, with one way in for each kind of address. directory: its sockets and keys."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.container = f"{bench.name}-far"
        runs = Path(bench.environment["DOCKER_HOST"].removeprefix("unix://")).parent
        self.directory = runs / bench.name  # this is /run/lab/… in the engine's machine
        self.directory.mkdir()
        authority = Authority(self.directory)
        Authority(self.directory, "other").sign("foreign")
        authority.sign("server")
        authority.sign("client")
        authority.sign("expired", age=-DAY)
        image = bench.environment["BUILDX_LAB_BUILDKIT_IMAGE"]
        first = self.arguments("mutual", "server", "--tlscacert", "/keys/ca.pem")
        mount = f"/run/lab/{bench.name}:/keys"
        bench.docker("run", "-d", "--privileged", "--name", self.container, "-v", mount, image, *first,
                     "--addr", "unix:///keys/s", "--addr", "unix:///run/buildkit/buildkitd.sock")  # fmt: skip
        self.pid: int = bench.inspect(self.container)["State"]["Pid"]
        for way, certificate in (("tls", "server"), ("expired", "expired"), ("tcp", "")):
            self.serve(way, certificate)
        bench.wait("the first daemon listens", lambda: self._listens(PORTS["mutual"]))

    def serve(self, way: str, certificate: str) -> list[str]:
        """Start another daemon in the container, and wait until it listens. Its command."""
        command = ["buildkitd", "--root", f"/var/lib/{way}", *self.arguments(way, certificate)]
        self._bench.docker("exec", "-d", self.container, *command)
        self._bench.wait(f"{way} listens", lambda: self._listens(PORTS[way]))
        return command

    @staticmethod
    def arguments(way: str, certificate: str, *more: str) -> list[str]:
        found = ["--addr", f"tcp://127.0.0.1:{PORTS[way]}", *more]
        if certificate:
            found += ["--tlscert", f"/keys/{certificate}.pem", "--tlskey", f"/keys/{certificate}-key.pem"]
        return found

    def _listens(self, port: int) -> bool:
        return f"0100007F:{port:04X} 00000000:0000 0A" in Path(f"/proc/{self.pid}/net/tcp").read_text()

    @property
    def inside(self) -> tuple[str, ...]:
        """The command that runs another in the daemon's network."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")

    def endpoint(self, way: str) -> str:
        places = {"unix": f"unix://{self.directory}/s", "docker-container": f"docker-container://{self.container}"}
        return places.get(way) or f"tcp://127.0.0.1:{PORTS[way]}"

    def keys(self, *, ca: str = "ca", client: str = "client", **others: str) -> dict[str, str]:
        """Driver options for TLS."""
        found = {"cacert": f"{self.directory}/{ca}.pem"}
        if client:
            found |= {"cert": f"{self.directory}/{client}.pem", "key": f"{self.directory}/{client}-key.pem"}
        return found | others

    def close(self) -> None:
        self._bench.docker("rm", "-fv", self.container)
        shutil.rmtree(self.directory)


@pytest.fixture(scope="module")
def far(running: Bench) -> Iterator[Far]:
    bench = replace(running, name=f"r{uuid.uuid4().hex[:6]}")
    made = Far(bench)
    yield made
    made.close()


@pytest.fixture
def remote(bench: Bench, far: Far) -> Callable[..., Bench]:
    """Let the CLI make this test's builder of the driver remote: `remote(way, **driver_options)`."""

    def make(way: str, endpoint: str = "", **options: str) -> Bench:
        bench.prefix = far.inside
        flags = [
            word for key, value in options.items() for word in ("--driver-opt", f"{key.replace('_', '-')}={value}")
        ]
        address = endpoint or far.endpoint(way)
        bench.run(
            *far.inside, "docker", "buildx", "create", "--name", bench.name, "--driver", "remote", *flags, address
        )
        return bench

    return make


def listed(bench: Bench) -> dict[str, Any]:
    """The row of `docker buildx ls` for this test's builder."""
    lines = bench.run(*bench.prefix, "docker", "buildx", "ls", "--format", "json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    return next(row for row in rows if row["Name"] == bench.name)


@pytest.mark.parametrize("way", ["unix", "tcp", "tls", "mutual", "docker-container"])
def test_ways(remote: Callable[..., Bench], far: Far, context: Callable[..., Path], way: str) -> None:
    """Each kind of address builds, loads, and is reported as the CLI reports it."""
    options = {"tls": far.keys(client=""), "mutual": far.keys()}.get(way, {})
    bench = remote(way, **options)
    name, word = bench.image(), uuid.uuid4().hex
    path = context(f"{BASE}COPY word /\nRUN cat /word > /said\nCMD cat /said\n", word=word)

    results = [bench.build(path, name=name) for _time in range(2)]

    assert [result["changed"] for result in results] == [True, False]
    assert bench.docker("run", "--rm", name) == word
    ours, theirs = bench.row(), listed(bench)
    assert ours["Nodes"][0]["Status"] == "running"
    assert ours.pop("LastActivity")
    assert theirs.pop("LastActivity")
    assert ours == theirs


def test_builder_by_its_name(remote: Callable[..., Bench], far: Far, context: Callable[..., Path]) -> None:
    """servername says what the certificate is for; what is asked of the daemon and of the engine stays apart."""
    bench = remote("mutual", **far.keys(servername=NAME), default_load="true")
    name = bench.image()

    result = bench.build(context(f"{BASE}LABEL l={uuid.uuid4()}\n"), name=name)

    assert result["changed"]
    assert not bench.warnings(result)
    assert bench.row()["Nodes"][0]["DriverOpts"]["servername"] == NAME
    failed = bench.failed_build(context(f"{BASE}RUN exit 5\n"))
    assert failed["exit_code"] == 5


WRONG = {
    "another authority": ("mutual", {"ca": "other"}, "certificate is refused: unable to get local issuer", "cacert"),
    "expired": ("expired", {}, "certificate has expired", "Renew"),
    "no certificate of ours": ("mutual", {"client": ""}, "refuses this side's certificate", "cert and key"),
    "a foreign certificate of ours": (
        "mutual",
        {"client": "foreign"},
        "refuses this side's certificate",
        "cert and key",
    ),
    "another name": ("mutual", {"servername": "elsewhere.lab"}, "not valid for 'elsewhere.lab'", "servername"),
    "TLS where there is none": ("tcp", {}, "does not speak TLS", "no cacert"),
    "no TLS where there is some": ("mutual", None, "ended the connection without a word", "wants TLS"),
    "nobody there": ("nobody", None, "Connection refused", "daemon runs"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit(remote: Callable[..., Bench], far: Far, context: Callable[..., Path], what: str) -> None:
    """Each is told within seconds, with builder, address, cause and what to do; the CLI's listing and ours agree."""
    way, keys, words, advice = WRONG[what]
    bench = remote(way, **({} if keys is None else far.keys(**keys)))
    begun = time.monotonic()

    result = bench.failed_build(context(BASE), name=bench.image())

    assert time.monotonic() - begun < 20
    assert f"the builder {bench.name} cannot be reached at {far.endpoint(way)}" in result["msg"]
    assert words in result["msg"]
    assert advice in result["error"]["hint"]
    assert result["error"]["kind"] == "buildkit"
    assert bench.row()["Nodes"] == listed(bench)["Nodes"]
    assert bench.row()["Nodes"][0]["Status"] == "inactive"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cert": "/c.pem", "key": "/k.pem"}, "tls enabled, but missing keys cacert"),
        ({"cacert": "/no/such/ca.pem"}, "/no/such/ca.pem (driver option cacert) cannot be used: No such file"),
        ({"cacert": "/etc/passwd"}, "/etc/passwd (driver option cacert) cannot be used"),
        ({"cacert": "ca.pem"}, "non-absolute path 'ca.pem' provided for cacert"),
        ({"image": "x"}, "invalid driver option image for remote driver"),
    ],
)
def test_options_that_do_not_fit(
    remote: Callable[..., Bench], far: Far, context: Callable[..., Path], options: dict[str, str], words: str
) -> None:
    """An entry that cannot be used says why, in the listing too. The CLI refuses to make most of them."""
    bench = remote("mutual")
    document = json.loads(bench.entry.read_text())
    document["Nodes"][0]["DriverOpts"] = options
    bench.entry.write_text(json.dumps(document))

    result = bench.failed_build(context(BASE))

    assert words in result["msg"]
    assert bench.name in result["msg"]
    assert result["error"]["kind"] == "config"
    row = bench.row()["Nodes"][0]
    assert (row["Status"], words in row["Err"]) == ("error", True)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("unix:///no/such.sock", "/no/such.sock: No such file"),
        ("docker-container://nobody-of-this-name", "no container nobody-of-this-name"),
        ("kube-pod://pod", "kube-pod:// are not supported"),
        ("tcp://127.0.0.1", "no host and port"),
    ],
)
def test_addresses_that_lead_nowhere(
    remote: Callable[..., Bench], context: Callable[..., Path], endpoint: str, words: str
) -> None:
    bench = remote("", endpoint)

    result = bench.failed_build(context(BASE))

    assert words in result["msg"]
    assert f"the builder {bench.name} cannot be reached at {endpoint}" in result["msg"]


def test_daemon_is_killed(
    remote: Callable[..., Bench], far: Far, context: Callable[..., Path], mark: str, temporary: Path
) -> None:
    """A remote daemon that dies ends the build within seconds, and nothing of it is left."""
    command = far.serve("mortal", "server")
    bench = remote("mortal", **far.keys(client=""))
    bench.environment["TMPDIR"] = str(temporary)
    path = context(f"{BASE}RUN echo begun; sleep {mark}\n")
    build = bench.begin("buildx_build", builder=bench.name, path=str(path))
    bench.wait("the step runs", lambda: bench.runs("sleep", mark))
    killed = time.monotonic()

    for pid in bench.processes(*command):
        os.kill(pid, signal.SIGKILL)
    result = bench.finish(build)

    assert time.monotonic() - killed < 15
    assert "connection to the daemon broke" in result["msg"]
    assert list(temporary.iterdir()) == []
    for pid in bench.processes("sleep", mark):  # the step's own parent died with the daemon
        os.kill(pid, signal.SIGKILL)


def test_the_builder_itself_is_left_to_the_cli(remote: Callable[..., Bench]) -> None:
    bench = remote("tcp")
    before = bench.tree()
    for state in ("started", "present", "stopped", "absent"):
        assert "remote" in bench.module("buildx_builder", name=bench.name, state=state)["msg"]
    assert {key: value for key, value in bench.tree().items() if key.startswith("instances")} == {
        key: value for key, value in before.items() if key.startswith("instances")
    }


SSH = """#!/bin/sh
# Stands for a host that ssh leads to: what would run there, runs in the container.
echo "$*" >> {log}
while [ "$1" != -- ]; do shift; done
shift 2
exec docker exec -i {container} "$@"
"""


@pytest.fixture
def ssh(bench: Bench, far: Far) -> Path:
    """A program `ssh` whose other end is the daemon's container; what it was called with is in the file."""
    programs, log = bench.directory / "programs", bench.directory / "ssh.log"
    programs.mkdir()
    (programs / "ssh").write_text(SSH.format(log=log, container=far.container))
    (programs / "ssh").chmod(0o755)
    bench.environment["PATH"] = f"{programs}:{bench.environment['PATH']}"
    return log


def test_ssh(remote: Callable[..., Bench], context: Callable[..., Path], ssh: Path) -> None:
    """The daemon of another host, through its buildctl. No sshd: what is between is the program's own affair."""
    bench = remote("", "ssh://me@far.lab:2222/keys/s")
    name, word = bench.image(), uuid.uuid4().hex

    result = bench.build(context(f"{BASE}RUN echo {word} > /said\nCMD cat /said\n"), name=name)

    assert result["changed"]
    assert bench.docker("run", "--rm", name) == f"{word}\n"
    command = "-o BatchMode=yes -l me -p 2222 -- far.lab buildctl --addr unix:///keys/s dial-stdio"
    assert set(ssh.read_text().splitlines()) >= {command}
    assert bench.row()["Nodes"] == listed(bench)["Nodes"]


def test_ssh_that_fails(remote: Callable[..., Bench], context: Callable[..., Path], ssh: Path) -> None:
    """What the program says is passed on."""
    bench = remote("", "ssh://far.lab/no/such.sock")

    result = bench.failed_build(context(BASE))

    assert "the builder" in result["msg"]
    assert "no/such.sock" in result["msg"]
    assert "no such file" in result["msg"]
