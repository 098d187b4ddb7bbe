# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What answers of engines mean that the lab does not have: newer ones list images of which parts are missing."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

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
    asked: list[tuple[str, dict[str, str]]] = []
    engine = Engine(Target("unix:///run/some.sock"))

    def get(url: str, params: dict[str, str]) -> list[Any]:
        asked.append((url, params))
        return rows

    engine._api = SimpleNamespace(base_url="http+docker://x", _get=get, _result=lambda answer, json: answer)

    assert images.complete(engine, "app:1") == expected
    ((url, params),) = asked
    assert url == "http+docker://x/images/json"
    assert json.loads(params["filters"]) == {"reference": ["app:1"]}
    assert params["manifests"] == "1"
