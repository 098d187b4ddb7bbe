# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credential helpers, as real programs (buildkit-wire.md §9.4)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credential_helper import ask
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credentials import HUB_KEY, Keychain, Login
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

HOST = "registry.example.com"
GIVES = """printf '{"ServerURL":"x","Username":"me","Secret":"from the helper"}'"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a helper's program on the PATH: install(script, name)."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(script: str, name: str = "test") -> None:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)

    return make


def asked(seconds: float = 10) -> Login:
    return ask("test", HOST, "config.json", Deadline(seconds))


def test_it_is_asked_for_the_registry(install: Install, tmp_path: Path) -> None:
    install(f'echo "$*: $(cat)" > {tmp_path}/asked; {GIVES}')
    assert asked() == Login("me", "from the helper")
    assert (tmp_path / "asked").read_text() == f"get: {HOST}\n"


def test_it_need_not_read_the_question(install: Install) -> None:
    install(f"exec <&-; {GIVES}")
    assert asked() == Login("me", "from the helper")


def test_identity_token(install: Install) -> None:
    install("""echo '{"Username":"<token>","Secret":"refresh"}'""")
    assert asked() == Login("", "refresh")


def test_nothing_known(install: Install) -> None:
    install("echo 'credentials not found in native keychain'; echo noise >&2; exit 1")
    assert asked() == Login()


@pytest.mark.parametrize(
    "script",
    [
        "echo secret",
        "echo '[\"secret\"]'",
        """echo '{"Username":"me"}'""",
        """echo '{"Username":"me","Secret":["secret"]}'""",
        "true",
        "printf '\\377secret'",
        """echo '{"Secret":"secret"}'; exit 3""",
        "echo secret >&2; exit 1",
    ],
)
def test_what_it_prints_is_not_told(install: Install, script: str) -> None:
    install(script)
    with pytest.raises(
        ConfigError, match=r"error getting credentials for registry\.example\.com: docker-credential-test"
    ) as caught:
        asked()
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_the_words_of_a_failure_are_told(install: Install) -> None:
    install("echo 'the vault is locked'; exit 4")
    with pytest.raises(ConfigError, match="ended with exit code 4: the vault is locked") as caught:
        asked()
    assert "docker-credential-test get" in str(caught.value.hint)
    assert "config.json" in str(caught.value.hint)


def test_a_helper_that_hangs_is_ended_with_what_it_started(install: Install, tmp_path: Path) -> None:
    install(f"sleep 600 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(ConfigError, match=r"did not answer within 0\.5 s"):
        asked(0.5)
    wait_for_the_end(tmp_path / "child")


def test_a_helper_is_ended_with_the_build(install: Install, tmp_path: Path) -> None:
    """The one that is asked just now, and the next one at once."""
    install(f"sleep 600 & echo $! > {tmp_path}/child; echo > {tmp_path}/ready; wait")
    (tmp_path / "config.json").write_text('{"credsStore": "test"}', encoding="utf-8")
    keychain = Keychain(str(tmp_path))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(keychain.login, HOST, Deadline(60))
        deadline = time.monotonic() + 10
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        keychain.close()
        with pytest.raises(ConfigError, match="exit code -9"):
            asked.result(10)
    wait_for_the_end(tmp_path / "child")
    with pytest.raises(ConfigError, match="exit code -9"):
        keychain.login(HOST, Deadline(60))


def wait_for_the_end(pidfile: Path) -> None:
    """Of the process in the file, which somebody else reaps."""
    process = Path("/proc") / pidfile.read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    while process.exists() and process.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "what the helper started still runs"
        time.sleep(0.01)


def test_a_helper_that_is_not_there(install: Install) -> None:
    install(GIVES, name="another")
    with pytest.raises(ConfigError, match="docker-credential-test cannot be run: No such file") as caught:
        asked()
    assert "PATH" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["../evil", "/bin/sh", "a\0b"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a credential helper"):
        ask(name, HOST, "config.json", Deadline(1))


def test_which_helper(install: Install, tmp_path: Path) -> None:
    """One for this registry, else the store for all; what the store does not know is not looked for in the file."""
    install("""read key; printf '{"Username":"special","Secret":"%s"}' "$key" """, name="special")
    install("echo 'credentials not found in native keychain'; exit 1", name="store")
    config = {
        "credsStore": "store",
        "credHelpers": {HUB_KEY: "special", "ghcr.io": ""},
        "auths": {HOST: {"username": "me", "password": "in the file"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    keychain = Keychain(str(tmp_path))
    assert keychain.login("registry-1.docker.io", Deadline(10)) == Login("special", HUB_KEY)
    assert keychain.login(HOST, Deadline(10)).anonymous
    assert keychain.login("ghcr.io", Deadline(10)).anonymous


def test_it_is_asked_once(install: Install, tmp_path: Path) -> None:
    install(f"echo >> {tmp_path}/asked; {GIVES}")
    (tmp_path / "config.json").write_text('{"credsStore": "test"}', encoding="utf-8")
    keychain = Keychain(str(tmp_path))
    assert keychain.login(HOST, Deadline(10)) == keychain.login(HOST, Deadline(10)) == Login("me", "from the helper")
    assert (tmp_path / "asked").read_text() == "\n"
