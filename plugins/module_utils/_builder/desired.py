# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a builder should be: its store entry overlaid with the options that were given (DESIGN §5)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from . import config, flags, names, sizes
from .instance import DOCKER_CONTAINER, Instance, NodeEntry
from .spec import DEFAULT_IMAGE, digests

DEFAULT_CONFIG = "buildkitd.default.toml"
PULL_POLICIES = ("auto", "always", "missing", "never")


@dataclass(frozen=True)
class NodeOptions:
    """What a task says of a node. None: not given, what is stored stays; {}, [] or "": back to the default.

    endpoint: as the store keeps it. env: NAME → text. flags: words. config: a parsed buildkitd.toml.
    """

    endpoint: Optional[str] = None
    image: Optional[str] = None
    env: Optional[Mapping[str, str]] = None
    memory: Optional[str] = None
    config: Optional[Mapping[str, Any]] = None
    flags: Optional[Sequence[str]] = None


def from_params(params: Mapping[str, Any], endpoint: Optional[str]) -> NodeOptions:
    """Read a task's options. Raises ConfigError that names the option."""
    given = params.get("buildkitd_flags")
    if isinstance(given, str):
        given = flags.split(given)
    elif given is not None and not isinstance(given, list):
        raise ConfigError("buildkitd_flags must be a string or a list of strings")
    if params.get("image"):
        reference.parse(params["image"], what="image")
    memory = params.get("memory")
    if memory:
        try:
            sizes.ram_in_bytes(memory)
        except ConfigError as exc:
            raise ConfigError(
                f"memory: {exc}", hint="It is a number of bytes, or one with a unit, such as 512m or 2g."
            ) from exc
    env = params.get("env")
    return NodeOptions(
        endpoint=endpoint,
        image=params.get("image"),
        env=None if env is None else {_variable(name): _value(name, value) for name, value in env.items()},
        memory=memory,
        config=params.get("buildkitd_config"),
        flags=None if given is None else [_flag(flag) for flag in given],
    )


def _variable(name: Any) -> str:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise ConfigError(f"env: {name!r} cannot be the name of a variable")
    return name


def _value(name: str, value: Any) -> str:
    """A variable's value. A list or a dict in YAML is a slip of the pen, and would arrive as Python writes it."""
    text = plain_text(value)
    if isinstance(value, (list, dict)) or "\0" in text:
        raise ConfigError(f"env: the value of {name} is no plain text")
    return text


def _flag(word: Any) -> str:
    if isinstance(word, (list, dict)) or word is None or "\0" in str(word):
        raise ConfigError(f"buildkitd_flags: {word!r} is no plain text")
    return str(word)


def plain_text(value: Any) -> str:
    """A value of YAML as text; true and false as YAML writes them."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def desired(name: str, stored: Optional[Instance], options: NodeOptions, endpoint: str, store: str) -> Instance:
    """The entry that a builder should have.

    endpoint: where a node goes that names none. store: the directory that may hold the user's default
    configuration, which applies to new nodes only. Raises ConfigError.
    """
    if stored is None or not stored.nodes:
        node = NodeEntry(name=names.next_node_name(name, ()), endpoint=options.endpoint or endpoint)
        nodes = (_overlay(node, options, _default_config(store), new=True),)
        return Instance(name, DOCKER_CONTAINER, nodes) if stored is None else dataclasses.replace(stored, nodes=nodes)
    first, *others = stored.nodes
    if options.endpoint is not None and options.endpoint != first.endpoint:
        raise ConfigError(
            f"the builder {name} is at {first.endpoint}; it cannot be moved to {options.endpoint}",
            hint="Its cache would stay behind: remove it first (state: absent), then create it there.",
        )
    return dataclasses.replace(stored, nodes=(_overlay(first, options, None, new=False), *others))


def _default_config(store: str) -> Optional[dict[str, Any]]:
    path = os.path.join(store, DEFAULT_CONFIG)
    return config.read_document(path) if os.path.exists(path) else None


def _overlay(node: NodeEntry, options: NodeOptions, default: Optional[Mapping[str, Any]], *, new: bool) -> NodeEntry:
    driver_opts = _driver_opts(node, options, new=new)
    document = options.config if options.config is not None else default
    files = _files(node, document)
    stored = None if new else node.flags
    # Words that stand there already are kept: the rule below adds the entitlement again behind a flag it does not know.
    if new or (options.flags is not None and tuple(options.flags) != node.flags):
        words = options.flags or None
        found = flags.with_entitlement(
            words, network=driver_opts.get("network", ""), config=config.document_of(files) or None
        )
        stored = None if found is None else tuple(found)
    return dataclasses.replace(node, driver_opts=driver_opts, files=files, flags=stored)


def _files(node: NodeEntry, document: Optional[Mapping[str, Any]]) -> Mapping[str, bytes]:
    """A configuration that says what is stored already leaves the stored text, which may have been written by hand."""
    if document is None:
        return node.files
    files = config.node_files(document) if document else {}
    return node.files if digests(files) == digests(node.files) else files


def _driver_opts(node: NodeEntry, options: NodeOptions, *, new: bool) -> dict[str, str]:
    """An option that says what is stored already in other words leaves the stored words: they are no drift."""
    result = dict(node.driver_opts)
    image, memory = result.get("image") or DEFAULT_IMAGE, result.get("memory") or ""
    if options.image is not None and (new or not reference.same(options.image or DEFAULT_IMAGE, image)):
        _set(result, "image", options.image)
    if options.memory is not None and _bytes(options.memory) != _bytes(memory):
        _set(result, "memory", options.memory if _bytes(options.memory) else "")
    if options.env is not None:
        result = {key: value for key, value in result.items() if not key.startswith("env.")}
        result.update({f"env.{name}": value for name, value in options.env.items()})
    return result


def _set(options: dict[str, str], key: str, value: str) -> None:
    if value:
        options[key] = value
    else:
        options.pop(key, None)


def _bytes(memory: str) -> int:
    return sizes.ram_in_bytes(memory) if memory else 0
