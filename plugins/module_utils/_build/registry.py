# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a registry has under a name, in words that tell whether two pushes brought the same (DESIGN §4.8).

An image that carries attestations is an index with a new digest each time, because they hold times. So
an index counts as the images in it, by platform, and what is attested about them is left out.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import RegistryError

from . import tokens
from .credentials import HUB_HOSTS, Keychain, Login
from .web import Answer, Settings, Web

HUB = "registry-1.docker.io"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ATTESTATION = ("vnd.docker.reference.type", "attestation-manifest")


class State(NamedTuple):
    """What a name means in a registry. Two states are equal when they bring the same images.

    digest:    of a single image's manifest; "" for an index.
    platforms: (platform, digest) of each image of an index, sorted; attestations left out.
    marks:     the annotations of the index, sorted.
    """

    digest: str = ""
    platforms: tuple[tuple[str, str], ...] = ()
    marks: tuple[tuple[str, str], ...] = ()


def state(name: str, keychain: Keychain, settings: Settings, deadline: Deadline) -> Optional[State]:
    """What the registry of an image's name has under it; None: nothing.

    settings: how the builder reaches that registry. Raises RegistryError when the registry cannot be asked from here or
    refuses, which says nothing about what it has; ConfigError when docker's configuration cannot be read.
    """
    image = reference.parse(name)
    host = registry_host(image.domain)
    path = f"/v2/{image.path}/manifests/{image.digest or image.tag or 'latest'}"
    answer = _Visit(host, keychain, settings, deadline).get(path)
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise RegistryError(
            f"the registry {host} refused to say what {name} is: {answer.status}{_words(answer)}",
            hint=f"Check the credentials for {host} in docker's configuration on the target."
            if answer.status in (401, 403)
            else None,
        )
    return normalised(answer.body, host)


def registry_host(domain: str) -> str:
    """The host[:port] that serves the images of a name's domain."""
    return HUB if domain in HUB_HOSTS else domain


def normalised(body: bytes, host: str) -> State:
    """A manifest or an index as a State. Raises RegistryError when it is neither."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RegistryError(f"the registry {host} answered with something that is no manifest")
    if document.get("mediaType") not in INDEXES and not isinstance(document.get("manifests"), list):
        return State(digest=f"sha256:{hashlib.sha256(body).hexdigest()}")
    images = [item for item in document.get("manifests") or () if isinstance(item, dict) and not _attests(item)]
    return State(
        platforms=tuple(sorted((_platform(item.get("platform")), str(item.get("digest"))) for item in images)),
        marks=tuple(sorted((str(key), str(value)) for key, value in _mapping(document.get("annotations")).items())),
    )


def _attests(descriptor: Mapping[str, Any]) -> bool:
    key, value = ATTESTATION
    return _mapping(descriptor.get("annotations")).get(key) == value


def _platform(found: object) -> str:
    parts = _mapping(found)
    words = (parts.get("os"), parts.get("architecture"), parts.get("variant"), parts.get("os.version"))
    return "/".join(str(word) for word in words if word)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class _Visit:
    """Questions to one registry, with the ways and credentials that it turns out to want."""

    def __init__(self, host: str, keychain: Keychain, settings: Settings, deadline: Deadline) -> None:
        self._host = host
        self._keychain = keychain
        self._deadline = deadline
        self._web = Web(settings)
        self._bases = [f"{scheme}://{host}" for scheme in schemes(host, settings)]

    def get(self, path: str) -> Answer:
        """A document, after the registry has been told who asks, when it wants to know."""
        headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        answer = self._first(path, headers)
        if answer.status != 401:
            return answer
        proof = self._proof(challenges(answer.headers.get("www-authenticate", "")))
        return self._first(path, {**headers, "Authorization": proof}) if proof else answer

    def _first(self, path: str, headers: Mapping[str, str]) -> Answer:
        """The answer of the first scheme that answers, which is kept to."""
        while True:
            try:
                return self._web.get(self._bases[0] + path, headers, self._deadline)
            except RegistryError:
                if len(self._bases) == 1:
                    raise
                del self._bases[0]

    def _proof(self, offers: Mapping[str, Mapping[str, str]]) -> str:
        """What to send as Authorization; "" when nothing would help."""
        login = self._keychain.login(self._host, self._deadline)
        bearer = offers.get("bearer")
        if bearer is not None and bearer.get("realm"):
            return f"Bearer {self._token(bearer, login)}"
        return tokens.basic(login) if "basic" in offers and login.username else ""

    def _token(self, offer: Mapping[str, str], login: Login) -> str:
        scopes = offer.get("scope", "").split()
        return tokens.fetch(
            tokens.Ask(offer["realm"], offer.get("service", ""), scopes), login, self._web, self._deadline
        ).text


def schemes(host: str, settings: Settings) -> tuple[str, ...]:
    """How BuildKit speaks to a registry, in order: plain HTTP to this machine, and where it is told to (wire §12)."""
    plain = is_local(host) if settings.http is None else settings.http
    if settings.insecure:
        return ("https", "http") if plain else ("https",)
    return ("http",) if plain else ("https",)


def is_local(host: str) -> bool:
    """Whether a host[:port] is this machine by its name or number."""
    name = re.sub(r":\d+\Z", "", host).strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def challenges(text: str) -> dict[str, dict[str, str]]:
    """`WWW-Authenticate`: scheme in lower case → its parameters. Several may share a line (RFC 9110 §11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    scheme = ""
    for match in _WORD.finditer(text):
        if match["scheme"]:
            scheme = match["scheme"].lower()
            found.setdefault(scheme, {})
        elif scheme:
            quoted = match["quoted"]
            value = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[scheme].setdefault(match["key"].lower(), value)
    return found


_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - the RFC's word for a word
_WORD = re.compile(
    rf'(?P<key>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))'
    rf"|(?P<scheme>{_TOKEN})(?=\s|,|\Z)"
)


def _words(answer: Answer) -> str:
    """What the registry says of its refusal."""
    try:
        errors = json.loads(answer.body)["errors"]
        return f": {str(errors[0]['message'])[:200]}"
    except (ValueError, LookupError, TypeError):
        return ""
