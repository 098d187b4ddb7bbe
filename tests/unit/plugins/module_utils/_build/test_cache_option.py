# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options cache_from and cache_to (buildx §5.10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._build.cache_option import Cache, exports, imports
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


@pytest.mark.parametrize(
    ("value", "caches"),
    [
        ("a/b:c", [Cache("registry", {"ref": "a/b:c"})]),
        ("a/b:c,d/e", [Cache("registry", {"ref": "a/b:c"}), Cache("registry", {"ref": "d/e"})]),
        ("inline", [Cache("inline", {})]),
        ("type=inline", [Cache("inline", {})]),
        ("", []),
        ("type=registry,ref=r:1,mode=max", [Cache("registry", {"ref": "r:1", "mode": "max"})]),
        ({"type": "registry", "ref": "r:1", "ignore-error": True},
         [Cache("registry", {"ref": "r:1", "ignore-error": "true"})]),
        ("type=local,dest=c", [Cache("local", {"dest": "/cwd/c"}, "/cwd/c")]),
        ({"type": "local", "dest": "/c", "tag": "v2", "reset": True, "mode": "max"},
         [Cache("local", {"dest": "/c", "mode": "max"}, "/c", "v2", reset=True)]),
    ],
)  # fmt: skip
def test_exports(value: Any, caches: list[Cache]) -> None:
    assert exports([value], absolute) == caches


def test_imports() -> None:
    values = ["a/b", "type=local,src=c,tag=x", {"type": "local", "src": "/c", "digest": "sha256:1"}]
    assert imports(values, absolute) == [
        Cache("registry", {"ref": "a/b"}),
        Cache("local", {"src": "/cwd/c"}, "/cwd/c", "x"),
        Cache("local", {"src": "/c", "digest": "sha256:1"}, "/c"),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"ref": "a"}, "cache_to: type required"),
        ("mode=max", "type required"),
        ("type=tape", "unknown type 'tape'"),
        ("type=s3,bucket=b", "a cache of type s3 is not supported yet"),
        ("type=local", "a local cache needs dest"),
        ("type=registry", "invalid ref of cache_to"),
        ("type=registry,ref=UPPER", "invalid ref of cache_to 'UPPER'"),
        (3, "must be a mapping"),
    ],
)
def test_what_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        exports([value], absolute)


def test_an_inline_cache_is_imported_by_its_image() -> None:
    with pytest.raises(ConfigError, match="imported as registry"):
        imports(["inline"], absolute)


def test_the_same_twice() -> None:
    with pytest.raises(ConfigError, match="the same registry cache twice"):
        exports(["a", {"type": "registry", "ref": "a"}], absolute)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        exports([{"type": "local", "dest": str(tmp_path / "file")}], absolute)
