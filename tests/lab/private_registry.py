# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The second registry of an instance: TLS from an authority of the lab's own, and a password.

It has a name of its own because BuildKit speaks plain HTTP to whatever is called localhost. Authority,
certificate and password are made with the machine's openssl and perl when they are missing or about to
expire, and lie in the instance's state, nowhere else. The engine trusts the authority (certs.d), so that the CLI pulls
from here after a login; builders have to be told, as a user's would have to be.
"""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from .daemon import Daemon, written
from .errors import LabError, StepError
from .machine import REGISTRY_NAME
from .processes import wait_until

PORT = 5002
ADDRESS = f"{REGISTRY_NAME}:{PORT}"
USER = "lab"
_INSIDE = "/var/lib/registry/private"
_DAYS = 90
_SPARE_SECONDS = 7 * 24 * 3600

# $1: the registry's name. The password comes on stdin, so that no process list has it.
_MAKE = f"""
set -eu
umask 077
mkdir -p {_INSIDE}.making
cd {_INSIDE}.making
curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days {_DAYS}'
openssl req -x509 $curve -subj '/CN=buildfleet.buildx lab' -keyout ca-key.pem -out ca.pem \
  -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign'
openssl req -x509 $curve -CA ca.pem -CAkey ca-key.pem -subj "/CN=$1" -keyout key.pem -out cert.pem \
  -addext 'basicConstraints=critical,CA:FALSE' -addext "subjectAltName=DNS:$1"
rm ca-key.pem
chmod 644 ca.pem
tee password |
  perl -pe '$_ = "{USER}:" . crypt($_, q($2b$05$) . join "", map {{ ("a".."z")[rand 26] }} 1..22) . "\\n"' > htpasswd
cd ..
rm -rf {_INSIDE}
mv {_INSIDE}.making {_INSIDE}
"""

_TRUST = f"""
set -eu
mkdir -p /etc/docker/certs.d/{ADDRESS}
cp {_INSIDE}/ca.pem /etc/docker/certs.d/{ADDRESS}/ca.crt
"""


@dataclass(frozen=True)
class PrivateRegistry(Daemon):
    """docker-registry in a machine, with TLS and a password."""

    NAME = "private-registry"

    @property
    def directory(self) -> Path:
        return self.machine.state / "registry" / "private"

    @property
    def authority(self) -> Path:
        """The certificate of the lab's authority."""
        return self.directory / "ca.pem"

    @property
    def password(self) -> str:
        """The password of USER; empty before the first start."""
        try:
            return (self.directory / "password").read_text()
        except OSError:
            return ""

    @property
    def builder_configuration(self) -> Path:
        return self.machine.state / "buildkitd-private.toml"

    def start(self) -> None:
        """Bring it to an answer; what answers with good certificates is left alone."""
        if (
            self._current()
            and self.process
            and written(self._configuration_file) == _configuration()
            and self.answers()
        ):
            return
        self.stop()
        if not self._current():
            self._run(_MAKE, REGISTRY_NAME, secrets.token_urlsafe(16))
        self._run(_TRUST)
        self.builder_configuration.write_text(self._builder_configuration())
        self._configuration_file.write_text(_configuration())
        self.machine.spawn(self.pidfile, ["docker-registry", "serve", f"{_INSIDE}/config.yml"], self.log)
        wait_until(lambda: self.process is None or self.answers(), 20)
        if not self.answers():
            raise StepError(f"the private registry of {self.machine.name} does not answer", self.log)

    def answers(self) -> bool:
        """Whether it opens for the password, and for it alone."""
        try:
            known, unknown = self.machine.in_network(lambda: (self._status(True), self._status(False)))
        except (OSError, http.client.HTTPException, LabError):
            return False
        return known == http.HTTPStatus.OK and unknown == http.HTTPStatus.UNAUTHORIZED

    def _status(self, authorized: bool) -> int:
        trust = ssl.create_default_context(cafile=str(self.authority))
        connection = _ByAddress(REGISTRY_NAME, PORT, timeout=10, context=trust)
        token = b64encode(f"{USER}:{self.password}".encode()).decode()
        try:
            connection.request("GET", "/v2/", headers={"Authorization": f"Basic {token}"} if authorized else {})
            return connection.getresponse().status
        finally:
            connection.close()

    def _current(self) -> bool:
        """Whether certificates are there that stay good for a while."""
        check = f"openssl x509 -checkend {_SPARE_SECONDS} -noout -in {_INSIDE}/cert.pem"
        command = self.machine.command(["sh", "-c", check])
        return self.password != "" and not subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode

    def _run(self, script: str, name: str = "", password: str = "") -> None:
        """A shell script in the machine, with a name as its argument and a password on its stdin."""
        command = self.machine.command(["sh", "-c", script, "sh", name])
        with self.log.open("ab") as log:
            done = subprocess.run(command, input=password.encode(), stdout=log, stderr=log, check=False)
        if done.returncode:
            raise StepError(f"the private registry of {self.machine.name} could not be prepared", self.log)

    @property
    def _configuration_file(self) -> Path:
        return self.directory / "config.yml"

    def _builder_configuration(self) -> str:
        """A buildkitd.toml for builders on the engine's own network, which has the registry's name."""
        return f'[registry."{ADDRESS}"]\n  ca = [{json.dumps(str(self.authority))}]\n'


class _ByAddress(http.client.HTTPSConnection):
    """A connection to the loopback address, whatever the name means to this machine; TLS checks the name."""

    def connect(self) -> None:
        name, self.host = self.host, "127.0.0.1"
        try:
            http.client.HTTPConnection.connect(self)
        finally:
            self.host = name
        self.sock = self._context.wrap_socket(self.sock, server_hostname=name)  # type: ignore[attr-defined]


def _configuration() -> str:
    """JSON is YAML too."""
    return json.dumps(
        {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": f"{_INSIDE}/storage"}, "delete": {"enabled": True}},
            "http": {
                "addr": f":{PORT}",
                "tls": {"certificate": f"{_INSIDE}/cert.pem", "key": f"{_INSIDE}/key.pem"},
            },
            "auth": {"htpasswd": {"realm": "lab", "path": f"{_INSIDE}/htpasswd"}},
            "log": {"level": "info"},
        }
    )
