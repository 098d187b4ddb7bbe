# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.
"""Results that are pushed: whether a registry has another image under a name than before (DESIGN §4.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Optional, Protocol

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError, EngineError, RegistryError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import is_true

from .exports import MOBY, Export, Load

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine

    from .credentials import Login
    from .exports import Surroundings
    from .registry import State


class Registries(Protocol):
    """What a push asks of registries."""

    def state(self, name: str, *, insecure: bool = False) -> Optional[State]:
        """What there is under an image's name, None: nothing. Raises RegistryError when it cannot be seen from here."""

    def login(self, name: str) -> Login:
        """The credentials for the registry of an image."""


class Push(Export):
    """An image that the daemon pushes. names: where to."""

    def __init__(self, attrs: Mapping[str, str], names: Sequence[str], around: Surroundings) -> None:
        super().__init__("image", attrs)
        # By digest, nothing is looked for under a tag, and what was there before has no name yet.
        self._names = [] if is_true(attrs.get("push-by-digest")) else names
        self._around = around
        self._look = _Look(self._state, around.warn)

    def _state(self, name: str) -> object:
        return self._around.registries.state(name, insecure=is_true(self.attrs.get("registry.insecure")))

    def look(self) -> None:
        self._look.before(self._names)

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        del response
        return self._look.changed(self._names)


class EnginePush(Load):
    """An image that the BuildKit inside an engine made, and that the engine pushes afterwards."""

    def __init__(
        self,
        attrs: Mapping[str, str],
        engine: Engine,
        names: Sequence[str],
        around: Surroundings,
        *,
        by_manifest: bool,
    ) -> None:
        if is_true(attrs.get("push-by-digest")):
            raise BuildxError("push-by-digest is not supported by the BuildKit inside an engine, which pushes by name")
        kept = {key: value for key, value in attrs.items() if key not in ("push", "unpack")}
        super().__init__(MOBY, kept, engine, names, by_manifest=by_manifest, step=lambda: around.step("pushing"))
        self._around = around
        self._registry = _Look(self._state, around.warn)

    def look(self) -> None:
        super().look()
        self._registry.before(self._names)

    def finish(self, response: Mapping[str, str]) -> Optional[bool]:
        """Whether a registry has another image, or the engine, in which it is as well."""
        from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import distribution

        loaded = super().finish(response)
        for name in self._names:
            with self._around.step(f"pushing {name} with docker") as step:
                distribution.push(self._engine, name, self._login(name), step.log)
        return self._registry.changed(self._names) or bool(loaded)

    def _state(self, name: str) -> object:
        """The engine asks, since it has settings of its own for each registry."""
        from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import distribution

        return distribution.digest(self._engine, name, self._login(name))

    def _login(self, name: str) -> dict[str, str]:
        """Credentials in the words of the engine's API."""
        login = self._around.registries.login(name)
        if login.registry_token:
            return {"registrytoken": login.registry_token}
        if login.username or not login.secret:
            return {"username": login.username, "password": login.secret} if login.username else {}
        return {"identitytoken": login.secret}


class _Look:
    """What names meant before, and whether they mean something else now. What cannot be seen counts as a change."""

    def __init__(self, state: Callable[[str], object], warn: Callable[[str], None]) -> None:
        self._state = state
        self._warn = warn
        self._before: dict[str, object] = {}

    def before(self, names: Sequence[str]) -> None:
        self._before = {name: self._seen(name) for name in names}

    def changed(self, names: Sequence[str]) -> Optional[bool]:
        """None when there is no name to look at. Every name is looked at, so that each is warned of."""
        found = {name: self._is_another(name) for name in names}
        return any(found.values()) if found else None

    def _is_another(self, name: str) -> bool:
        before = self._before[name]
        if before is None:
            return True
        after = before if isinstance(before, BuildxError) else self._seen(name)
        if isinstance(after, BuildxError):
            self._warn(
                f"what the registry has as {name} could not be seen from here, so that the push counts as a change: "
                f"{after}{f'. {after.hint}' if after.hint else ''}"
            )
            return True
        return after != before

    def _seen(self, name: str) -> object:
        """What a name means, or why that cannot be known."""
        try:
            return self._state(name)
        except (RegistryError, EngineError) as exc:
            return exc
