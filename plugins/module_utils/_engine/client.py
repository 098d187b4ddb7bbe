# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The connection to one engine: short questions, and docker-py's client when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import expect
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError

from .contexts import Target
from .questions import Questions, decoded
from .raw import api_prefix

if TYPE_CHECKING:
    from .docker_py import DockerPy


class Engine:
    """One Docker engine. Use it as a context manager: leaving it closes the connections.

    `api` is docker-py's low-level client; only this room calls it, each call under `errors`.
    """

    def __init__(self, target: Target) -> None:
        """Raises MissingLibrary, whether docker-py will be needed or not: not in the middle of something."""
        expect("docker")
        self.target = target
        self._docker_py: Optional[DockerPy] = None
        self._questions = Questions(target)
        self._info: Optional[dict[str, Any]] = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if self._docker_py is not None:
            self._docker_py.close()
            self._docker_py = None
        self._questions.close()

    @property
    def api(self) -> Any:
        return self._library().api

    def _library(self) -> DockerPy:
        if self._docker_py is None:
            from .docker_py import DockerPy

            self._docker_py = DockerPy(self.target)
        return self._docker_py

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

    def errors(self, what: str) -> AbstractContextManager[None]:
        """Turn what docker-py raises into EngineError; `what` completes the sentence "could not …".

        EngineUnreachable: no answer. Otherwise details.status is the HTTP status, and the message ends
        with the engine's own words.
        """
        return self._library().errors(what)
