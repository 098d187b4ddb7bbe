# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What the Auth service answers (wire §9).

An answer may have to run a program or ask a server, so each is made in a thread of its own, and the session's loop
goes on.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

from . import ed25519
from .auth import Source
from .messages import filesync
from .service import Call, CallStatus, Code


def _credentials(source: Source, request: Any) -> Any:
    username, secret = source.credentials(request.Host)
    return filesync.CredentialsResponse(Username=username, Secret=secret)


def _fetch_token(source: Source, request: Any) -> Any:
    token, expires_in, issued_at = source.token(
        request.Host, request.Realm, request.Service, list(request.Scopes), request.ClientID
    )
    return filesync.FetchTokenResponse(Token=token, ExpiresIn=expires_in, IssuedAt=issued_at)


def _token_authority(source: Source, request: Any) -> Any:
    return filesync.GetTokenAuthorityResponse(PublicKey=ed25519.public_key(_key(source, request)))


def _verify(source: Source, request: Any) -> Any:
    signature = ed25519.sign(_key(source, request), request.Payload)
    return filesync.VerifyTokenAuthorityResponse(Signed=signature + request.Payload)


def _key(source: Source, request: Any) -> bytes:
    """The private key for a registry and this start of the daemon (wire §9.2)."""
    seed = source.seed(request.Host)
    if seed is None:
        raise CallStatus(Code.UNAVAILABLE, "client side tokens disabled")
    return hmac.digest(request.Salt, seed, "sha256")


_ANSWERS: dict[str, Callable[[Source, Any], Any]] = {
    "Credentials": _credentials,
    "FetchToken": _fetch_token,
    "GetTokenAuthority": _token_authority,
    "VerifyTokenAuthority": _verify,
}


class Answer(Call):
    """A call whose answer is made in a thread. When the daemon does not want it any more it is made for nobody."""

    def __init__(self, name: str, source: Callable[[], Source]) -> None:
        self._name = name
        self._source = source
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
        # What is said when the work below ends in a way that nobody thought of; its traceback goes to stderr.
        failure: Optional[CallStatus] = CallStatus(Code.INTERNAL, f"{self._name} broke")
        try:
            request = getattr(filesync, f"{self._name}Request").FromString(message)
            self._outcome = _ANSWERS[self._name](self._source(), request).SerializeToString()
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
