# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""buildkitd's configuration as files (buildx.md §2.6), and where this is stricter than the CLI."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder import config, toml
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def registry(name: str = "r.example.com", **table: Any) -> dict[str, Any]:
    return {"registry": {name: table}}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Certificates and keys of a target, some of the same name."""
    for name in ("ca.pem", "other/ca.pem", "same/ca.pem", "key.pem", "cert.pem"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("ca.pem" if name.startswith("same") else name)
    return tmp_path


def test_a_configuration_without_files_of_its_own() -> None:
    document = {"debug": True, "worker": {"oci": {"max-parallelism": 4}}, "registry": {"docker.io": {"mirrors": ["m"]}}}
    made = config.node_files(document)
    assert set(made) == {"buildkitd.toml"}
    assert toml.loads(made["buildkitd.toml"].decode()) == document


def test_certificates_travel_and_the_configuration_names_their_place(files: Path) -> None:
    document = registry(
        "my_reg.io:5000",
        http=False,
        ca=[f"{files}/ca.pem"],
        keypair=[{"key": f"{files}/key.pem", "cert": f"{files}/cert.pem", "more": "dropped"}],
    )
    before = repr(document)
    made = config.node_files(document)
    assert {path: content for path, content in made.items() if path != "buildkitd.toml"} == {
        "certs/my_reg.io_5000/ca.pem": b"ca.pem",
        "certs/my_reg.io_5000/key.pem": b"key.pem",
        "certs/my_reg.io_5000/cert.pem": b"cert.pem",
    }
    directory = "/etc/buildkit/certs/my_reg.io_5000"
    assert toml.loads(made["buildkitd.toml"].decode()) == registry(
        "my_reg.io:5000",
        http=False,
        ca=[f"{directory}/ca.pem"],
        keypair=[{"key": f"{directory}/key.pem", "cert": f"{directory}/cert.pem"}],
    )
    assert repr(document) == before, "what was given stays as it is"


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("docker.io", "docker.io"),
        ("my_reg.io:5000", "my_reg.io_5000"),
        ("a::b//c", "a_b_c"),
        ("127.0.0.1:5000", "127.0.0.1_5000"),
        ("[fd00::1]:5000", "_fd00_1_5000"),
        ("ümlaut", "_mlaut"),
        ("UP-per.9", "UP-per.9"),
    ],
)
def test_the_directory_of_a_registry(files: Path, name: str, directory: str) -> None:
    """Every run of other characters is one underscore."""
    assert f"certs/{directory}/ca.pem" in config.node_files(registry(name, ca=[f"{files}/ca.pem"]))


def test_two_files_of_one_name_are_refused(files: Path) -> None:
    """The CLI lets the last one win, lists it twice and trusts only that one."""
    with pytest.raises(ConfigError, match=r"other/ca\.pem, has the same name as another file of that registry"):
        config.node_files(registry(ca=[f"{files}/ca.pem", f"{files}/other/ca.pem"]))


def test_a_key_and_a_certificate_of_one_name_are_refused(files: Path) -> None:
    pair = {"key": f"{files}/ca.pem", "cert": f"{files}/other/ca.pem"}
    with pytest.raises(ConfigError, match="same name"):
        config.node_files(registry(keypair=[pair]))


def test_the_same_file_twice_is_one(files: Path) -> None:
    made = config.node_files(registry(ca=[f"{files}/ca.pem", f"{files}/same/ca.pem"]))
    assert made["certs/r.example.com/ca.pem"] == b"ca.pem"


def test_registries_whose_directories_meet_are_refused(files: Path) -> None:
    tables = {"a:1": {"ca": [f"{files}/ca.pem"]}, "a_1": {"ca": [f"{files}/other/ca.pem"]}}
    with pytest.raises(ConfigError, match="same name"):
        config.node_files({"registry": tables})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"ca": ["no.pem"]}, r"the CA of the registry r\.example\.com cannot be read: no\.pem: No such file"),
        ({"keypair": [{"key": "no.pem", "cert": "cert.pem"}]}, "the key of the registry .*: No such"),
        ({"keypair": [{"key": "key.pem", "cert": "no.pem"}]}, "the cert of the registry .*: No such"),
        ({"ca": ["other"]}, "Is a directory"),
    ],
)
def test_a_missing_file_is_named(
    files: Path, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(ConfigError, match=words):
        config.node_files(registry(**table))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"ca": "/etc/ca.pem"}, "ca of the registry .* must be a list of files"),
        ({"keypair": {"key": "/k", "cert": "/c"}}, "keypair of the registry .* must be a list"),
        ({"keypair": ["/k"]}, "keypair of the registry .* must be a list"),
        ({"keypair": [{"key": "/k"}]}, "each with the files key and cert"),
        ({"keypair": [{"key": "/k", "cert": None}]}, "each with the files key and cert"),
    ],
)
def test_a_table_of_another_shape_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.node_files(registry(**table))


@pytest.mark.parametrize("document", [{"registry": {"r": "x"}}, {"registry": ["r"]}, {"registry": {"r": {"ca": []}}}])
def test_what_names_no_files_is_the_daemons_business(document: dict[str, Any]) -> None:
    made = config.node_files(document)
    assert set(made) == {"buildkitd.toml"}
    assert toml.loads(made["buildkitd.toml"].decode()) == document


def test_a_file_is_carried_whole_or_not_at_all(files: Path) -> None:
    """The CLI cuts at 1 MiB without a word."""
    path = files / "ca.pem"
    path.write_bytes(b"x" * config.LARGEST)
    assert len(config.node_files(registry(ca=[str(path)]))["certs/r.example.com/ca.pem"]) == 1 << 20
    path.write_bytes(b"x" * (config.LARGEST + 1))
    with pytest.raises(ConfigError, match=r"larger than 1 MiB: .*/ca\.pem"):
        config.node_files(registry(ca=[str(path)]))


@pytest.mark.parametrize("value", [{1, 2}, object(), datetime.timedelta(1), 1 << 64, {3: "x"}, "\ud800"])
def test_what_toml_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^buildkitd_config: "):
        config.node_files({"worker": {"oci": {"x": value}}})


def test_a_document_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "buildkitd.toml"
    path.write_text("debug = true # ü\n", encoding="utf-8")
    assert config.read_document(str(path)) == {"debug": True}


@pytest.mark.parametrize(
    ("content", "words"), [(b"debug = ", r"buildkitd\.toml: "), (b"\xff", r"buildkitd\.toml is not UTF-8")]
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "buildkitd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        config.read_document(str(path))
    with pytest.raises(ConfigError, match=r"configuration cannot be read: .*/gone\.toml"):
        config.read_document(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("carried", "document"),
    [
        ({}, {}),
        ({"certs/r/ca.pem": b"x"}, {}),
        ({"buildkitd.toml": b"debug = true"}, {"debug": True}),
        ({"buildkitd.toml": b"debug = "}, {}),
        ({"buildkitd.toml": b"\xff"}, {}),
    ],
)
def test_the_document_of_a_nodes_files(carried: dict[str, bytes], document: dict[str, Any]) -> None:
    assert config.document_of(carried) == document
