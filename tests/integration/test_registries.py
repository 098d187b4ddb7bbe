# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds and registries: the lab's plain one, and the private one with TLS and a password.

Modules that talk to a registry themselves run in the lab's network, where the registries are.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Bench

PLAIN = os.environ.get("BUILDX_LAB_REGISTRY", "")
PRIVATE = os.environ.get("BUILDX_LAB_PRIVATE_REGISTRY", "")
USER = os.environ.get("BUILDX_LAB_PRIVATE_USER", "")
PASSWORD = os.environ.get("BUILDX_LAB_PRIVATE_PASSWORD", "")


def private_base(bench: Bench, context: Callable[..., Path]) -> str:
    """An image that only the private registry has."""
    name = f"{PRIVATE}/{bench.image()}"
    path = context("FROM scratch\nADD root.tar /\n", directory="base")
    bench.buildx("build", "--builder", bench.name, "--push", "-t", name, str(path))
    return name


def test_base_image_from_a_private_registry(there: Bench, context: Callable[..., Path]) -> None:
    base = private_base(there, context)
    path = context(f"FROM {base}\nRUN echo {base}\n", directory="over")

    built = there.build(path, name=there.image())

    assert f"[2/2] RUN echo {base}" in built["executed"]


PUSHED = "FROM scratch\nCOPY word /\n"


def manifest(bench: Bench, name: str) -> dict[str, Any]:
    """What the registry has under a name, as the reference CLI sees it from where the registries are."""
    trust = f"SSL_CERT_FILE={bench.environment['BUILDX_LAB_PRIVATE_CA']}"
    done = bench.run(*bench.prefix, "env", trust, "docker", "buildx", "imagetools", "inspect", "--raw", name)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_push(there: Bench, context: Callable[..., Path]) -> None:
    """Changed is what the registry has under one of the names; attestations are new each time and do not count."""
    name = f"{PRIVATE}/{there.image()}"
    path = context(PUSHED, word="one")

    first = there.build(path, name=name, push=True)
    attested = manifest(there, name)["manifests"]
    again = there.build(path, name=name, push=True)
    attested_again = manifest(there, name)["manifests"]
    other_tag = there.build(path, name=name, tags=[f"{name}:other"], push=True)
    (path / "word").write_text("two")
    changed = there.build(path, name=name, push=True)

    runs = (first, again, other_tag, changed)
    assert [run["changed"] for run in runs] == [True, False, True, True]
    assert not any(there.warnings(run) for run in runs)
    assert attested[0] == attested_again[0]
    assert attested[1] != attested_again[1]
    assert there.docker("pull", "-q", name).strip() == f"{name}:latest"
    assert there.files(name) == {"word"}
    assert manifest(there, f"{name}:other")["manifests"][0] == attested[0]


def test_push_to_a_registry_of_this_machine(there: Bench, context: Callable[..., Path]) -> None:
    """Plain HTTP, as BuildKit speaks it there by itself, and one image under two names."""
    name = f"{PLAIN}/{there.image()}"
    path = context(PUSHED, word="one")

    runs = [there.build(path, name=name, tags=[f"{name}:other"], push=True) for _time in range(2)]

    assert [run["changed"] for run in runs] == [True, False]
    assert manifest(there, name) == manifest(there, f"{name}:other")


def test_push_with_a_wrong_password(there: Bench, context: Callable[..., Path]) -> None:
    there.log_in("not-the-password")

    failed = there.failed_build(context(PUSHED, word="x"), name=f"{PRIVATE}/{there.image()}", push=True)

    assert PRIVATE in failed["msg"]
    assert "credentials" in failed["msg"]
    assert there.warnings(failed) == []
    assert "not-the-password" not in json.dumps(failed)


def test_push_without_a_login(there: Bench, context: Callable[..., Path]) -> None:
    there.docker_config()

    failed = there.failed_build(context(PUSHED, word="x"), name=f"{PRIVATE}/{there.image()}", push=True)

    assert PRIVATE in failed["msg"]


def test_push_without_the_authority(bench: Bench, there: Bench, context: Callable[..., Path]) -> None:
    """The builder that does not know the registry's authority is told where it goes."""
    bench.prefix = there.prefix
    bench.buildx("create", "--name", bench.name, "--driver-opt", "network=host")
    bench.log_in(PASSWORD)

    failed = bench.failed_build(context(PUSHED, word="x"), name=f"{PRIVATE}/{bench.image()}", push=True)

    assert PRIVATE in failed["msg"]
    assert "buildkitd_config" in failed["msg"]


def test_push_that_cannot_be_seen(there: Bench, context: Callable[..., Path]) -> None:
    """Where the builder reaches a registry and the task does not, each push counts as a change, and that is said."""
    there.prefix = ()
    name = f"{PRIVATE}/{there.image()}"
    path = context(PUSHED, word="x")

    runs = [there.build(path, name=name, push=True) for _time in range(2)]

    assert [run["changed"] for run in runs] == [True, True]
    assert all("could not be seen" in text and name in text for run in runs for text in there.warnings(run))
    assert [len(there.warnings(run)) for run in runs] == [1, 1]


def test_push_by_the_engine(there: Bench, context: Callable[..., Path]) -> None:
    """The BuildKit inside an engine leaves the image to the engine, which knows the private registry by itself."""
    name = f"{PRIVATE}/{there.image()}"
    path = context(PUSHED, word="one")

    runs = [there.build(path, builder="default", name=name, push=True) for _time in range(2)]
    before = manifest(there, name)
    (path / "word").write_text("two")
    runs.append(there.build(path, builder="default", name=name, push=True))

    assert [run["changed"] for run in runs] == [True, False, True]
    assert manifest(there, name)["layers"] != before["layers"]
    there.log_in("not-the-password")
    failed = there.failed_build(path, builder="default", name=name, push=True)
    assert PRIVATE in failed["msg"]
    assert "credentials" in failed["msg"]


def helper(bench: Bench, script: str) -> Path:
    """A credential helper named `lab` on the PATH, which docker's configuration names for the private registry."""
    programs = bench.directory / "programs"
    programs.mkdir(exist_ok=True)
    program = programs / "docker-credential-lab"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    bench.environment["PATH"] = f"{programs}:{bench.environment['PATH']}"
    bench.docker_config(credHelpers={PRIVATE: "lab"})
    return program


def test_credential_helper(there: Bench, context: Callable[..., Path]) -> None:
    """The helper's program is asked once for a registry, with the build's base and its push behind the password."""
    base = private_base(there, context)
    path = context(f"FROM {base}\nRUN echo {base}\n", directory="over")
    answer = json.dumps({"ServerURL": PRIVATE, "Username": USER, "Secret": PASSWORD})
    asked = there.directory / "asked"
    helper(there, f"echo \"$1 $(cat)\" >> '{asked}'\necho '{answer}'")

    built = there.build(path, name=f"{PRIVATE}/{there.image()}", push=True)

    assert f"[2/2] RUN echo {base}" in built["executed"]
    assert asked.read_text() == f"get {PRIVATE}\n"
    assert PASSWORD not in json.dumps(built)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'the vault is locked'; exit 1", "docker-credential-lab ended with exit code 1: the vault is locked"),
        (f'echo \'{{"Secret": "{PASSWORD}"}}\'; exit 1', "docker-credential-lab ended with exit code 1"),
        (f"echo '{PASSWORD}'", "docker-credential-lab printed something else"),
        ("echo 'credentials not found in native keychain'; exit 1", "401"),
    ],
    ids=["fails", "fails with a secret", "babbles", "knows nothing"],
)
def test_credential_helper_without_credentials(
    there: Bench, context: Callable[..., Path], script: str, words: str
) -> None:
    helper(there, script)

    failed = there.failed_build(context(f"FROM {PRIVATE}/{there.image()}\n"))

    assert words in failed["msg"]
    assert PRIVATE in failed["msg"]
    assert PASSWORD not in json.dumps(failed)


def test_registry_cache(bench: Bench, there: Bench, context: Callable[..., Path]) -> None:
    """A cache that one builder leaves in the private registry is all that a new one needs, earlier stages included."""
    cache = f"{PRIVATE}/{bench.image()}"
    path = context(
        f"FROM scratch AS early\nADD root.tar /\nRUN echo {bench.name} > /one\n"
        "FROM scratch\nADD root.tar /\nCOPY --from=early /one /\nRUN echo two\n"
    )
    exported = there.build(path, cache_to=[{"type": "registry", "ref": cache, "mode": "max"}])
    bench.prefix = there.prefix
    bench.log_in(PASSWORD)
    bench.trusting_builder()

    imported = bench.build(path, cache_from=[cache])

    assert f"[early 2/2] RUN echo {bench.name} > /one" in exported["executed"]
    assert imported["executed"] == []
    assert imported["changed"] is False
