# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Who we are to a registry, as docker's configuration says it (wire §9.4)."""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import read_json
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

if TYPE_CHECKING:
    import subprocess

HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
HUB_KEY = "https://index.docker.io/v1/"
"""What docker files the public registry's credentials under, whichever of its names is asked for."""
VARIABLE = "DOCKER_AUTH_CONFIG"


@dataclass(frozen=True)
class Login:
    """What is known for one registry; nothing at all is anonymous.

    secret:         the user's password; with an empty username an identity token (an OAuth refresh token).
    registry_token: a bearer token that is shown to the registry as it is.
    """

    username: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def anonymous(self) -> bool:
        return not (self.secret or self.registry_token)


class Keychain:
    """The credentials of one docker configuration, looked up once for each registry.

    directory: of docker's config.json. overlay: the text of $DOCKER_AUTH_CONFIG, which comes first.
    Safe to be used by several threads.
    """

    def __init__(self, directory: str, overlay: Optional[str] = None) -> None:
        self._file = os.path.join(directory, "config.json")
        self._overlay = overlay
        self._known: dict[str, Login] = {}
        self._lock = threading.Lock()
        self._helper: Optional[subprocess.Popen[bytes]] = None
        self._closed = False

    def close(self) -> None:
        """End the helper that is still asked, whoever waits for it, and the next one that would be."""
        self._closed = True
        if self._helper is not None:
            self._end(self._helper)

    def _started(self, helper: subprocess.Popen[bytes]) -> None:
        self._helper = helper
        if self._closed:
            self._end(helper)

    @staticmethod
    def _end(helper: subprocess.Popen[bytes]) -> None:
        from .credential_helper import end

        end(helper)

    def login(self, host: str, deadline: Deadline) -> Login:
        """The credentials for a registry, `host[:port]`, by which a helper's program must have answered.

        Raises ConfigError when the configuration or its helper cannot be used; no secret is in its words.
        """
        with self._lock:
            if host not in self._known:
                self._known[host] = self._look_up(keys(host), deadline)
            return self._known[host]

    def _look_up(self, names: tuple[str, ...], deadline: Deadline) -> Login:
        if self._overlay:
            entry = _entry(_table(_parsed(self._overlay), "auths", f"${VARIABLE}"), names)
            if entry is not None:
                return _login(entry, names[0], f"${VARIABLE}")
        config = read_json(self._file)
        chosen = _table(config, "credHelpers", self._file)
        named = next((name for name in names if chosen.get(name)), names[0])
        helper = chosen.get(named) or config.get("credsStore")
        if helper:
            # Even when it knows nothing: docker does not look into `auths` then.
            from .credential_helper import ask

            return ask(str(helper), named, self._file, deadline, self._started)
        entry = _entry(_table(config, "auths", self._file), names)
        return Login() if entry is None else _login(entry, names[0], self._file)


def keys(host: str) -> tuple[str, ...]:
    """What a registry's credentials may be filed under, the usual one first."""
    return (HUB_KEY, *HUB_HOSTS) if host in HUB_HOSTS else (host,)


def _entry(auths: Mapping[str, Any], names: tuple[str, ...]) -> Optional[Any]:
    """The entry whose key is a name, else one whose key is a URL of that host."""
    for name in names:
        if name in auths:
            return auths[name]
    return next((auths[key] for key in auths if _host(key) in names), None)


def _host(key: str) -> str:
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            key = key[len(scheme) :]
    return key.partition("/")[0]


def _login(entry: object, name: str, where: str) -> Login:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in map(entry.get, _FIELDS) if value):
        raise ConfigError(f"{where}: the credentials of {name} are not an object of texts")
    username, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth"):
        username, password = _decoded(entry["auth"], name, where)
    identity = entry.get("identitytoken") or ""
    return Login(
        username="" if identity else username,
        secret=identity or password,
        registry_token=entry.get("registrytoken") or "",
    )


_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")


def _decoded(auth: str, name: str, where: str) -> tuple[str, str]:
    """`auth`: user and password in base64. Raises ConfigError, without what could not be read."""
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon or not username:
        raise ConfigError(
            f"{where}: `auth` of {name} is not base64 of USER:PASSWORD",
            hint=f"Log in to {name} again.",
        )
    return username, password.strip("\0")


def _parsed(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except ValueError as exc:
        # The exception's words may quote the text.
        raise ConfigError(f"${VARIABLE} is not JSON") from exc
    if not isinstance(found, dict):
        raise ConfigError(f"${VARIABLE} is not a JSON object")
    return found


def _table(config: Mapping[str, object], key: str, where: str) -> Mapping[str, Any]:
    table = config.get(key) or {}
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: `{key}` is not an object")
    return table
