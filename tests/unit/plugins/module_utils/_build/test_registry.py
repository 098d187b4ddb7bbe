# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry has under a name (DESIGN §4.8), from a real HTTP server."""

from __future__ import annotations

import contextlib
import hashlib
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._build import registry, web
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credentials import Keychain
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.registry import INDEXES, State, normalised
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.web import Settings
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import RegistryError

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Asked, HttpServer, Reply
PLAIN = Settings()
IMAGE = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {}, "layers": []}
ATTESTED = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": "sha256:aa"}


def descriptor(digest: str, platform: str = "linux/amd64", **others: Any) -> dict[str, Any]:
    system, _slash, architecture = platform.partition("/")
    return {"digest": f"sha256:{digest}", "platform": {"os": system, "architecture": architecture}, **others}


def index(*manifests: dict[str, Any], **others: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": manifests, **others}).encode()


def attestation(digest: str) -> dict[str, Any]:
    return descriptor(digest, "unknown/unknown", annotations=ATTESTED)


def state(server: HttpServer, directory: Path, name: str = "a/b:c", settings: Settings = PLAIN) -> State | None:
    return registry.state(f"{server.host}/{name}", Keychain(str(directory)), settings, Deadline(10))


def reply(*arguments: Any) -> Reply:
    from .conftest import Reply

    return Reply(*arguments)


def log_in(directory: Path, server: HttpServer, user: str = "me", password: str = "secret") -> None:  # noqa: S107 - of a registry that the test makes
    auths = {server.host: {"username": user, "password": password}}
    (directory / "config.json").write_text(json.dumps({"auths": auths}), encoding="utf-8")


def test_a_single_image_is_its_manifest() -> None:
    body = json.dumps(IMAGE).encode()
    assert normalised(body, "host") == State(digest=f"sha256:{hashlib.sha256(body).hexdigest()}")


def test_an_index_is_its_images() -> None:
    found = normalised(index(descriptor("bb", "linux/arm64"), descriptor("aa"), attestation("cc")), "host")
    assert found == State(platforms=(("linux/amd64", "sha256:aa"), ("linux/arm64", "sha256:bb")))


def test_attestations_and_order_do_not_count() -> None:
    one = index(descriptor("aa"), descriptor("bb", "linux/arm64"), attestation("cc"), attestation("dd"))
    other = index(attestation("ee"), descriptor("bb", "linux/arm64"), descriptor("aa"))
    assert normalised(one, "host") == normalised(other, "host")


@pytest.mark.parametrize(
    "other",
    [
        index(descriptor("bb")),
        index(descriptor("aa", "linux/arm64")),
        index(descriptor("aa"), descriptor("bb", "linux/arm64")),
        index(descriptor("aa"), annotations={"a": "b"}),
        index(),
        json.dumps(IMAGE).encode(),
    ],
)
def test_what_counts(other: bytes) -> None:
    assert normalised(index(descriptor("aa"), attestation("cc")), "host") != normalised(other, "host")


def test_a_list_that_does_not_say_what_it_is() -> None:
    assert normalised(json.dumps({"manifests": [descriptor("aa")]}).encode(), "host").platforms


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["manifests", "mediaType", "digest", "platform", "annotations", "os", "x"]), inner
        )
    ),
    max_leaves=15,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20))
def test_whatever_a_registry_says(body: bytes) -> None:
    with contextlib.suppress(RegistryError):
        hash(normalised(body, "host"))


def test_a_registry_without_questions(server: HttpServer, tmp_path: Path) -> None:
    server.answer = lambda asked: reply(200, index(descriptor("aa")))
    assert state(server, tmp_path) == State(platforms=(("linux/amd64", "sha256:aa"),))
    assert server.asked[0].path == "/v2/a/b/manifests/c"
    assert "application/vnd.oci.image.index.v1+json" in server.asked[0].headers["accept"]


@pytest.mark.parametrize(
    ("name", "path"),
    [("a", "/v2/a/manifests/latest"), (f"a@sha256:{'0' * 64}", f"/v2/a/manifests/sha256:{'0' * 64}")],
)
def test_where_it_looks(server: HttpServer, tmp_path: Path, name: str, path: str) -> None:
    server.answer = lambda asked: reply(404)
    assert state(server, tmp_path, name) is None
    assert server.asked[0].path == path


def test_basic(server: HttpServer, tmp_path: Path) -> None:
    proof = "Basic " + b64encode(b"me:secret").decode()

    def answer(asked: Asked) -> Reply:
        if asked.headers.get("authorization") == proof:
            return reply(404)
        return reply(401, b"", (("WWW-Authenticate", 'Basic realm="x"'),))

    server.answer = answer
    log_in(tmp_path, server)
    assert state(server, tmp_path) is None
    log_in(tmp_path, server, password="wrong")
    with pytest.raises(RegistryError, match=f"the registry {server.host} refused .*: 401") as caught:
        state(server, tmp_path)
    assert "wrong" not in str(caught.value)
    assert "credentials" in str(caught.value.hint)


def test_bearer(server: HttpServer, other_server: HttpServer, tmp_path: Path) -> None:
    """The password goes to the token server, and the registry sees its token alone."""
    offer = f'Bearer realm="{other_server.url}/token",service="s",scope="repository:a/b:pull repository:x:pull"'
    others = (("WWW-Authenticate", 'Basic realm="old"'), ("WWW-Authenticate", offer))

    def answer(asked: Asked) -> Reply:
        return reply(404) if asked.headers.get("authorization") == "Bearer t" else reply(401, b"", others)

    server.answer = answer
    other_server.answer = lambda asked: reply(200, b'{"token": "t"}')
    log_in(tmp_path, server)
    assert state(server, tmp_path) is None
    assert "password=secret" in other_server.asked[0].body
    assert "scope=repository%3Aa%2Fb%3Apull+repository%3Ax%3Apull" in other_server.asked[0].body


def test_anonymous_where_a_password_is_wanted(server: HttpServer, tmp_path: Path) -> None:
    body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}'
    server.answer = lambda asked: reply(401, body, (("WWW-Authenticate", 'Basic realm="x"'),))
    with pytest.raises(RegistryError, match="401: who are you"):
        state(server, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("answer", [(500,), (200, b"<html>"), (403,), (401,)])
def test_no_answer_is_no_absence(server: HttpServer, tmp_path: Path, answer: tuple[Any, ...]) -> None:
    server.answer = lambda asked: reply(*answer)
    with pytest.raises(RegistryError):
        state(server, tmp_path)


def test_insecure_falls_back_to_plain_http_on_this_machine(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "SILENCE_SECONDS", 0.2)  # this server waits for the end of a line
    server.answer = lambda asked: reply(404)
    assert state(server, tmp_path, settings=Settings(insecure=True)) is None
    with pytest.raises(RegistryError):
        state(server, tmp_path, settings=Settings(http=False))


@pytest.mark.parametrize(
    ("host", "settings", "expected"),
    [
        ("registry.example.com", Settings(), ("https",)),
        ("registry.example.com:5000", Settings(http=True), ("http",)),
        ("registry.example.com", Settings(insecure=True), ("https",)),
        ("registry.example.com", Settings(http=True, insecure=True), ("https", "http")),
        ("localhost:5000", Settings(), ("http",)),
        ("127.0.0.1", Settings(), ("http",)),
        ("127.9.9.9:5000", Settings(), ("http",)),
        ("[::1]:5000", Settings(), ("http",)),
        ("localhost", Settings(http=False), ("https",)),
        ("localhost", Settings(insecure=True), ("https", "http")),
        ("localhost.example.com", Settings(), ("https",)),
        ("192.168.0.1:5000", Settings(), ("https",)),
    ],
)
def test_schemes(host: str, settings: Settings, expected: tuple[str, ...]) -> None:
    assert registry.schemes(host, settings) == expected


@pytest.mark.parametrize("domain", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_the_public_registry_has_another_address(domain: str) -> None:
    assert registry.registry_host(domain) == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("Basic", {"basic": {}}),
        ('Basic realm="a b"', {"basic": {"realm": "a b"}}),
        (
            'Bearer realm="https://x/y?z=1,2",service="s, t",scope="a:b:pull,push"',
            {"bearer": {"realm": "https://x/y?z=1,2", "service": "s, t", "scope": "a:b:pull,push"}},
        ),
        ("bearer realm=plain, Service = s", {"bearer": {"realm": "plain", "service": "s"}}),
        (r'Basic realm="a\"b", Bearer realm="c"', {"basic": {"realm": 'a"b'}, "bearer": {"realm": "c"}}),
        ("Negotiate, Basic realm=x", {"negotiate": {}, "basic": {"realm": "x"}}),
        ('realm="no scheme"', {}),
        ('Bearer realm="never ends', {"bearer": {}}),
    ],
)
def test_challenges(text: str, expected: dict[str, dict[str, str]]) -> None:
    found = registry.challenges(text)
    assert {scheme: found.get(scheme) for scheme in expected} == expected
    assert set(found) >= set(expected)


@given(st.text(max_size=60))
def test_any_challenge(text: str) -> None:
    registry.challenges(text)
