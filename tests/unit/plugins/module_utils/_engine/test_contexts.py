# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which engine is meant (buildx.md §1.6, §1.7), on the CLI's own layout of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import contexts
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Contexts, Target, Tls
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

BASE = Target(contexts.DEFAULT_HOST, api_version="1.43", timeout=7)
ASKED = BASE._replace(host="tcp://asked:2375")
SOCKET = "unix:///var/run/docker.sock"


class Home:
    """A docker configuration directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def context(self, name: str, host: str = "tcp://there:2375", **endpoint: Any) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        path = self.directory / "contexts" / "meta" / digest / "meta.json"
        path.parent.mkdir(parents=True)
        document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, **endpoint}}}
        path.write_text(json.dumps(document))
        return path

    def tls(self, name: str, *parts: str) -> Path:
        directory = self.directory / "contexts" / "tls" / hashlib.sha256(name.encode()).hexdigest() / "docker"
        directory.mkdir(parents=True)
        for part in parts:
            (directory / f"{part}.pem").write_text(part)
        return directory

    def config(self, **document: Any) -> None:
        (self.directory / "config.json").write_text(json.dumps(document))

    def contexts(self, context: str | None = None, asked: Target | None = None) -> Contexts:
        return Contexts(str(self.directory), context, asked, BASE)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("asked", "variable", "configured", "expected"),
    [
        (None, None, None, ("default", SOCKET)),
        (None, None, "prod", ("prod", "prod")),
        (None, "stage", "prod", ("stage", "stage")),
        (None, "stage", None, ("stage", "stage")),
        (None, "default", "prod", ("default", SOCKET)),
        (None, None, "", ("default", SOCKET)),
        (ASKED, None, None, ("default", "tcp://asked:2375")),
        (ASKED, "stage", "prod", ("default", "tcp://asked:2375")),
    ],
)
def test_the_current_context_and_its_key(
    home: Home, asked: Target | None, variable: str | None, configured: str | None, expected: tuple[str, str]
) -> None:
    """What names an engine makes it `default`; then $DOCKER_CONTEXT, then config.json."""
    home.context("prod")
    home.context("stage")
    home.config(**({} if configured is None else {"currentContext": configured}))
    found = home.contexts(variable, asked)
    assert (found.current(), found.key()) == expected


def test_the_engine_of_the_task(home: Home) -> None:
    home.context("prod", "tcp://prod:2375")
    assert home.contexts().target() == BASE
    assert home.contexts("prod").target() == BASE._replace(host="tcp://prod:2375")
    assert home.contexts("prod", ASKED).target() == ASKED


@pytest.mark.parametrize("where", ["variable", "config"])
def test_a_current_context_that_does_not_exist_is_refused(home: Home, where: str) -> None:
    """The CLI says so as well; taken for a host name it would end in a time-out somewhere else."""
    home.context("prod")
    home.config(**({"currentContext": "typo"} if where == "config" else {}))
    found = home.contexts("typo" if where == "variable" else None)
    for ask in (found.target, found.key):
        with pytest.raises(ConfigError, match='context "typo" not found'):
            ask()


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("default", SOCKET),
        ("prod", "tcp://prod:2376"),
        ("unix:///run/other.sock", "unix:///run/other.sock"),
        ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
        ("ssh://me@host", "ssh://me@host"),
        ("elsewhere", "tcp://elsewhere:2375"),
    ],
)
def test_the_engine_behind_a_stored_endpoint(home: Home, endpoint: str, host: str) -> None:
    home.context("prod", "tcp://prod:2376")
    assert home.contexts().resolve(endpoint) == BASE._replace(host=host, tls=None)


def test_the_endpoint_that_the_task_names_is_reached_as_the_task_says(home: Home) -> None:
    """Its TLS options belong to that address and to no other."""
    asked = ASKED._replace(tls=Tls(True, "/ca"))
    found = home.contexts(asked=asked)
    assert found.resolve("tcp://asked:2375") == found.resolve("default") == asked
    assert found.resolve("tcp://other:2375").tls is None


@pytest.mark.parametrize("endpoint", ["", "bogus://x", "tcp://", "kubernetes:///x"])
def test_an_endpoint_that_is_none(home: Home, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="failed to parse endpoint"):
        home.contexts().resolve(endpoint)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (None, SOCKET),
        ("", SOCKET),
        ("default", SOCKET),
        ("prod", "prod"),
        ("host", "tcp://host:2375"),
        ("tcp://host", "tcp://host:2375"),
        ("unix:///x.sock", "unix:///x.sock"),
    ],
)
def test_what_the_store_keeps_for_an_endpoint(home: Home, text: str | None, stored: str) -> None:
    """buildx.md §2.3: a context by its name, but `default` by its address."""
    home.context("prod")
    assert home.contexts().endpoint(text) == stored


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("host", "tcp://host:2375"),
        ("host:1", "tcp://host:1"),
        ("tcp://host", "tcp://host:2375"),
        ("tcp://host:2376", "tcp://host:2376"),
        ("tcp://[fd00::1]", "tcp://[fd00::1]:2375"),
        ("tcp://[fd00::1]:99", "tcp://[fd00::1]:99"),
        ("tcp://host/path", "tcp://host:2375/path"),
        ("tcp://host:99/path", "tcp://host:99/path"),
        ("unix:///run/docker.sock", "unix:///run/docker.sock"),
        ("ssh://host", "ssh://host"),
        ("fd://", None),
        ("", None),
        ("://x", None),
        ("ftp://x", None),
        ("unix://", None),
    ],
)
def test_addresses(text: str, url: str | None) -> None:
    if url is None:
        with pytest.raises(ConfigError, match="failed to parse endpoint"):
            contexts.parse_host(text)
    else:
        assert contexts.parse_host(text) == url
        assert contexts.parse_host(url) == url


def test_names_are_sorted_and_have_default(home: Home) -> None:
    assert home.contexts().names() == ["default"]
    home.context("prod")
    home.context("alpha")
    assert home.contexts().names() == ["alpha", "default", "prod"]


def test_tls_of_a_context(home: Home) -> None:
    home.context("prod")
    directory = home.tls("prod", "ca", "cert", "key")
    expected = Tls(True, *(str(directory / f"{part}.pem") for part in ("ca", "cert", "key")))
    assert home.contexts().resolve("prod").tls == expected


def test_a_context_may_trust_any_certificate(home: Home) -> None:
    home.context("prod", SkipTLSVerify=True)
    directory = home.tls("prod", "ca")
    assert home.contexts().resolve("prod").tls == Tls(False, str(directory / "ca.pem"))


def test_without_files_there_is_no_tls(home: Home) -> None:
    home.context("prod", SkipTLSVerify=True)
    assert home.contexts().resolve("prod").tls is None


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "\xff"])
def test_a_corrupt_file_is_named(home: Home, content: str) -> None:
    path = home.context("prod")
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=str(path)):
        home.contexts().resolve("prod")
    with pytest.raises(ConfigError, match=str(path)):
        home.contexts().names()


def test_a_corrupt_configuration_is_named(home: Home) -> None:
    (home.directory / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        home.contexts().current()


def test_a_named_engine_needs_no_configuration(home: Home) -> None:
    (home.directory / "config.json").write_text("{")
    assert home.contexts(asked=ASKED).current() == "default"


@pytest.mark.parametrize("document", [{}, {"Name": 1}, {"Name": None}])
def test_a_context_without_a_name_is_none(home: Home, document: dict[str, Any]) -> None:
    home.context("prod").write_text(json.dumps(document))
    assert home.contexts().names() == ["default"]


@pytest.mark.parametrize("endpoints", [None, {}, {"docker": None}, {"docker": {}}, {"docker": {"Host": ""}}, []])
def test_a_context_without_an_engine_is_refused(home: Home, endpoints: Any) -> None:
    home.context("kube").write_text(json.dumps({"Name": "kube", "Endpoints": endpoints}))
    with pytest.raises(ConfigError, match="the docker context kube names no engine"):
        home.contexts().resolve("kube")


# What the options of a task say.


def options(**given: Any) -> dict[str, Any]:
    defaults = {
        "docker_host": None, "tls": False, "validate_certs": False, "tls_hostname": None, "ca_path": None,
        "client_cert": None, "client_key": None, "api_version": "auto", "timeout": 60, "use_ssh_client": True,
    }  # fmt: skip
    return {**defaults, **given}


def test_no_options_name_no_engine() -> None:
    asked, base = contexts.from_options(options(timeout=5, api_version="1.40"), None)
    assert asked is None
    assert (base.timeout, base.api_version) == (5, "1.40")


@pytest.mark.parametrize(
    ("given", "tls"),
    [
        ({}, None),
        ({"tls": True}, Tls(False)),
        ({"validate_certs": True}, Tls(True)),
        ({"tls": True, "validate_certs": True}, Tls(True)),
        ({"tls": True, "ca_path": "/ca"}, Tls(False, "/ca")),
        ({"validate_certs": True, "client_cert": "/c", "client_key": "/k"}, Tls(True, None, "/c", "/k")),
        ({"client_cert": "/c"}, None),
    ],
)
def test_tls_options(given: dict[str, Any], tls: Tls | None) -> None:
    asked, _base = contexts.from_options(options(docker_host="tcp://h:2376", **given), None)
    assert asked is not None
    assert (asked.host, asked.tls) == ("tcp://h:2376", tls)


def test_the_directory_of_certificates_fills_what_is_not_given(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text(name)
    asked, _base = contexts.from_options(options(docker_host="h", tls=True, ca_path="/own"), str(tmp_path))
    assert asked is not None
    assert asked.tls == Tls(False, "/own", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    (tmp_path / "ca.pem").unlink()
    asked, _base = contexts.from_options(options(docker_host="h", tls=True), str(tmp_path))
    assert asked is not None
    assert asked.tls is not None
    assert asked.tls.ca is None


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="go together"):
        contexts.from_options(options(docker_host="h", tls=True, client_cert="/c"), None)


def test_another_name_in_the_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="tls_hostname is not supported"):
        contexts.from_options(options(tls_hostname="x"), None)
