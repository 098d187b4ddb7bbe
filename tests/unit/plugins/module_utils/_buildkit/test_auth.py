# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers about registries, made in threads (buildkit-wire.md §9)."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import ed25519
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.auth import PREFIX, Auth
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import filesync
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Call, CallStatus, Code
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

SALT = b"s" * 32


class Known:
    """A source that knows one registry, or raises what it was given."""

    def __init__(self, seed: bytes | None = b"seed", failure: Exception | None = None) -> None:
        self._seed = seed
        self._failure = failure
        self.allowed = threading.Event()
        self.allowed.set()
        self.asked: list[Any] = []

    def credentials(self, host: str) -> tuple[str, str]:
        assert self.allowed.wait(10)
        if self._failure:
            raise self._failure
        return f"user of {host}", "secret"

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str], client_id: str) -> tuple[str, int, int]:
        self.asked.append((host, realm, service, scopes, client_id))
        return "token", 300, 17

    def seed(self, host: str) -> bytes | None:
        return self._seed


class Conversation:
    """A call as the session drives it."""

    def __init__(self, source: Known, name: str, request: bytes) -> None:
        self.call: Call = Auth(lambda: source).methods()[PREFIX + name]({})
        self.woken = threading.Event()
        self.call.wake = self.woken.set
        self.call.receive(request)
        self.call.half_close()

    def answer(self) -> bytes:
        assert self.woken.wait(10)
        (message,) = self.call.produce(1 << 16)
        assert self.call.finished
        return message


def ask(source: Known, name: str, **fields: Any) -> Any:
    request = getattr(filesync, f"{name}Request")(Host="h:1", **fields).SerializeToString()
    return getattr(filesync, f"{name}Response").FromString(Conversation(source, name, request).answer())


def test_credentials() -> None:
    answer = ask(Known(), "Credentials")
    assert (answer.Username, answer.Secret) == ("user of h:1", "secret")


def test_token() -> None:
    source = Known()
    answer = ask(source, "FetchToken", ClientID="c", Realm="r", Service="s", Scopes=["a", "b"])
    assert (answer.Token, answer.ExpiresIn, answer.IssuedAt) == ("token", 300, 17)
    assert source.asked == [("h:1", "r", "s", ["a", "b"], "c")]


def test_authority_and_its_proof() -> None:
    key = hmac.digest(SALT, b"seed", "sha256")
    assert ask(Known(), "GetTokenAuthority", Salt=SALT).PublicKey == ed25519.public_key(key)
    payload = b"p" * 32
    signed = ask(Known(), "VerifyTokenAuthority", Salt=SALT, Payload=payload).Signed
    assert signed == ed25519.sign(key, payload) + payload


@pytest.mark.parametrize("name", ["GetTokenAuthority", "VerifyTokenAuthority"])
def test_no_tokens_here(name: str) -> None:
    conversation = Conversation(Known(seed=None), name, b"")
    assert conversation.woken.wait(10)
    with pytest.raises(CallStatus) as caught:
        conversation.call.produce(1)
    assert caught.value.code == Code.UNAVAILABLE


def test_the_loop_goes_on_meanwhile() -> None:
    source = Known()
    source.allowed.clear()
    conversation = Conversation(source, "Credentials", b"")
    assert conversation.call.produce(1) == []
    assert not conversation.call.finished
    source.allowed.set()
    assert conversation.answer()


def test_an_answer_that_is_not_wanted_any_more() -> None:
    source = Known()
    source.allowed.clear()
    conversation = Conversation(source, "Credentials", b"")
    conversation.call.cancel()
    source.allowed.set()
    assert conversation.woken.wait(10)


def test_a_failure_says_what_to_do() -> None:
    failure = ConfigError("the helper broke", hint="Mend it.")
    conversation = Conversation(Known(failure=failure), "Credentials", b"")
    assert conversation.woken.wait(10)
    with pytest.raises(CallStatus, match=r"the helper broke\. Mend it\.") as caught:
        conversation.call.produce(1)
    assert caught.value.code == Code.UNKNOWN


def test_what_nobody_thought_of_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: traces.append(arguments.exc_type))
    conversation = Conversation(Known(failure=ZeroDivisionError()), "Credentials", b"")
    assert conversation.woken.wait(10)
    with pytest.raises(CallStatus) as caught:
        conversation.call.produce(1)
    assert caught.value.code == Code.INTERNAL


def test_a_request_that_is_no_message() -> None:
    conversation = Conversation(Known(), "Credentials", b"\x0a\xff")
    assert conversation.woken.wait(10)
    with pytest.raises(CallStatus) as caught:
        conversation.call.produce(1)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_one_request_alone() -> None:
    call = Auth(Known).methods()[PREFIX + "Credentials"]({})
    with pytest.raises(CallStatus):
        call.half_close()
    call.receive(b"")
    with pytest.raises(CallStatus):
        call.receive(b"")


def test_the_source_is_made_when_it_is_wanted() -> None:
    made: list[Known] = []

    def make() -> Known:
        made.append(Known())
        return made[-1]

    auth = Auth(make)
    auth.methods()
    assert made == []
    assert auth.source() is auth.source()
    assert len(made) == 1
