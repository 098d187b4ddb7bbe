# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import raw
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target, Tls
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import (
    ConfigError,
    EngineError,
    EngineUnreachable,
)

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a socket left open

SWITCHED = b"HTTP/1.1 101 UPGRADED\r\nUpgrade: h2c\r\n\r\n"


def answered(content: bytes, path: str = "/grpc", **options: object) -> tuple[bytes, bytes]:
    """Upgrade against a peer that says `content` and no more: (the request, what the stream holds afterwards)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(2)
        theirs.settimeout(2)
        theirs.sendall(content)
        raw.upgrade(ours, path, "h2c", **options)  # type: ignore[arg-type]
        assert ours.gettimeout() is None, "a stream may be silent for hours"
        theirs.shutdown(socket.SHUT_WR)
        rest = b""
        while True:
            data = ours.recv(65536)
            if not data:
                break
            rest += data
        return theirs.recv(65536), rest


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=50)
def test_not_one_byte_behind_the_answer_is_taken(rest: bytes) -> None:
    assert answered(SWITCHED + rest)[1] == rest


def test_the_request() -> None:
    request, _rest = answered(SWITCHED)
    assert request == (
        b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 0\r\nContent-Type: application/json\r\n\r\n"
    )
    request, _rest = answered(SWITCHED, "/exec/x/start", body={"Tty": False})
    assert request.endswith(b'Content-Length: 14\r\nContent-Type: application/json\r\n\r\n{"Tty": false}')


def test_engines_before_the_upgrade_answer_200() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    assert answered(head + b"rest")[1] == b"rest"


@pytest.mark.parametrize(
    ("content", "words", "status"),
    [
        (b'HTTP/1.1 404 Not Found\r\n\r\n{"message":"page not found"}', "refused /grpc: page not found", 404),
        (b"HTTP/1.1 500 Oops\r\n\r\nplain words", "refused /grpc: HTTP/1.1 500 Oops", 500),
        (b'HTTP/1.1 400 Bad\r\n\r\n{"other":1}', "refused /grpc: HTTP/1.1 400 Bad", 400),
        (b"HTTP/1.1 403 No\r\n\r\n[1]", "refused /grpc: HTTP/1.1 403 No", 403),
    ],
)
def test_a_refusal_has_the_engines_words(content: bytes, words: str, status: int) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        answered(content)
    assert caught.value.details["status"] == status


@pytest.mark.parametrize(
    "content", [b"\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 what ever\r\n\r\n"]
)
def test_what_is_no_answer(content: bytes) -> None:
    with pytest.raises(EngineError, match="did not answer /grpc as an engine does"):
        answered(content)


def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "LONGEST_HEAD", 1000)
    with pytest.raises(EngineError, match="within the answer's head"):
        answered(b"HTTP/1.1 101 X\r\nA: " + b"x" * 2000)


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 101 UPGRADED\r\n"])
def test_a_connection_that_ends_within_the_answer(content: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(content)
        theirs.close()
        with pytest.raises(EngineError, match="did not answer"):
            raw.upgrade(ours, "/grpc", "h2c")


def test_silence_is_limited() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)
        with pytest.raises(EngineError, match="timed out"):
            raw.upgrade(ours, "/grpc", "h2c")


# Ways to an engine.


class Echo:
    """A listener that sends one connection's bytes back."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self._listener, self._context = listener, context
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._listener:
            connection, _address = self._listener.accept()
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            while True:
                data = connection.recv(65536)
                if not data:
                    break
                connection.sendall(data)
        except OSError:
            pass
        finally:
            connection.close()


def listen_on(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def exchanged(stream: socket.socket, content: bytes = b"ping" * 100_000) -> bytes:
    """What comes back of what is sent, both at once."""
    with stream:
        stream.settimeout(10)
        sender = threading.Thread(target=stream.sendall, args=(content,))
        sender.start()
        found = b""
        while len(found) < len(content):
            data = stream.recv(65536)
            if not data:
                break
            found += data
        sender.join()
        return found


def test_a_unix_socket(tmp_path: Path) -> None:
    Echo(listen_on(tmp_path / "s"))
    assert exchanged(raw.open_socket(Target(f"unix://{tmp_path}/s"))) == b"ping" * 100_000


def test_tcp() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    Echo(listener)
    assert exchanged(raw.open_socket(Target(f"tcp://127.0.0.1:{port}"))) == b"ping" * 100_000


def test_ssh_runs_the_clis_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/arguments\nexec cat\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert exchanged(raw.open_socket(Target("ssh://me@host:2222"))) == b"ping" * 100_000
    arguments = (tmp_path / "arguments").read_text()
    assert arguments == "-o BatchMode=yes -p 2222 -- me@host docker system dial-stdio\n"


@pytest.mark.parametrize("host", ["unix:///no/such/socket", "tcp://127.0.0.1:1", "ssh://host"])
def test_no_engine_there(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ssh program either
    with pytest.raises(EngineUnreachable, match=r"no Docker engine answers at [^ ]+: [A-Z]") as caught:
        raw.open_socket(Target(host, timeout=2))
    assert caught.value.hint is not None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for `localhost` that signs itself, and its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="makes the certificate")
    from datetime import datetime, timedelta

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.now() - timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=3))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(directory / "cert.pem"), str(directory / "key.pem")


def tls_engine(certificate: tuple[str, str]) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    Echo(listener, context)
    return port


@pytest.mark.parametrize("verify", [True, False])
def test_tls_stands_behind_a_plain_socket(certificate: tuple[str, str], verify: bool) -> None:
    port = tls_engine(certificate)
    tls = Tls(verify, ca=certificate[0] if verify else None)
    stream = raw.open_socket(Target(f"tcp://localhost:{port}", tls=tls))
    assert not isinstance(stream, ssl.SSLSocket)
    assert exchanged(stream) == b"ping" * 100_000


def test_an_unknown_certificate_is_refused(certificate: tuple[str, str]) -> None:
    port = tls_engine(certificate)
    with pytest.raises(EngineUnreachable, match="certificate verify failed"):
        raw.open_socket(Target(f"tcp://localhost:{port}", tls=Tls(True)))


def test_a_missing_certificate_leaves_no_socket_behind(certificate: tuple[str, str]) -> None:
    """And it is named. An open socket would be a ResourceWarning, which is an error here."""
    port = tls_engine(certificate)
    with pytest.raises(ConfigError, match=r"/no/cert\.pem"):
        raw.open_socket(Target(f"tcp://localhost:{port}", tls=Tls(True, cert="/no/cert.pem", key="/no/key.pem")))


@pytest.mark.parametrize(("version", "prefix"), [("1.43", "/v1.43"), ("auto", ""), (None, ""), ("", "")])
def test_the_version_in_the_path(version: str | None, prefix: str) -> None:
    assert raw.api_prefix(version) == prefix
