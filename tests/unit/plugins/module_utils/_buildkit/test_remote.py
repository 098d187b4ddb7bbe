# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may answer at a remote daemon's address, and is none. Real daemons and certificates are in tests/integration."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import remote
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, ConfigError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a socket left open

SETTINGS = bytes((0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0))


@pytest.fixture
def answering() -> Iterator[Callable[..., remote.TcpDialer]]:
    """A dialer to a server that says something, to the first words if `hears`: `answering(parts, hears=True)`."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def make(*parts: bytes, hears: bool = True, stays: bool = False) -> remote.TcpDialer:
        def serve() -> None:
            stream, _address = listener.accept()
            with stream:
                if hears:
                    assert stream.recv(100).startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04")
                for part in parts:
                    stream.sendall(part)
                if stays:
                    stream.recv(100)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        port = listener.getsockname()[1]
        return remote.TcpDialer("127.0.0.1", port, f"127.0.0.1:{port}")

    yield make
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    listener.close()


@pytest.mark.parametrize("parts", [(SETTINGS,), tuple(SETTINGS[at : at + 1] for at in range(len(SETTINGS)))])
def test_a_daemon(answering: Callable[..., remote.TcpDialer], parts: tuple[bytes, ...]) -> None:
    remote.check(answering(*parts))


def test_one_that_speaks_first(answering: Callable[..., remote.TcpDialer]) -> None:
    remote.check(answering(SETTINGS, hears=False, stays=True))


@pytest.mark.parametrize(
    ("parts", "words", "advice"),
    [
        ((), "it ended the connection without a word", "wants TLS"),
        ((b"HTTP/1.1 400 Bad Request\r\nX: y\r\n\r\n",), "no BuildKit daemon: HTTP/1.1 400 Bad Request", "address"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "SSH-2.0-OpenSSH_9.2", "address"),
        ((b"\x15\x03\x01\x00\x02\x02\x46",), "speaks TLS", "cacert"),
        ((b"\x00\x00",), "no BuildKit daemon", "address"),
    ],
)
def test_something_else(
    answering: Callable[..., remote.TcpDialer], parts: tuple[bytes, ...], words: str, advice: str
) -> None:
    with pytest.raises(BuildkitError, match=words) as caught:
        remote.check(answering(*parts))
    assert advice in str(caught.value.hint)


def test_something_that_says_nothing(
    answering: Callable[..., remote.TcpDialer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "DIAL_SECONDS", 0.3)
    with pytest.raises(BuildkitError, match=r"nothing was said within 0\.3 s"):
        remote.check(answering(stays=True))


def test_nobody() -> None:
    with pytest.raises(BuildkitError, match="no connection: Connection refused"):
        remote.TcpDialer("127.0.0.1", 1, "x").dial()


def test_a_connection_is_for_long(answering: Callable[..., remote.TcpDialer]) -> None:
    """It may be quiet for hours, and ends when the host is gone."""
    with answering(hears=False, stays=True).dial() as stream:
        assert stream.gettimeout() is None
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "refuses this side's certificate: certificate required"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "refuses this side's certificate: bad certificate"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS: wrong version number"),
    ],
)
def test_words_of_openssl(reason: str, words: str) -> None:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    with pytest.raises(BuildkitError, match=words) as caught, remote.tls_errors():
        raise error
    assert caught.value.hint


def test_files_are_named() -> None:
    with pytest.raises(ConfigError, match=r"/no/ca\.pem \(driver option cacert\) cannot be used: No such file"):
        remote.Tls("x", "/no/ca.pem").context()
    with pytest.raises(ConfigError, match=r"/etc/hosts \(driver option cacert\) cannot be used"):
        remote.Tls("x", "/etc/hosts").context()
    authorities = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    with pytest.raises(ConfigError, match=r"cert\) and /no/k\.pem \(driver option key\) cannot be used: No such file"):
        remote.Tls("x", authorities, "/etc/hosts", "/no/k.pem").context()


def test_ssh_has_the_clis_command() -> None:
    dialer = remote.SshDialer(["-l", "me", "--", "host"], None)
    assert dialer._command == ["ssh", "-o", "BatchMode=yes", "-l", "me", "--", "host", "buildctl", "dial-stdio"]
    assert dialer.explain() == ""
