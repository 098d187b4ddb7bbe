# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Questions to an engine's API that have one small answer in JSON: the inspects, and the making of an exec.

A run without change asks nothing else, and importing docker-py would be the largest part of its start-up (DESIGN
§4.13). docker-py has all the rest: streams, archives, what changes something, and engines behind ssh.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import EngineError, EngineUnreachable

from .contexts import Target
from .raw import open_socket


class _Connection(http.client.HTTPConnection):
    def __init__(self, target: Target) -> None:
        super().__init__("docker", timeout=target.timeout)
        self._target = target

    def connect(self) -> None:
        self.sock = open_socket(self._target)
        self.sock.settimeout(self._target.timeout)


class Questions:
    """One connection, which is kept: behind TLS each new one would cost more than the question. Threads take turns."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = _Connection(target)
        self._lock = threading.Lock()

    def close(self) -> None:
        self._connection.close()

    def ask(self, what: str, method: str, path: str, body: Optional[Mapping[str, object]]) -> tuple[int, bytes]:
        """The status and body of the answer. `what` completes the sentence "could not …". Raises EngineUnreachable."""
        try:
            with self._lock:
                return self._exchange(method, path, body)
        except EngineUnreachable as exc:
            raise EngineUnreachable(f"could not {what}: {exc}", hint=exc.hint) from exc
        except socket.timeout as exc:
            raise silent(what, self._target) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise unreachable(what, self._target, getattr(exc, "strerror", None) or str(exc)) from exc

    def _exchange(self, method: str, path: str, body: Optional[Mapping[str, object]]) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body)
        kept = self._connection.sock is not None
        try:
            return self._once(method, path, content)
        except ConnectionError:
            if not kept:
                raise
        # The engine, or something in between, gave up a connection that was not used: it has not seen the question.
        return self._once(method, path, content)

    def _once(self, method: str, path: str, content: Optional[str]) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self._connection.close()  # an answer that comes late would be taken for the next one's
            raise


def silent(what: str, target: Target) -> EngineUnreachable:
    """The error for an engine that takes too long; `what` completes the sentence "could not …"."""
    return EngineUnreachable(
        f"could not {what}: the engine at {target.host} gave no answer within {target.timeout} s",
        hint="Raise timeout, or see what keeps the engine busy.",
    )


def unreachable(what: str, target: Target, words: str, hint: str = EngineUnreachable.ADVICE) -> EngineUnreachable:
    """The error for an engine that is not there, or is none."""
    return EngineUnreachable(f"could not {what}: no Docker engine answers at {target.host}: {words}", hint=hint)


def decoded(what: str, status: int, content: bytes) -> Any:
    """The answer's JSON. Raises EngineError with the status and the engine's own words when it refuses."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except ValueError as exc:
        if status < 400:
            raise EngineError(f"could not {what}: the engine's answer is no JSON: {text[:100]!r}") from exc
        found = None
    if status < 400:
        return found
    words = found.get("message") if isinstance(found, dict) else None
    raise EngineError(f"could not {what}: {words or text.strip() or f'status {status}'}", status=status)
