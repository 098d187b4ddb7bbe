# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What answers of engines mean that the lab does not have: newer ones list images of which parts are missing."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Target

WHOLE, PART = {"Available": True}, {"Available": False}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([{"Id": "sha256:1"}], "sha256:1"),
        ([{"Id": "sha256:1", "Manifests": None}], "sha256:1"),
        ([{"Id": "sha256:1", "Manifests": [WHOLE, WHOLE]}], "sha256:1"),
        ([{"Id": "sha256:1", "Manifests": [WHOLE, PART]}], None),
        ([{"Id": "sha256:1", "Manifests": [PART]}], None),
    ],
    ids=["none", "older", "null", "whole", "a part is missing", "all is missing"],
)
def test_complete(rows: list[Any], expected: str | None) -> None:
    """An image counts when the engine has all of it; asked is for nothing but its name, and for what is there of it."""
    asked: list[str] = []
    engine: Any = Engine(Target("unix:///run/some.sock", api_version="1.41"))

    def ask(what: str, method: str, path: str, body: object) -> tuple[int, bytes]:
        asked.append(path)
        return 200, json.dumps(rows).encode()

    engine._questions = SimpleNamespace(ask=ask)

    assert images.complete(engine, "app:1") == expected
    (url,) = asked
    path, _mark, query = url.partition("?")
    assert path == "/images/json", "in the newest version of the API: older ones do not tell"
    params = dict(parse_qsl(query))
    assert json.loads(params["filters"]) == {"reference": ["app:1"]}
    assert params["manifests"] == "1"
