# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hierarchy of errors is part of the modules' interface: playbooks test `error.kind`."""

from __future__ import annotations

import inspect
import json

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils import _deps as deps
from ansible_collections.buildfleet.buildx.plugins.module_utils import _errors as errors
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

KINDS = {
    "BuildxError": "internal",
    "ConfigError": "config",
    "StoreError": "store",
    "EngineError": "engine",
    "EngineUnreachable": "engine_unreachable",
    "BuilderError": "builder",
    "BuildkitError": "buildkit",
    "PeerProtocolError": "protocol",
    "SolveError": "solve",
    "RegistryError": "registry",
    "DeadlineError": "timeout",
    "MissingLibrary": "missing_library",
}
CLASSES = [
    item
    for module in (errors, deps)
    for _name, item in inspect.getmembers(module, inspect.isclass)
    if issubclass(item, BuildxError) and item.__module__ == module.__name__
]


def test_the_words_that_playbooks_test_are_stable() -> None:
    assert {item.__name__: item.kind for item in CLASSES} == KINDS


def test_each_kind_is_said_once() -> None:
    assert len({item.kind for item in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("item", CLASSES, ids=lambda item: item.__name__)
def test_there_is_one_root(item: type[Exception]) -> None:
    assert issubclass(item, BuildxError)
    assert item.__doc__


@pytest.mark.parametrize(
    ("special", "general"),
    [("EngineUnreachable", "EngineError"), ("PeerProtocolError", "BuildkitError"), ("SolveError", "BuildkitError")],
)
def test_who_catches_the_general_catches_the_special(special: str, general: str) -> None:
    assert issubclass(getattr(errors, special), getattr(errors, general))


def test_an_error_carries_what_to_do_next_and_facts() -> None:
    error = errors.EngineError("could not pull x", hint="Check the name.", status=404)
    assert str(error) == "could not pull x"
    assert error.details == {"status": 404}
    assert json.loads(json.dumps(error.to_result())) == {"kind": "engine", "hint": "Check the name."}


def test_nothing_more_is_needed_than_a_message() -> None:
    error = BuildxError("broken")
    assert error.details == {}
    assert error.to_result() == {"kind": "internal", "hint": None}


def test_details_of_one_error_are_not_those_of_another() -> None:
    BuildxError("one").details["steps"] = ["a"]
    assert BuildxError("other").details == {}
