# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The third-party libraries of the target, imported late and missed politely.

Importing docker-py costs 120 ms and grpc 70 ms, so that nothing imports them before a path needs them:
every room calls `require` inside its functions (DESIGN §4.13). It also lets Ansible load each file
where the libraries are absent.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

DISTRIBUTIONS = {"docker": "docker", "grpc": "grpcio", "google": "protobuf", "requests": "requests"}
"""Top-level package → the name that pip knows."""


class MissingLibrary(BuildxError):  # noqa: N818 - the word is the message
    """A library that the target needs is not installed for this interpreter.

    library: what to install.
    cause:   the ImportError's text.
    """

    kind = "missing_library"

    def __init__(self, library: str, cause: str) -> None:
        super().__init__(f"the Python library {library} is missing: {cause}")
        self.library = library


def require(name: str) -> ModuleType:
    """Import the module `name` of docker, grpc or protobuf. Raises MissingLibrary."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingLibrary(DISTRIBUTIONS[name.partition(".")[0]], str(exc)) from exc


def expect(name: str) -> None:
    """`require` without the time that an import takes, for what a run may not need. Raises MissingLibrary."""
    try:
        cause = "" if importlib.util.find_spec(name) else f"No module named {name!r}"
    except ImportError as exc:
        cause = str(exc)
    if cause:
        raise MissingLibrary(DISTRIBUTIONS[name.partition(".")[0]], cause)


def require_buildkit() -> None:
    """What speaking to a daemon needs, asked for before anything is done that only a daemon's answer completes.

    Raises MissingLibrary.
    """
    require("grpc")
    require("google.protobuf")
