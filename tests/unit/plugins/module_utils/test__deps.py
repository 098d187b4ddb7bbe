# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils import _deps as deps


def test_what_is_there_is_imported() -> None:
    assert deps.require("json") is json


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("grpc.no_such_part", "grpcio"),
        ("google.no_such_part", "protobuf"),
        ("docker.no_such_part", "docker"),
        ("requests.no_such_part", "requests"),
    ],
)
def test_what_is_missing_is_named_as_pip_names_it(module: str, library: str) -> None:
    with pytest.raises(deps.MissingLibrary, match=f"the Python library {library} is missing") as caught:
        deps.require(module)
    assert caught.value.library == library
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_library_that_fails_to_load_is_missing_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled extension for another Python is an ImportError too; its words are what helps."""

    def fail(name: str) -> None:
        raise ImportError("cygrpc.so: undefined symbol: PyUnicode_New")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(deps.MissingLibrary, match="undefined symbol"):
        deps.require("grpc")


def test_a_mistake_of_ours_is_no_missing_library() -> None:
    with pytest.raises(KeyError):
        deps.require("no_such_library_of_anybody")
