# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Registries as one node of a builder and one task meet them: the node's settings, the user's credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.authentication import Authentication
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credentials import (
    HUB_HOSTS,
    VARIABLE,
    Keychain,
    Login,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.registry import State, registry_host, state
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.web import Settings
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.config import document_of
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.spec import CONFIG_DIRECTORY
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import is_true

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._module import Surroundings

SECONDS = 30.0
"""How long one look into a registry may take, with its credentials, its token and repetitions."""


class Registries:
    """What a build needs to know of registries; nothing is read before it is asked for.

    files: of the node, below /etc/buildkit, as the store keeps them.
    """

    def __init__(self, around: Surroundings, files: Mapping[str, bytes]) -> None:
        self._around = around
        self._files = files
        self._keychain = Keychain(around.docker_config, around.variable(VARIABLE))
        self._tables: Optional[Mapping[str, Any]] = None

    def close(self) -> None:
        """The build is over: end the program that is still asked for credentials."""
        self._keychain.close()

    def authentication(self) -> Authentication:
        """The answers to the daemon's questions."""
        disabled = is_true(self._around.variable("BUILDKIT_NO_CLIENT_TOKEN"))
        return Authentication(self._keychain, self.settings, None if disabled else self._around.docker_config)

    def login(self, name: str) -> Login:
        """The user's credentials for the registry of an image."""
        return self._keychain.login(registry_host(reference.parse(name).domain), Deadline(SECONDS))

    def state(self, name: str, *, insecure: bool = False) -> Optional[State]:
        """What a registry has under an image's name (registry.state). insecure: as `registry.insecure` of an output."""
        settings = Settings(http=True, insecure=True) if insecure else self.settings(reference.parse(name).domain)
        return state(name, self._keychain, settings, Deadline(SECONDS))

    def settings(self, host: str) -> Settings:
        """How the node reaches a registry, host[:port]: what its configuration says, else BuildKit's own rules."""
        if self._tables is None:
            found = document_of(self._files).get("registry")
            self._tables = found if isinstance(found, Mapping) else {}
        table = self._tables.get("docker.io" if host in HUB_HOSTS else host)
        return settings_of(table, self._files) if isinstance(table, Mapping) else Settings()


def settings_of(table: Mapping[str, Any], files: Mapping[str, bytes]) -> Settings:
    """A `registry` table of a buildkitd.toml, whose files travel with the configuration.

    What lies elsewhere, in the image of the builder, is not known here and left out.
    """

    def content(path: object) -> str:
        return known.get(str(path), b"").decode("utf-8", "replace")

    known = {f"{CONFIG_DIRECTORY}/{name}": data for name, data in files.items()}
    tables = [pair for pair in _list(table.get("keypair")) if isinstance(pair, Mapping)]
    pairs = [(content(pair.get("cert")), content(pair.get("key"))) for pair in tables]
    return Settings(
        http=table["http"] if isinstance(table.get("http"), bool) else None,
        insecure=table.get("insecure") is True,
        ca=tuple(text for text in map(content, _list(table.get("ca"))) if text),
        keypairs=tuple(pair for pair in pairs if all(pair)),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
