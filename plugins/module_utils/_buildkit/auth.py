# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Registry authentication: the daemon asks for credentials or tokens when a registry wants them (wire §9).

Announced in every build and seldom asked for, so that what answers is a file of its own (auth_answers.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Protocol

from .service import Call, CallFactory, Metadata

PREFIX = "/moby.filesync.v1.Auth/"
METHODS = ("Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority")


class Source(Protocol):
    """Who knows the credentials. Every method may wait for up to a minute, and is called in any thread.

    host is host[:port] as the daemon names it, the public registry `registry-1.docker.io`. BuildxError may be raised.
    """

    def credentials(self, host: str) -> tuple[str, str]:
        """User and password; an empty user with an identity token; both empty for nobody."""

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str], client_id: str) -> tuple[str, int, int]:
        """A token, its life in seconds (0: not said) and when it was given in Unix seconds (0: now)."""

    def seed(self, host: str) -> Optional[bytes]:
        """What the proof of equal credentials is derived from: b"" without credentials for this registry.

        None: no tokens are fetched here, and the daemon is to ask for the credentials instead.
        """


class Auth:
    """The service; `source` is made when the first registry wants to know."""

    def __init__(self, source: Callable[[], Source]) -> None:
        self._make = source
        self._source: Optional[Source] = None
        self._making = threading.Lock()

    def methods(self) -> Mapping[str, CallFactory]:
        return {PREFIX + name: self._factory(name) for name in METHODS}

    def source(self) -> Source:
        with self._making:
            if self._source is None:
                self._source = self._make()
            return self._source

    def _factory(self, name: str) -> CallFactory:
        def make(metadata: Metadata) -> Call:
            del metadata
            from .auth_answers import Answer

            return Answer(name, self.source)

        return make
