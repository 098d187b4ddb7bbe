# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Registry authentication: the daemon asks for credentials or tokens when a registry wants them (wire §9).

What answers may have to run a program or ask a server, so each answer is made in a thread of its own, and
the session's loop goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

from .service import Call, CallFactory, CallStatus, Code, Metadata

PREFIX = "/moby.filesync.v1.Auth/"


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
        answers: dict[str, Callable[[Any], Any]] = {
            "Credentials": self._credentials,
            "FetchToken": self._fetch_token,
            "GetTokenAuthority": self._token_authority,
            "VerifyTokenAuthority": self._verify,
        }
        return {PREFIX + name: _factory(name, answer) for name, answer in answers.items()}

    @property
    def source(self) -> Source:
        with self._making:
            if self._source is None:
                self._source = self._make()
            return self._source

    def _credentials(self, request: Any) -> Any:
        from .messages import filesync

        username, secret = self.source.credentials(request.Host)
        return filesync.CredentialsResponse(Username=username, Secret=secret)

    def _fetch_token(self, request: Any) -> Any:
        from .messages import filesync

        token, expires_in, issued_at = self.source.token(
            request.Host, request.Realm, request.Service, list(request.Scopes), request.ClientID
        )
        return filesync.FetchTokenResponse(Token=token, ExpiresIn=expires_in, IssuedAt=issued_at)

    def _token_authority(self, request: Any) -> Any:
        from . import ed25519
        from .messages import filesync

        return filesync.GetTokenAuthorityResponse(PublicKey=ed25519.public_key(self._key(request)))

    def _verify(self, request: Any) -> Any:
        from . import ed25519
        from .messages import filesync

        signature = ed25519.sign(self._key(request), request.Payload)
        return filesync.VerifyTokenAuthorityResponse(Signed=signature + request.Payload)

    def _key(self, request: Any) -> bytes:
        """The private key for a registry and this start of the daemon (wire §9.2)."""
        import hmac

        seed = self.source.seed(request.Host)
        if seed is None:
            raise CallStatus(Code.UNAVAILABLE, "client side tokens disabled")
        return hmac.digest(request.Salt, seed, "sha256")


def _factory(name: str, answer: Callable[[Any], Any]) -> CallFactory:
    def make(metadata: Metadata) -> Call:
        del metadata
        return _Answer(name, answer)

    return make


class _Answer(Call):
    """A call whose answer is made in a thread. When the daemon does not want it any more it is made for nobody."""

    def __init__(self, name: str, answer: Callable[[Any], Any]) -> None:
        self._name = name
        self._answer = answer
        self._thread: Optional[threading.Thread] = None
        self._outcome: Optional[bytes] = None
        self._failure: Optional[CallStatus] = None

    def receive(self, message: bytes) -> None:
        if self._thread is not None:
            raise CallStatus(Code.INTERNAL, "more than one message in a unary call")
        self._thread = threading.Thread(target=self._work, args=(message,), name="auth", daemon=True)
        self._thread.start()

    def half_close(self) -> None:
        if self._thread is None:
            raise CallStatus(Code.INTERNAL, "no message in a unary call")

    def produce(self, budget: int) -> list[bytes]:
        del budget
        if self._failure is not None:
            raise self._failure
        if self._outcome is None:
            return []
        self.finished = True
        return [self._outcome]

    def _work(self, message: bytes) -> None:
        from .messages import filesync

        # What is said when the work below ends in a way that nobody thought of; its traceback goes to stderr.
        failure: Optional[CallStatus] = CallStatus(Code.INTERNAL, f"{self._name} broke")
        try:
            request = getattr(filesync, f"{self._name}Request").FromString(message)
            self._outcome = self._answer(request).SerializeToString()
            failure = None
        except require("google.protobuf.message").DecodeError:
            failure = CallStatus(Code.INVALID_ARGUMENT, f"the request of {self._name} is no message")
        except CallStatus as exc:
            failure = exc
        except BuildxError as exc:
            failure = CallStatus(Code.UNKNOWN, f"{exc}. {exc.hint}" if exc.hint else str(exc))
        finally:
            self._failure = failure
            self.wake()
