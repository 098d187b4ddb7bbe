# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""HTTP with registries and their token servers: bounded in time and size, trusting whom a host's settings name.

Not over requests, which docker-py brings: it trusts a bundle of its own instead of the system's authorities, takes
passwords from ~/.netrc, and bounds neither the size of an answer nor the time of a whole one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO, Any, NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError, RegistryError

LARGEST = 4 << 20
"""What registries accept as a manifest, and so as large as any answer here may be."""
SILENCE_SECONDS = 15.0
MOST_REDIRECTS = 5
CHUNK = 64 << 10


class UntrustedError(RegistryError):
    """The certificate of a registry or its token server is not trusted."""


class Settings(NamedTuple):
    """How a builder reaches one registry: its table in buildkitd.toml, with the files' contents instead of paths.

    http:     plain HTTP, None: as the name of the host says. insecure: any certificate will do.
    ca:       PEM texts, added to the system's authorities. keypairs: (certificate, key) as PEM.
    """

    http: Optional[bool] = None
    insecure: bool = False
    ca: tuple[str, ...] = ()
    keypairs: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Settings(http={self.http}, insecure={self.insecure}, {len(self.ca)} ca, {len(self.keypairs)} keypairs)"


class Answer(NamedTuple):
    """An answer: header names in lower case; body is cut nowhere, a larger one is an error."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Web:
    """What speaks HTTP(S) with the host of some settings. Proxies are those of the environment."""

    def __init__(self, settings: Settings) -> None:
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=_context(settings)),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def get(self, url: str, headers: Mapping[str, str], deadline: Deadline) -> Answer:
        """Get a document; redirects are followed, without the Authorization of another origin.

        Raises RegistryError when there is no answer.
        """
        for _hop in range(MOST_REDIRECTS):
            answer = self._send(url, deadline, headers=headers)
            if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                return answer
            before, url = url, _joined(url, answer.headers["location"])
            if _origin(url) != _origin(before):
                headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
            if _origin(before)[0] == "https" and _origin(url)[0] != "https":
                raise RegistryError(f"{_place(before)} redirects from HTTPS to {_place(url)}, which is not followed")
        raise RegistryError(f"{_place(url)} redirects too often")

    def post(self, url: str, form: Mapping[str, str], deadline: Deadline) -> Answer:
        """Send a form. Raises RegistryError when there is no answer."""
        return self._send(url, deadline, urllib.parse.urlencode(form).encode())

    def _send(
        self, url: str, deadline: Deadline, body: Optional[bytes] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Answer:
        _origin(url)
        place = _place(url)
        request = urllib.request.Request(url, body, {"User-Agent": "buildfleet-buildx", **(headers or {})})  # noqa: S310
        try:
            response = self._opener.open(request, timeout=max(0.1, deadline.within(SILENCE_SECONDS)))
            with response:
                names = {key.lower() for key in response.headers}
                headers = {name: ", ".join(response.headers.get_all(name)) for name in names}
                return Answer(response.status, headers, _read(response, place, deadline))
        except urllib.error.URLError as exc:
            raise _unanswered(place, exc.reason) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise _unanswered(place, exc) from exc


def _read(response: Any, place: str, deadline: Deadline) -> bytes:
    body = bytearray()
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > LARGEST:
            raise RegistryError(f"the answer of {place} is larger than {LARGEST >> 20} MiB")
        if deadline.passed:
            raise RegistryError(f"the answer of {place} did not come within {deadline.seconds:g} s")
    return bytes(body)


def _unanswered(place: str, reason: object) -> RegistryError:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UntrustedError(
            f"the certificate of {place} is not trusted: {reason.verify_message}",
            hint="Name its authority for this registry in the builder's buildkitd_config "
            '(registry."HOST".ca), or add it to the target\'s authorities.',
        )
    return RegistryError(f"{place} does not answer: {reason}")


def _joined(url: str, location: str) -> str:
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError as exc:
        raise RegistryError(f"{_place(url)} redirects to what is no address") from exc


def _origin(url: str) -> tuple[str, str, Optional[int]]:
    """Raises RegistryError for what is no plain URL of HTTP(S); somebody else wrote it."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc:
            return parts.scheme, parts.hostname, parts.port
    except ValueError:
        pass
    raise RegistryError("a registry or its token server gave an address that is none of HTTP")


def _place(url: str) -> str:
    """A URL for messages: without user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        for authority in settings.ca:
            context.load_verify_locations(cadata=authority)
        for certificate, key in settings.keypairs:
            _load_pair(context, certificate, key)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"a certificate or key of the registry's settings cannot be used: {exc}") from exc
    return context


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """The library reads pairs from files alone."""
    with tempfile.TemporaryDirectory() as directory:  # 0700
        paths = []
        for name, content in (("cert.pem", certificate), ("key.pem", key)):
            paths.append(os.path.join(directory, name))
            with _private(paths[-1]) as stream:
                stream.write(content)
        context.load_cert_chain(paths[0], paths[1], password=lambda: "")


def _private(path: str) -> contextlib.AbstractContextManager[IO[str]]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
