# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Bearer tokens: what a registry's token server gives for credentials (wire §9.3)."""

from __future__ import annotations

import json
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import RegistryError

from .credentials import Login
from .web import Answer, UntrustedError, Web

CLIENT_ID = "buildkit-client"
PAUSES = (1.0, 2.0, 4.0)
"""Seconds before a request is repeated that the server could not answer, as the CLI does since 0.38 (buildx §5.11)."""
NO_SUCH_FORM = (401, 404, 405)
"""What servers say that know the older GET alone; 405 counts for a user's password only."""


class Ask(NamedTuple):
    """Which token: the words of a registry's `WWW-Authenticate: Bearer`, and who asks."""

    realm: str
    service: str
    scopes: Sequence[str]
    client_id: str = CLIENT_ID


class Token(NamedTuple):
    """A token. expires_in: seconds, 0: not said. issued_at: Unix time in seconds, 0: not said."""

    text: str
    expires_in: int = 0
    issued_at: int = 0

    def __repr__(self) -> str:
        """Without the token."""
        return f"Token(expires_in={self.expires_in}, issued_at={self.issued_at})"


def fetch(ask: Ask, login: Login, web: Web, deadline: Deadline, sleep: Callable[[float], None] = time.sleep) -> Token:
    """The token that the realm gives. Raises RegistryError, with the server's words and no secret."""
    if login.registry_token:
        return Token(login.registry_token)
    return _token(_repeated(lambda: _answer(ask, login, web, deadline), deadline, sleep), ask)


def _answer(ask: Ask, login: Login, web: Web, deadline: Deadline) -> Answer:
    if login.secret:
        answer = web.post(ask.realm, _form(ask, login), deadline)
        if answer.status not in NO_SUCH_FORM or (answer.status == 405 and not login.username):
            return answer
    return web.get(_address(ask), _basic(login), deadline)


def _form(ask: Ask, login: Login) -> dict[str, str]:
    form = {"service": ask.service, "client_id": ask.client_id}
    if ask.scopes:
        form["scope"] = " ".join(ask.scopes)
    if login.username:
        return {**form, "grant_type": "password", "username": login.username, "password": login.secret}
    return {**form, "grant_type": "refresh_token", "refresh_token": login.secret}


def _address(ask: Ask) -> str:
    words = [("service", ask.service)] if ask.service else []
    query = urllib.parse.urlencode([*words, *(("scope", scope) for scope in ask.scopes)])
    return f"{ask.realm}{'&' if '?' in ask.realm else '?'}{query}" if query else ask.realm


def _basic(login: Login) -> dict[str, str]:
    if not login.secret:
        return {}
    return {"Authorization": basic(login)}


def basic(login: Login) -> str:
    """The value of `Authorization` for a user and a password."""
    return "Basic " + b64encode(f"{login.username}:{login.secret}".encode()).decode()


def _repeated(answer: Callable[[], Answer], deadline: Deadline, sleep: Callable[[float], None]) -> Answer:
    """Ask again, with pauses, while the server is broken or cannot be heard."""
    for pause in PAUSES:
        try:
            found = answer()
        except UntrustedError:  # a certificate does not become better
            raise
        except RegistryError:
            if deadline.within(pause) < pause:
                raise
        else:
            if found.status < 500 or deadline.within(pause) < pause:
                return found
        sleep(pause)
    return answer()


def _token(answer: Answer, ask: Ask) -> Token:
    place = urllib.parse.urlsplit(ask.realm).hostname
    document = _object(answer.body)
    if answer.status != 200:
        raise RegistryError(
            f"failed to fetch a token from {place}: {answer.status}{_words(document)}",
            hint="Check the credentials for this registry in docker's configuration on the target.",
            status=answer.status,
        )
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str):
        raise RegistryError(f"{place} answered without a token")
    expires = document.get("expires_in")
    return Token(text, expires if isinstance(expires, int) else 0, _moment(document.get("issued_at")))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(document: dict[str, Any]) -> str:
    """What a server says of an error, in either of the two forms that are in use."""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    words = document.get("error_description") or document.get("details") or first.get("message")
    return f": {words[:200]}" if isinstance(words, str) else ""


def _moment(text: object) -> int:
    """RFC 3339 as Unix time, 0 for what is none; fractions of a second, of any length, are left out."""
    if not isinstance(text, str):
        return 0
    head, tail = text[:19], text[19:].lstrip(".0123456789")
    zone = "+00:00" if tail in ("", "Z", "z") else tail
    try:
        return int(datetime.fromisoformat(head + zone).astimezone(timezone.utc).timestamp())
    except ValueError:
        return 0
