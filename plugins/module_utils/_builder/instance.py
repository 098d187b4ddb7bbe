# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""An entry of the store: what is written down of a builder (buildx §1.3), and its bytes as the CLI writes them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import StoreError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import is_true

DOCKER_CONTAINER, REMOTE = "docker-container", "remote"

Value = TypeVar("Value", str, list[Any], dict[str, Any])


@dataclass(frozen=True)
class NodeEntry:
    """One node of a builder.

    platforms:   the fixed ones, as the JSON objects of the file; None: not set.
    driver_opts: option → text, `env.NAME` among them.
    flags:       arguments of buildkitd; None: none were ever computed.
    files:       path below /etc/buildkit → content; private keys may be among them.
    """

    name: str
    endpoint: str
    platforms: Optional[tuple[Mapping[str, Any], ...]] = None
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    flags: Optional[tuple[str, ...]] = None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def default_load(self) -> bool:
        """Whether results go to the engine when no output is named; any word that Go takes for true (buildx §3.2)."""
        return is_true(self.driver_opts.get("default-load"))


@dataclass(frozen=True)
class Instance:
    """One builder. name: as it was typed, the case is kept."""

    name: str
    driver: str
    nodes: tuple[NodeEntry, ...]
    dynamic: bool = False


def decode(text: str, path: str) -> Instance:
    """Read an instance file. null, missing and empty mean the same. Raises StoreError that names the path."""
    try:
        document = _table(json.loads(text))
        name = _text(document["Name"])
        if not name:
            raise ValueError("it has no Name")
        return Instance(
            name=name,
            driver=_text(document.get("Driver")),
            nodes=tuple(_node(_table(node)) for node in _list(document.get("Nodes"))),
            dynamic=document.get("Dynamic") is True,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as exc:  # binascii.Error is a ValueError
        why = f"a {exc.args[0]} is missing" if isinstance(exc, KeyError) else exc
        raise StoreError(
            f"the store's file {path} is corrupt: {why}",
            hint="Nothing was changed. Repair the file or move it away.",
        ) from exc


def _node(node: Mapping[str, Any]) -> NodeEntry:
    flags, platforms = node.get("Flags"), node.get("Platforms")
    return NodeEntry(
        name=_text(node["Name"]),
        endpoint=_text(node.get("Endpoint")),
        platforms=None if platforms is None else tuple(_table(platform) for platform in _list(platforms)),
        driver_opts={key: _text(value) for key, value in _table(node.get("DriverOpts")).items()},
        flags=None if flags is None else tuple(_text(flag) for flag in _list(flags)),
        files={
            path: base64.b64decode(_text(content), validate=True) for path, content in _table(node.get("Files")).items()
        },
    )


def _text(value: Any) -> str:
    return _of_type(str, value)


def _list(value: Any) -> list[Any]:
    return _of_type(list, value)


def _table(value: Any) -> dict[str, Any]:
    return _of_type(dict, value)


def _of_type(kind: type[Value], value: Any) -> Value:
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} where a JSON {kind.__name__} should be")
    return value


def encode(instance: Instance) -> str:
    """The file's content, byte for byte what the CLI writes for the same builder."""
    return go_json(
        {
            "Name": instance.name,
            "Driver": instance.driver,
            "Nodes": [_node_document(node) for node in instance.nodes],
            "Dynamic": instance.dynamic,
        }
    )


def _node_document(node: NodeEntry) -> dict[str, object]:
    return {
        "Name": node.name,
        "Endpoint": node.endpoint,
        "Platforms": None if node.platforms is None else list(node.platforms),
        "DriverOpts": {key: node.driver_opts[key] for key in sorted(node.driver_opts)} or None,
        "Flags": None if node.flags is None else list(node.flags),
        "Files": {path: base64.b64encode(node.files[path]).decode() for path in sorted(node.files)} or None,
    }


_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""What a byte of a path that is not UTF-8 is in Python."""


def go_json(value: object) -> str:
    """Compact JSON in the form of Go's encoder, which also escapes what could be taken for HTML, and replaces what is
    no text."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)
    return _NO_TEXT.sub(r"\\ufffd", text)
