# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The one hierarchy of everything that this collection raises on purpose.

An error is raised where it is understood, with a message that says what happened and to what, and a
hint that says what to do. `_module.run_module` is the only place that turns it into a failed task.
"""

from __future__ import annotations

from typing import Optional


class BuildxError(Exception):
    """Root of the hierarchy.

    kind:    a stable word that a playbook may test (`result.error.kind == "solve"`).
    hint:    one sentence that says what to do next, or None.
    details: JSON-safe facts that join the result of the failed task, never a secret.
    """

    kind = "internal"

    def __init__(self, message: str, *, hint: Optional[str] = None, **details: object) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details

    def to_result(self) -> dict[str, object]:
        """The value of `error` in a failed result."""
        return {"kind": self.kind, "hint": self.hint}


class ConfigError(BuildxError):
    """An option, or a file that an option names, is not usable. Nothing was changed."""

    kind = "config"


class StoreError(BuildxError):
    """The store that is shared with the CLI cannot be read or written."""

    kind = "store"


class EngineError(BuildxError):
    """The Docker engine could not be asked, or refused."""

    kind = "engine"


class EngineUnreachable(EngineError):  # noqa: N818 - the word is the message
    """No engine answers at the address."""

    kind = "engine_unreachable"
    ADVICE = "Is the engine running, and may this user talk to it? docker_host names another one."


class BuilderError(BuildxError):
    """A builder is not there, or does not become what was asked for."""

    kind = "builder"


class BuildkitError(BuildxError):
    """The conversation with a BuildKit daemon failed: transport, session, gRPC."""

    kind = "buildkit"


class PeerProtocolError(BuildkitError):
    """The other side broke the protocol."""

    kind = "protocol"


class SolveError(BuildkitError):
    """The build itself failed: a step, the Dockerfile, an export."""

    kind = "solve"


class RegistryError(BuildxError):
    """A registry could not be asked, or refused; what it holds is not known."""

    kind = "registry"


class DeadlineError(BuildxError):
    """Something did not happen in the time that was given to it."""

    kind = "timeout"
