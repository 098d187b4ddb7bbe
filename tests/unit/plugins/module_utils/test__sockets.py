# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS connections and programs as plain sockets: every byte both ways, and both ends when one ends."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils import _sockets as sockets

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a socket left open

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that signs itself, with its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509", reason="makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime.now() - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=3))
    file: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(encoding)
        + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.fixture
def pair(certificate: Path) -> Iterator[Callable[[], tuple[socket.socket, ssl.SSLSocket]]]:
    """Make a connection: (our plain end of it, the other end, which is encrypted)."""
    before = threading.active_count()
    ends: list[socket.socket] = []

    def make(begun: bytes = b"") -> tuple[socket.socket, ssl.SSLSocket]:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        near, far = socket.socketpair()
        accepted: list[ssl.SSLSocket] = []
        thread = threading.Thread(target=lambda: accepted.append(server.wrap_socket(far, server_side=True)))
        thread.start()
        encrypted = client.wrap_socket(near)
        thread.join()
        ours = sockets.decrypted(encrypted, begun)
        ours.settimeout(20)
        accepted[0].settimeout(20)
        ends.extend((ours, accepted[0]))
        return ours, accepted[0]

    yield make
    for end in ends:
        end.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "a thread is left"
        time.sleep(0.01)


def read(stream: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        data = stream.recv(1 << 16)
        if not data:
            break
        found += data
    return bytes(found)


def test_megabytes_both_ways_at_once(pair: Callable[[], tuple[socket.socket, ssl.SSLSocket]]) -> None:
    """Neither direction waits for the other, and neither end is read before it has written all."""
    ours, theirs = pair()
    sender = threading.Thread(target=ours.sendall, args=(CONTENT,))
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read(ours, len(CONTENT))))
    for thread in (sender, reader):
        thread.start()
    half = len(CONTENT) // 2
    theirs.sendall(CONTENT[:half])
    assert read(theirs, len(CONTENT)) == CONTENT
    theirs.sendall(CONTENT[half:])
    for thread in (sender, reader):
        thread.join(20)
    assert found == [CONTENT]


def test_what_was_read_before_comes_first(pair: Callable[[bytes], tuple[socket.socket, ssl.SSLSocket]]) -> None:
    ours, theirs = pair(b"begun, ")
    theirs.sendall(b"done")
    assert read(ours, 11) == b"begun, done"


def test_the_end_of_either_side_is_the_end_of_both(
    pair: Callable[[], tuple[socket.socket, ssl.SSLSocket]],
) -> None:
    ours, theirs = pair()
    ours.sendall(CONTENT[:100_000])
    ours.close()
    assert read(theirs, 1 << 30) == CONTENT[:100_000], "what was on its way arrives"
    ours, theirs = pair()
    theirs.sendall(CONTENT[:100_000])
    theirs.close()
    assert read(ours, 1 << 30) == CONTENT[:100_000]
    assert ours.recv(1) == b""


def test_an_end_that_reads_nothing_is_not_waited_for(
    pair: Callable[[], tuple[socket.socket, ssl.SSLSocket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "END_SECONDS", 0.2)
    ours, _theirs = pair()
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(CONTENT[:65536])
    ours.close()  # the fixture waits for the thread


def test_a_programs_input_and_output() -> None:
    program = sockets.Program(["sh", "-c", "echo warning >&2; exec cat"])
    with program.socket as stream:
        stream.settimeout(10)
        stream.sendall(b"through")
        assert read(stream, 7) == b"through"
        pid = program._process.pid
    until(lambda: program.said == "warning\n")
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_programs_last_words() -> None:
    program = sockets.Program(["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 3"])
    with program.socket as stream:
        stream.settimeout(10)
        assert stream.recv(1) == b""
    until(lambda: program.said.endswith("xend\n"))
    assert len(program.said) <= sockets.KEPT


def test_no_such_program() -> None:
    with pytest.raises(FileNotFoundError):
        sockets.Program(["/no/such/program"])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
