# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens of registries, from a real token server (buildkit-wire.md §9.3)."""

from __future__ import annotations

import json
import urllib.parse
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import tokens
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credentials import Login
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.tokens import Ask, Token
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.web import Settings, Web
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Asked, HttpServer, Reply
USER = Login("me", "secret")
IDENTITY = Login("", "secret")
SCOPES = ("repository:a/b:pull,push", "repository:c:pull")


def answering(status: int = 200, **document: Any) -> Callable[[Asked], Reply]:
    from .conftest import Reply

    return lambda asked: Reply(status, json.dumps(document).encode())


def fetch(server: HttpServer, login: Login, seconds: float = 60, pauses: list[float] | None = None) -> Token:
    slept: list[float] = [] if pauses is None else pauses
    ask = Ask(f"{server.url}/token", "the service", SCOPES)
    return tokens.fetch(ask, login, Web(Settings()), Deadline(seconds), slept.append)


def form(asked: Asked) -> dict[str, list[str]]:
    return urllib.parse.parse_qs(asked.body)


def test_nobody_asks(server: HttpServer) -> None:
    server.answer = answering(token="t", expires_in=300, issued_at="2026-01-02T03:04:05.678901234Z")
    assert fetch(server, Login()) == Token("t", 300, 1767323045)
    asked = server.asked[0]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(asked.path).query)
    assert (asked.method, query) == ("GET", {"service": ["the service"], "scope": list(SCOPES)})
    assert "authorization" not in asked.headers


def test_a_user_asks(server: HttpServer) -> None:
    server.answer = answering(access_token="t")
    assert fetch(server, USER) == Token("t", 0, 0)
    assert form(server.asked[0]) == {
        "grant_type": ["password"],
        "service": ["the service"],
        "client_id": ["buildkit-client"],
        "scope": [" ".join(SCOPES)],
        "username": ["me"],
        "password": ["secret"],
    }


def test_an_identity_token_asks(server: HttpServer) -> None:
    server.answer = answering(access_token="t")
    fetch(server, IDENTITY)
    asked = form(server.asked[0])
    assert (asked["grant_type"], asked["refresh_token"]) == (["refresh_token"], ["secret"])
    assert "username" not in asked


def test_a_registry_token_is_shown_as_it_is(server: HttpServer) -> None:
    assert fetch(server, Login("", "", "bearer")) == Token("bearer")
    assert server.asked == []


@pytest.mark.parametrize("status", [401, 404, 405])
def test_servers_that_know_the_older_way_alone(server: HttpServer, status: int) -> None:
    old, new = answering(status), answering(token="t")
    server.answer = lambda asked: (old if asked.method == "POST" else new)(asked)
    assert fetch(server, USER).text == "t"
    kind, _space, word = server.asked[1].headers["authorization"].partition(" ")
    assert (kind, b64decode(word)) == ("Basic", b"me:secret")


def test_no_older_way_for_an_identity_token(server: HttpServer) -> None:
    server.answer = answering(405)
    with pytest.raises(RegistryError, match="405"):
        fetch(server, IDENTITY)
    assert [asked.method for asked in server.asked] == ["POST"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"details": "wrong password"}, "401: wrong password"),
        ({"error": "x", "error_description": "wrong password"}, "401: wrong password"),
        ({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}, "401: wrong password"),
        ({"errors": "odd"}, "401"),
    ],
)
def test_refused(server: HttpServer, document: dict[str, Any], words: str) -> None:
    server.answer = answering(401, **document)
    with pytest.raises(RegistryError, match=f"failed to fetch a token from 127.0.0.1: {words}") as caught:
        fetch(server, USER)
    assert "credentials" in str(caught.value.hint)
    assert "secret" not in str(caught.value)


def test_a_server_that_recovers_is_asked_again(server: HttpServer) -> None:
    statuses = iter((503, 500, 200))

    def answer(asked: Asked) -> Reply:
        return answering(next(statuses), token="t")(asked)

    server.answer = answer
    pauses: list[float] = []
    assert fetch(server, Login(), pauses=pauses).text == "t"
    assert pauses == [1.0, 2.0]


def test_a_server_that_stays_broken(server: HttpServer) -> None:
    server.answer = answering(502)
    pauses: list[float] = []
    with pytest.raises(RegistryError, match="502"):
        fetch(server, Login(), pauses=pauses)
    assert pauses == [1.0, 2.0, 4.0]
    assert len(server.asked) == 4


def test_no_pause_is_longer_than_the_time_that_is_left(server: HttpServer) -> None:
    server.answer = answering(502)
    pauses: list[float] = []
    with pytest.raises(RegistryError, match="502"):
        fetch(server, Login(), seconds=0.9, pauses=pauses)
    assert pauses == []


@pytest.mark.parametrize("document", [{}, {"token": 7}, {"token": None, "access_token": ["t"]}])
def test_an_answer_without_a_token(server: HttpServer, document: dict[str, Any]) -> None:
    server.answer = answering(**document)
    with pytest.raises(RegistryError, match="answered without a token"):
        fetch(server, Login())


@pytest.mark.parametrize(
    ("issued_at", "expected"),
    [
        ("2026-01-02T03:04:05Z", 1767323045),
        ("2026-01-02T04:04:05.5+01:00", 1767323045),
        ("2026-01-02T03:04:05", 1767323045),
        ("soon", 0),
        ("", 0),
        (1767323045, 0),
    ],
)
def test_when_a_token_was_given(server: HttpServer, issued_at: object, expected: int) -> None:
    server.answer = answering(token="t", issued_at=issued_at)
    assert fetch(server, Login()).issued_at == expected


def test_a_realm_with_a_query(server: HttpServer) -> None:
    server.answer = answering(token="t")
    ask = Ask(f"{server.url}/token?a=b", "", ())
    tokens.fetch(ask._replace(service="s"), Login(), Web(Settings()), Deadline(5))
    tokens.fetch(ask, Login(), Web(Settings()), Deadline(5))
    assert [asked.path for asked in server.asked] == ["/token?a=b&service=s", "/token?a=b"]


def test_a_token_is_in_no_representation() -> None:
    assert "secret" not in repr(Token("secret", 1, 2))
