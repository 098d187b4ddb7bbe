# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registries as a node's configuration has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils import _registries as registries
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.web import Settings
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.config import node_files

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._module import Surroundings


class Around:
    """A process without any of the variables."""

    docker_config = "/nowhere"

    def variable(self, name: str) -> None:
        del name


def settings(files: dict[str, bytes], host: str) -> Settings:
    return registries.Registries(cast("Surroundings", Around()), files).settings(host)


def test_what_a_configuration_says(tmp_path: Any) -> None:
    """The files travel with the configuration, under the names that the container has them."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text(name)
    table = {
        "ca": [str(tmp_path / "ca.pem")],
        "keypair": [{"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}],
        "insecure": True,
        "http": False,
    }
    files = node_files({"registry": {"registry.example.com:5000": table, "docker.io": {"http": True}}})
    expected = Settings(http=False, insecure=True, ca=("ca.pem",), keypairs=(("cert.pem", "key.pem"),))
    assert settings(files, "registry.example.com:5000") == expected
    assert settings(files, "registry.example.com") == Settings()
    for name in ("docker.io", "registry-1.docker.io"):
        assert settings(files, name) == Settings(http=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no TOML",
        "registry = 7",
        '[registry]\n"h" = 7',
        '[registry."h"]\nca = "x"\nkeypair = [1]\nhttp = "yes"\ninsecure = "yes"',
        '[registry."h"]\nca = ["/in/the/image/ca.pem", 7]\n[[registry."h".keypair]]\ncert = "/x"',
    ],
)
def test_what_cannot_be_used_says_nothing(text: str) -> None:
    assert settings({"buildkitd.toml": text.encode()}, "h") == Settings()


def test_no_configuration() -> None:
    assert settings({}, "h") == Settings()
