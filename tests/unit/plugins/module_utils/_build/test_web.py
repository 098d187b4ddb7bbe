# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP with registries: bounded, and careful with whom it tells what."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import web
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.web import Settings, Web
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from .conftest import Asked, HttpServer, Reply
SECRET = {"Authorization": "Basic c2VjcmV0"}


def reply(*arguments: object, **named: object) -> Reply:
    from .conftest import Reply

    return Reply(*arguments, **named)  # type: ignore[arg-type]


def test_an_answer(server: HttpServer) -> None:
    server.answer = lambda asked: reply(418, b"tea", (("X-Word", "a"), ("X-Word", "b")))
    answer = Web(Settings()).get(f"{server.url}/path?query", {"Accept": "x"}, Deadline(5))
    assert (answer.status, answer.body, answer.headers["x-word"]) == (418, b"tea", "a, b")
    assert server.asked[0].headers["accept"] == "x"


def test_a_form(server: HttpServer) -> None:
    Web(Settings()).post(server.url, {"a": "1 2", "b": "&"}, Deadline(5))
    assert (server.asked[0].method, server.asked[0].body) == ("POST", "a=1+2&b=%26")


def test_another_origin_is_not_told_who_we_are(server: HttpServer, other_server: HttpServer) -> None:
    server.answer = lambda asked: reply(307, b"", (("Location", f"{other_server.url}/there"),))
    assert Web(Settings()).get(server.url, SECRET, Deadline(5)).status == 200
    assert "authorization" in server.asked[0].headers
    assert "authorization" not in other_server.asked[0].headers


def test_the_same_origin_is(server: HttpServer) -> None:
    def answer(asked: Asked) -> Reply:
        return reply() if asked.path == "/there" else reply(302, b"", (("Location", "/there"),))

    server.answer = answer
    Web(Settings()).get(server.url, SECRET, Deadline(5))
    assert [asked.headers.get("authorization") for asked in server.asked] == [SECRET["Authorization"]] * 2


def test_round_and_round(server: HttpServer) -> None:
    server.answer = lambda asked: reply(302, b"", (("Location", "/"),))
    with pytest.raises(RegistryError, match="redirects too often"):
        Web(Settings()).get(server.url, {}, Deadline(5))
    assert len(server.asked) == web.MOST_REDIRECTS


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http:///nohost", "http://[::1"])
def test_a_redirect_to_something_else(server: HttpServer, location: str) -> None:
    server.answer = lambda asked: reply(302, b"", (("Location", location),))
    with pytest.raises(RegistryError):
        Web(Settings()).get(server.url, {}, Deadline(5))


def test_netrc_is_not_ours(server: HttpServer, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(f"{tmp_path}/.netrc", "w") as stream:
        stream.write("machine 127.0.0.1 login x password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    Web(Settings()).get(server.url, {}, Deadline(5))
    assert "authorization" not in server.asked[0].headers


def test_too_large(server: HttpServer) -> None:
    server.answer = lambda asked: reply(200, b"x" * (web.LARGEST + 1))
    with pytest.raises(RegistryError, match="is larger than 4 MiB"):
        Web(Settings()).get(server.url, {}, Deadline(30))


def test_an_answer_that_drips(server: HttpServer) -> None:
    """Each read is in time, the whole is not."""
    clock = iter(range(1000))
    server.answer = lambda asked: reply(200, b"x" * (web.CHUNK * 8))
    with pytest.raises(RegistryError, match="did not come within 5 s"):
        Web(Settings()).get(server.url, {}, Deadline(5, lambda: float(next(clock))))


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/path?secret"
        with pytest.raises(RegistryError, match="/path does not answer: timed out") as caught:
            Web(Settings()).get(url, {}, Deadline(5))
    assert "secret" not in str(caught.value)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RegistryError, match=f"http://127.0.0.1:{port} does not answer: .*refused"):
        Web(Settings()).get(f"http://127.0.0.1:{port}", {}, Deadline(5))


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1", "http://127.0.0.1:secret", "secret", "http://[secret"])
def test_what_is_no_address(url: str) -> None:
    """The address of a token server comes from the registry."""
    for send in (Web(Settings()).get, Web(Settings()).post):
        with pytest.raises(RegistryError, match="an address that is none of HTTP") as caught:
            send(url, {}, Deadline(5))
        assert "secret" not in str(caught.value)


def test_https_from_a_server_without(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SILENCE_SECONDS", 0.2)  # it waits for the end of a line
    with pytest.raises(RegistryError, match="does not answer"):
        Web(Settings(insecure=True)).get(server.url.replace("http", "https"), {}, Deadline(5))


@pytest.mark.parametrize("settings", [Settings(ca=("no PEM",)), Settings(keypairs=(("no PEM", "secret"),))])
def test_settings_that_cannot_be_used(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="certificate or key") as caught:
        Web(settings)
    assert "secret" not in f"{caught.value} {settings!r}"
