# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option secrets (buildx §5.7): from where a value comes, and that no message holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.secret_option import LARGEST, values
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

VARIABLES = {"TOKEN": "from the environment", "id": "called like the secret"}


def read(*options: dict[str, Any]) -> dict[str, bytes]:
    empty: dict[str, Optional[str]] = {"type": None, "src": None, "env": None, "value": None}
    found = values([{**empty, **option} for option in options], str, VARIABLES.get)
    return {identity: get() for identity, get in found.items()}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ({"id": "x", "value": "text ü"}, "text ü".encode()),
        ({"id": "x", "type": "value", "value": ""}, b""),
        ({"id": "x", "env": "TOKEN"}, b"from the environment"),
        ({"id": "x", "type": "env", "env": "NOT_SET"}, b""),
        ({"id": "TOKEN", "type": "env"}, b"from the environment"),
        ({"id": "id"}, b"called like the secret"),
    ],
)
def test_texts_and_variables(option: dict[str, Any], value: bytes) -> None:
    assert read(option) == {option["id"]: value}


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\0\xffbytes\n")
    assert read({"id": "x", "src": str(file)}) == {"x": b"\0\xffbytes\n"}
    assert read({"id": str(file)}) == {str(file): b"\0\xffbytes\n"}


def test_a_file_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    get = values([{"id": "x", "type": None, "src": str(file), "env": None, "value": None}], str, VARIABLES.get)["x"]
    file.write_text("new")
    assert get() == b"new"


def test_the_last_of_two_counts() -> None:
    assert read({"id": "x", "value": "1"}, {"id": "x", "value": "2"}) == {"x": b"2"}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"id": "", "value": "hidden"}, "secret missing ID"),
        ({"id": "x", "value": "hidden", "env": "TOKEN"}, "has env and value: only one"),
        ({"id": "x", "type": "file", "value": "hidden"}, "of type file and cannot have value"),
        ({"id": "x", "type": "value"}, "of type value and has none"),
        ({"id": "x", "src": "/does/not/exist"}, "/does/not/exist: No such file or directory"),
        ({"id": "x", "src": "/"}, "cannot be read"),
        ({"id": "x", "value": "hidden" * LARGEST}, "more than 500 KiB"),
    ],
)
def test_what_is_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(option)
    assert "hidden" not in str(caught.value)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGEST + 1))
    with pytest.raises(ConfigError, match="more than 500 KiB"):
        read({"id": "x", "src": str(file)})
