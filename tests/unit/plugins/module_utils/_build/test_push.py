# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a push brought another image: by what registries say before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.credentials import Login
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.push import EnginePush, Push
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.registry import State
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ansible_collections.buildfleet.buildx.plugins.module_utils._build.exports import Surroundings

ONE, OTHER = State(digest="sha256:aa"), State(digest="sha256:bb")
NOBODY = Login()
UNSEEN = RegistryError("it does not answer", hint="Look at it.")


class Around:
    """The build, and registries that say one thing after another of each name."""

    def __init__(self, login: Login = NOBODY, **said: Iterable[State | RegistryError | None]) -> None:
        self.said = {name: iter(states) for name, states in said.items()}
        self.warnings: list[str] = []
        self.insecure: set[bool] = set()
        self.warn = self.warnings.append
        self.registries = self
        self._login = login

    def state(self, name: str, *, insecure: bool = False) -> State | None:
        self.insecure.add(insecure)
        found = next(self.said[name])
        if isinstance(found, RegistryError):
            raise found
        return found

    def login(self, name: str) -> Login:
        del name
        return self._login


def changed(around: Around, **attrs: str) -> bool | None:
    push = Push(attrs, list(around.said), cast("Surroundings", around))
    push.look()
    return push.finish({})


@pytest.mark.parametrize(
    ("before_and_after", "expected"), [((ONE, ONE), False), ((ONE, OTHER), True), ((None,), True), ((ONE, None), True)]
)
def test_changed(before_and_after: tuple[Any, ...], expected: bool) -> None:
    """Where there was nothing before, nobody is asked again."""
    around = Around(a=before_and_after)
    assert changed(around) is expected
    assert around.warnings == []


def test_one_name_of_several() -> None:
    assert changed(Around(a=(ONE, ONE), b=(ONE, OTHER), c=(ONE, ONE))) is True
    assert changed(Around(a=(ONE, ONE), b=(OTHER, OTHER))) is False


@pytest.mark.parametrize("said", [(UNSEEN,), (ONE, UNSEEN)])
def test_what_cannot_be_seen_counts_and_is_told_once(said: tuple[Any, ...]) -> None:
    around = Around(a=said, b=(ONE, ONE))
    assert changed(around) is True
    (warning,) = around.warnings
    assert "the registry has as a" in warning
    assert "it does not answer. Look at it." in warning


def test_a_build_that_fails_says_nothing_of_it() -> None:
    around = Around(a=(UNSEEN,))
    Push({}, ["a"], cast("Surroundings", around)).look()
    assert around.warnings == []


def test_by_digest_nothing_is_under_a_name() -> None:
    assert changed(Around(a=()), **{"push-by-digest": "true"}) is None


def test_insecure_as_the_output_says() -> None:
    around = Around(a=(ONE, ONE))
    changed(around, **{"registry.insecure": "true"})
    assert around.insecure == {True}


def test_the_engine_pushes_no_digests() -> None:
    with pytest.raises(BuildxError, match="push-by-digest"):
        EnginePush({"push-by-digest": "true"}, cast("Any", None), ["a"], cast("Any", Around()), by_manifest=False)


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (Login(), {}),
        (Login("me", "secret"), {"username": "me", "password": "secret"}),
        (Login("", "refresh"), {"identitytoken": "refresh"}),
        (Login("", "", "bearer"), {"registrytoken": "bearer"}),
    ],
)
def test_credentials_in_the_engines_words(login: Login, expected: dict[str, str]) -> None:
    push = EnginePush({}, cast("Any", None), ["a"], cast("Any", Around(login)), by_manifest=False)
    assert push._login("a") == expected
