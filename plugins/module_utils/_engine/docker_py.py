# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""docker-py's client of an engine, and what it raises."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, EngineUnreachable

from .contexts import Target, Tls
from .questions import silent, unreachable

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._relay import Relay
    from ansible_collections.buildfleet.buildx.plugins.module_utils._sockets import Program


class DockerPy:
    """The client of one engine, made when it is first needed, and what its errors mean."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._api: Optional[Any] = None
        self._relay: Optional[Relay] = None
        self._program: Optional[Program] = None

    @property
    def api(self) -> Any:
        """A docker.APIClient. Raises EngineError and MissingLibrary."""
        if self._api is None:
            self._api = self._connect()
        return self._api

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    def _connect(self) -> Any:
        docker, target = require("docker"), self._target
        tls: object = _tls_config(docker, target.tls) if target.tls else False
        host = target.host
        if host.startswith("ssh:") and target.use_ssh_client:
            # docker-py wants paramiko even for the ssh program.
            from ansible_collections.buildfleet.buildx.plugins.module_utils._relay import Relay

            self._relay = Relay(self._log_in)
            host = f"unix://{self._relay.path}"
        with self.errors("reach the engine"):
            return docker.APIClient(
                base_url=host,
                version=target.api_version,
                timeout=target.timeout,
                tls=tls,
                use_ssh_client=target.use_ssh_client,
            )

    def _log_in(self) -> socket.socket:
        from .remote import ssh_program

        self._program = ssh_program(self._target.host)
        return self._program.socket

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """See `Engine.errors`."""
        docker, requests = require("docker"), require("requests")
        try:
            yield
        except docker.errors.APIError as exc:
            status = exc.status_code
            raise EngineError(f"could not {what}: {exc.explanation or exc}", status=status) from exc
        except requests.exceptions.Timeout as exc:
            raise silent(what, self._target) from exc
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
            words = (self._program.said.strip() if self._program else "") or _innermost(exc)
            if str(exc).startswith("Credentials store error"):
                raise EngineError(
                    f"could not {what}: the registry's credentials cannot be had: {words}",
                    hint="The user's docker config.json names this program in credsStore or credHelpers: install it on "
                    "the target, or take the line out.",
                ) from exc
            hint = EngineUnreachable.ADVICE
            if "Not supported URL scheme" in words:
                hint = (
                    "The Python library docker before 7.1 does not work with requests 2.32 and newer: upgrade docker."
                )
            raise unreachable(what, self._target, words, hint) from exc


def _tls_config(docker: Any, tls: Tls) -> object:
    class Config(docker.tls.TLSConfig):  # type: ignore[misc]  # docker is imported late
        def configure_client(self, client: Any) -> None:
            super().configure_client(client)
            adapter = client.get_adapter("https://engine")
            send = adapter.send
            # requests lets $REQUESTS_CA_BUNDLE win over what a session was told of certificates.
            adapter.send = lambda request, **how: send(request, **{**how, "verify": client.verify})

    tls.check()
    return Config(client_cert=(tls.cert, tls.key) if tls.cert else None, ca_cert=tls.ca, verify=tls.verify)


def _innermost(exc: BaseException) -> str:
    """The words of the cause that lies deepest: the layers above only repeat it in brackets."""
    seen = exc
    for _depth in range(8):
        inner = seen.__cause__ or seen.__context__
        if inner is None:
            break
        seen = inner
    text = getattr(seen, "strerror", None) or str(seen)
    return text or type(seen).__name__
