# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What the session answers the daemon about registries: docker's credentials, and tokens for them (wire §9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline

from .credentials import Keychain
from .web import Settings, Web

SECONDS = 50.0
"""How long one answer may take: the daemon gives up after 60 (wire §2.5)."""


class Authentication:
    """A Source of the Auth service (_buildkit/auth.py).

    keychain: of the user. settings: how the builder reaches a registry, by its host[:port].
    seeds: a directory, docker's, that keeps one random number for each registry, or None: no tokens are fetched here.
    """

    def __init__(self, keychain: Keychain, settings: Callable[[str], Settings], seeds: Optional[str]) -> None:
        self._keychain = keychain
        self._settings = settings
        self._seeds = seeds

    def credentials(self, host: str) -> tuple[str, str]:
        login = self._keychain.login(host, Deadline(SECONDS))
        return login.username, login.secret

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str], client_id: str) -> tuple[str, int, int]:
        from . import tokens

        deadline = Deadline(SECONDS)
        login = self._keychain.login(host, deadline)
        found = tokens.fetch(tokens.Ask(realm, service, scopes, client_id), login, Web(self._settings(host)), deadline)
        return found.text, found.expires_in, found.issued_at

    def seed(self, host: str) -> Optional[bytes]:
        if self._seeds is None:
            return None
        if self._keychain.login(host, Deadline(SECONDS)).anonymous:
            return b""
        from .token_seeds import seed

        # The CLI files the public registry's under its host, not under the key of its credentials.
        return seed(self._seeds, host)
