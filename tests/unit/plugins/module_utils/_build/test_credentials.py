# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials as docker's configuration has them (buildkit-wire.md §9.4)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credentials import HUB_KEY, Keychain, Login
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

HOST = "registry.example.com:5000"


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def login(directory: Path, host: str = HOST, overlay: str | None = None, **config: Any) -> Login:
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Keychain(str(directory), overlay).login(host, Deadline(5))


def test_no_configuration_is_anonymous(tmp_path: Path) -> None:
    found = Keychain(str(tmp_path / "nowhere")).login(HOST, Deadline(5))
    assert found == Login()
    assert found.anonymous


@pytest.mark.parametrize(
    ("host", "key"),
    [
        (HOST, HOST),
        (HOST, f"https://{HOST}"),
        (HOST, f"http://{HOST}/v2/"),
        ("ghcr.io", "ghcr.io"),
        ("ghcr.io", "https://ghcr.io/some/path"),
        ("registry-1.docker.io", HUB_KEY),
        ("registry-1.docker.io", "docker.io"),
        ("registry-1.docker.io", "index.docker.io"),
        ("registry-1.docker.io", "https://index.docker.io/v1"),
        ("docker.io", HUB_KEY),
    ],
)
def test_forms_of_a_key(tmp_path: Path, host: str, key: str) -> None:
    auths = {"other.example.com": {"auth": encoded("x", "y")}, key: {"auth": encoded("me", "pass:word")}}
    assert login(tmp_path, host, auths=auths) == Login("me", "pass:word")


@pytest.mark.parametrize("key", ["registry.example.com", "registry.example.com:5001", f"x{HOST}", "https://"])
def test_another_host_is_another_host(tmp_path: Path, key: str) -> None:
    assert login(tmp_path, auths={key: {"auth": encoded("me", "secret")}}).anonymous


def test_the_exact_key_comes_first(tmp_path: Path) -> None:
    auths = {f"https://{HOST}/": {"auth": encoded("url", "1")}, HOST: {"auth": encoded("exact", "2")}}
    assert login(tmp_path, auths=auths) == Login("exact", "2")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "me", "password": "secret"}, Login("me", "secret")),
        ({"auth": encoded("zero", "secret\0\0")}, Login("zero", "secret")),
        ({"auth": encoded("0000", ""), "identitytoken": "refresh"}, Login("", "refresh")),
        ({"registrytoken": "bearer"}, Login("", "", "bearer")),
        ({"auth": "", "username": None, "email": 7}, Login()),
        ({}, Login()),
    ],
)
def test_fields_of_an_entry(tmp_path: Path, entry: dict[str, Any], expected: Login) -> None:
    assert login(tmp_path, auths={HOST: entry}) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"auths": {HOST: {"auth": "c2VjcmV0"}}},  # no colon
        {"auths": {HOST: {"auth": "secret!"}}},
        {"auths": {HOST: {"auth": encoded("", "secret")}}},
        {"auths": {HOST: {"auth": base64.b64encode(b"\xff\xfe:secret").decode()}}},
        {"auths": {HOST: {"username": "me", "password": ["secret"]}}},
        {"auths": {HOST: "secret"}},
        {"auths": ["secret"]},
        {"credHelpers": "secret"},
    ],
)
def test_what_cannot_be_read_is_told_without_it(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        login(tmp_path, **config)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "secret" not in str(caught.value).lower()
    assert "c2VjcmV0" not in str(caught.value)


def test_an_entry_of_another_registry_does_not_matter(tmp_path: Path) -> None:
    auths = {"broken.example.com": {"auth": "?"}, HOST: {"auth": encoded("me", "secret")}}
    assert login(tmp_path, auths=auths) == Login("me", "secret")


def test_the_variable_comes_first(tmp_path: Path) -> None:
    overlay = json.dumps({"auths": {HOST: {"auth": encoded("variable", "1")}}})
    auths = {HOST: {"auth": encoded("file", "2")}, "other": {"auth": encoded("other", "3")}}
    assert login(tmp_path, overlay=overlay, auths=auths) == Login("variable", "1")
    assert login(tmp_path, "other", overlay=overlay, auths=auths) == Login("other", "3")


@pytest.mark.parametrize("text", ["secret", '["secret"]', '{"auths": ["secret"]}', '{"auths": {"HOST": ["secret"]}}'])
def test_a_variable_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="DOCKER_AUTH_CONFIG") as caught:
        login(tmp_path, overlay=text.replace("HOST", HOST))
    assert "secret" not in str(caught.value)


def test_secrets_are_in_no_representation() -> None:
    assert repr(Login("me", "secret", "bearer")) == "Login()"
