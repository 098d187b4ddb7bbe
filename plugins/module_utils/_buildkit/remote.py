# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Ways to a daemon that somebody else runs: over TCP, with TLS, through ssh (wire §14.1).

grpcio could dial TCP and TLS itself, but what is wrong would then be told in its words, and the session needs a
connection of ours all the same; so both come from one place.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._sockets import KEPT, Program, decrypted

from .dial import Dialer, PlainDialer

DIAL_SECONDS = 10.0
"""How long a host may take to answer, and a daemon to say its first word."""
LOST_SECONDS = 60
"""After so long without a sign of life of the host, the kernel gives a connection up."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 says first; the server's first frame is SETTINGS as well."""
SETTINGS, TLS_ALERT = 4, 0x15


class Tls(NamedTuple):
    """How to encrypt; the paths are absolute. name: what the daemon's certificate must be for.

    ca: the only authorities that are trusted. cert, key: ours, for a daemon that wants to know who calls.
    """

    name: str
    ca: str
    cert: Optional[str] = None
    key: Optional[str] = None

    def context(self) -> ssl.SSLContext:
        """What is trusted as Go trusts it, since such certificates were made for the CLI. Raises ConfigError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        # An authority may be one that another has signed; a name counts only where it is an alternative one.
        context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0x80000)
        context.hostname_checks_common_name = False
        with _usable(self.ca, "cacert"):
            context.load_verify_locations(self.ca)
        if self.cert:
            with _usable(self.cert, "cert", self.key, "key"):
                context.load_cert_chain(self.cert, self.key)
        return context


@contextlib.contextmanager
def _usable(*files: Optional[str]) -> Iterator[None]:
    """files: paths, each with its driver option after it. Python names no file."""
    try:
        for path in files[::2]:
            with open(str(path), "rb"):
                pass
        yield
    except (OSError, ssl.SSLError) as exc:  # an SSLError is an OSError without a file
        told = " and ".join(f"{path} (driver option {option})" for path, option in zip(files[::2], files[1::2]))
        raise ConfigError(f"{told} cannot be used: {exc.strerror or exc}") from exc


class TcpDialer(PlainDialer):
    """A daemon at `host:port`, in clear or with TLS."""

    def __init__(self, host: str, port: int, authority: str, tls: Optional[Tls] = None) -> None:
        self.authority = authority
        self._place = (host, port)
        self._tls = tls

    def dial(self) -> socket.socket:
        stream = self.connect()
        stream.settimeout(None)
        return decrypted(stream) if isinstance(stream, ssl.SSLSocket) else stream

    def connect(self) -> socket.socket:
        """A connection as it is, encrypted if it is."""
        try:
            stream = socket.create_connection(self._place, timeout=DIAL_SECONDS)
        except OSError as exc:
            words = exc.strerror or str(exc)
            raise BuildkitError(
                f"no connection: {words}", hint="See whether the daemon runs and listens there."
            ) from exc
        with contextlib.ExitStack() as undo:
            undo.callback(stream.close)
            _stay_alive(stream)
            if self._tls is not None:
                context = self._tls.context()
                with tls_errors():
                    stream = context.wrap_socket(stream, server_hostname=self._tls.name)
            undo.pop_all()
        return stream


class SshDialer(PlainDialer):
    """`buildctl dial-stdio` on another host, through the ssh program, as the CLI reaches it.

    arguments: of ssh, up to the host. address: of the daemon there, None: what buildctl takes for it.
    """

    def __init__(self, arguments: Sequence[str], address: Optional[str]) -> None:
        daemon = ["--addr", address] if address else []
        self._command = ["ssh", "-o", "BatchMode=yes", *arguments, "buildctl", *daemon, "dial-stdio"]
        self._last: Optional[Program] = None

    def dial(self) -> socket.socket:
        try:
            self._last = Program(self._command)
        except OSError as exc:
            raise BuildkitError(f"the program ssh cannot be run: {exc.strerror}") from exc
        return self._last.socket

    def explain(self) -> str:
        return self._last.said if self._last else ""


def check(dialer: Dialer) -> None:
    """Try a way: whether a daemon is at its end. Raises BuildkitError with what is wrong, and what to do.

    grpcio would only see that a connection ends, and would try again.
    """
    with dialer.connect() if isinstance(dialer, TcpDialer) else dialer.dial() as stream:
        stream.settimeout(DIAL_SECONDS)
        try:
            with tls_errors():
                stream.sendall(PREFACE)
                begun = _first_frame(stream)
        except socket.timeout as exc:
            raise BuildkitError(
                f"the connection stands, but nothing was said within {DIAL_SECONDS:g} s",
                hint="See whether the daemon is frozen, or something else listens there.",
            ) from exc
        except OSError as exc:
            raise BuildkitError(f"the connection broke: {exc.strerror or exc}", hint=NO_DAEMON) from exc
    if begun[3:4] == bytes((SETTINGS,)):
        return
    if begun[:1] == bytes((TLS_ALERT,)):
        raise BuildkitError("the daemon speaks TLS", hint="Give the builder the driver options cacert, cert and key.")
    said = dialer.explain().strip() or begun.decode("latin-1").split("\r\n")[0]
    raise BuildkitError(f"what answers is no BuildKit daemon: {said or ENDED}", hint=NO_DAEMON)


ENDED = "it ended the connection without a word"
NO_DAEMON = "See which address the daemon listens at, and whether it wants TLS (driver options cacert, cert, key)."


def _first_frame(stream: socket.socket) -> bytes:
    """The head of the server's first frame, or what came instead of it."""
    begun = b""
    while len(begun) < 9:
        data = stream.recv(KEPT)
        if not data:
            break
        begun += data
    return begun


@contextlib.contextmanager
def tls_errors() -> Iterator[None]:
    """Turn what OpenSSL says of a handshake, or of the first words after it, into what to do about it."""
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        hint = VERIFICATION.get(exc.verify_code, "The driver option cacert names the authority that signed it.")
        raise BuildkitError(f"the daemon's certificate is refused: {exc.verify_message}", hint=hint) from exc
    except ssl.SSLError as exc:
        reason = exc.reason or str(exc)
        if "ALERT" in reason:
            raise BuildkitError(
                f"the daemon refuses this side's certificate: {words(reason)}",
                hint="The driver options cert and key name one that the daemon's authority signed.",
            ) from exc
        raise BuildkitError(
            f"the daemon does not speak TLS: {words(reason)}",
            hint="Without it the builder needs no cacert, cert and key.",
        ) from exc


VERIFICATION = {
    10: "Renew the certificate, or set the clock.",
    **dict.fromkeys((62, 64), "The driver option servername says which name the certificate is for."),
}
"""Codes of OpenSSL (X509_V_ERR_…) → what to do: expired; another name, another address."""


def words(reason: str) -> str:
    """`TLSV13_ALERT_CERTIFICATE_REQUIRED` → `certificate required`."""
    return reason.rpartition("ALERT_")[2].replace("_", " ").lower()


def _stay_alive(stream: socket.socket) -> None:
    """A host that is gone ends the connection; a quiet one does not."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, LOST_SECONDS // 3)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, LOST_SECONDS // 6)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000)
