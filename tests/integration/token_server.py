# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A token server such as the large registries have, and the configuration of a registry that believes it.

    token_server.py DIRECTORY INSIDE

Writes `config.yml` for docker-registry, which sees DIRECTORY as INSIDE, prints the registry's port, and serves tokens
to lab:right until it is ended. Each request becomes a line of `requests`: who asked, how, and what came of it.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import time
import urllib.parse
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER = "buildfleet.buildx lab"
LOGIN = ("lab", "right")


class Signer:
    """The key that the registry believes, and its certificate."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(timezone.utc)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def token(self, service: str, scopes: list[str]) -> str:
        now = int(time.time())
        chain = [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        access = [dict(zip(("type", "name", "actions"), scope.split(":"))) for scope in scopes]
        claims = {
            "iss": ISSUER,
            "sub": LOGIN[0],
            "aud": service,
            "jti": str(time.monotonic_ns()),
            "iat": now,
            "nbf": now - 60,
            "exp": now + 300,
            "access": [{**item, "actions": item["actions"].split(",")} for item in access],
        }
        signed = f"{_part({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_part(claims)}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_url_safe(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _part(value: object) -> str:
    return _url_safe(json.dumps(value).encode())


def handler(signer: Signer, log: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = urllib.parse.parse_qs(body)
            first = {key: values[0] for key, values in form.items()}
            self._answer((first.get("username"), first.get("password")), first.get("scope", "").split(), first)

        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            _kind, _space, word = self.headers.get("Authorization", "").partition(" ")
            user, _colon, password = base64.b64decode(word).decode().partition(":")
            self._answer((user, password), query.get("scope", []), {"service": query["service"][0]})

        def _answer(self, login: tuple[str | None, str | None], scopes: list[str], asked: dict[str, str]) -> None:
            granted = login == LOGIN
            token = signer.token(asked["service"], scopes)
            content = {"token": token, "access_token": token, "expires_in": 300} if granted else {"details": "no"}
            known = {key: asked.get(key) for key in ("grant_type", "client_id")}
            who = self.headers.get("User-Agent", "")
            with log.open("a") as stream:
                stream.write(json.dumps({"who": who, "method": self.command, "granted": granted, **known}) + "\n")
            body = json.dumps(content).encode()
            self.send_response(200 if granted else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    return Handler


def main() -> None:
    directory, inside = Path(sys.argv[1]), sys.argv[2]
    signer = Signer()
    (directory / "root.pem").write_bytes(signer.certificate.public_bytes(serialization.Encoding.PEM))
    log = directory / "requests"
    log.touch()
    server = HTTPServer(("127.0.0.1", 0), handler(signer, log))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    token = {
        "realm": f"http://127.0.0.1:{server.server_port}/token",
        "service": "lab-registry",
        "issuer": ISSUER,
        "rootcertbundle": f"{inside}/root.pem",
    }
    config = {"version": "0.1", "storage": {"inmemory": {}}, "http": {"addr": f"127.0.0.1:{port}"}}
    (directory / "config.yml").write_text(json.dumps({**config, "auth": {"token": token}}))
    print(port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
