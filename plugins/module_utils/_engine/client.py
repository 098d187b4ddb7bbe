# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The connection to one engine: short questions, docker-py's client when it is first needed, and their errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import expect, require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, EngineUnreachable

from .contexts import Target, Tls
from .questions import Questions, decoded, silent, unreachable
from .raw import api_prefix

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._relay import Relay
    from ansible_collections.buildfleet.buildx.plugins.module_utils._sockets import Program


class Engine:
    """One Docker engine. Use it as a context manager: leaving it closes the connections.

    `api` is docker-py's low-level client; only this room calls it, each call under `errors`.
    """

    def __init__(self, target: Target) -> None:
        """Raises MissingLibrary, whether docker-py will be needed or not: not in the middle of something."""
        expect("docker")
        self.target = target
        self._api: Optional[Any] = None
        self._relay: Optional[Relay] = None
        self._program: Optional[Program] = None
        self._questions = Questions(target)
        self._info: Optional[dict[str, Any]] = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        self._questions.close()

    @property
    def api(self) -> Any:
        if self._api is None:
            self._api = self._connect()
        return self._api

    def _connect(self) -> Any:
        docker = require("docker")
        target = self.target
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

        self._program = ssh_program(self.target.host)
        return self._program.socket

    def ask(
        self, what: str, method: str, path: str, body: Optional[Mapping[str, object]] = None, *, newest: bool = False
    ) -> Any:
        """The answer to a question of the API, decoded; errors are those of `errors`.

        newest: in the newest version that the engine has, even if the user asked for another one.
        """
        path = ("" if newest else api_prefix(self.target.api_version)) + path
        if self.target.host.startswith("ssh:"):
            # There each connection is a login, which docker-py's pool has made already.
            with self.errors(what):
                answer = self.api.request(method, self.api.base_url + path, json=body, timeout=self.target.timeout)
                return decoded(what, answer.status_code, answer.content)
        return decoded(what, *self._questions.ask(what, method, path, body))

    def look(self, what: str, path: str) -> Optional[dict[str, Any]]:
        """What the engine has at a path of the API, None when there is nothing."""
        try:
            found: dict[str, Any] = self.ask(what, "GET", path)
        except EngineError as exc:
            if exc.details.get("status") == 404:
                return None
            raise
        return found

    def info(self) -> dict[str, Any]:
        """The engine's `/info`, asked once."""
        if self._info is None:
            self._info = dict(self.ask("ask the engine for its settings", "GET", "/info"))
        return self._info

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn what docker-py raises into EngineError; `what` completes the sentence "could not …".

        EngineUnreachable: no answer. Otherwise details.status is the HTTP status, and the message ends
        with the engine's own words.
        """
        docker, requests = require("docker"), require("requests")
        try:
            yield
        except docker.errors.APIError as exc:
            status = exc.status_code
            raise EngineError(f"could not {what}: {exc.explanation or exc}", status=status) from exc
        except requests.exceptions.Timeout as exc:
            raise silent(what, self.target) from exc
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
            raise unreachable(what, self.target, words, hint) from exc


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
