# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a builder should be: its store entry overlaid with the options that were given (DESIGN §5)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from . import config, driver_options, flags, names
from .instance import DOCKER_CONTAINER, Instance, NodeEntry
from .options import NodeOptions
from .spec import digests

DEFAULT_CONFIG = "buildkitd.default.toml"


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
    opts = driver_options.overlaid(
        node.driver_opts, exact=options.driver_opts, typed=options.typed, env=options.env, new=new
    )
    files = _files(node, options, default)
    return dataclasses.replace(
        node,
        platforms=_platforms(node, options),
        driver_opts=opts,
        files=files,
        flags=_flags(node, options, opts, files, new=new),
    )


def _platforms(node: NodeEntry, options: NodeOptions) -> Optional[tuple[Mapping[str, Any], ...]]:
    """null, [] and nothing are the same; what is stored in whichever of these words stays."""
    if options.platforms is None or options.platforms == (node.platforms or ()):
        return node.platforms
    return options.platforms or None


def _flags(
    node: NodeEntry, options: NodeOptions, opts: Mapping[str, str], files: Mapping[str, bytes], *, new: bool
) -> Optional[tuple[str, ...]]:
    """Words that stand there already are kept: the CLI's rule adds the entitlement again behind unknown flags.

    It is applied anew where what it depends on has become another.
    """
    network = opts.get("network", "")
    given = options.flags is not None and tuple(options.flags) != (node.flags or ())
    to_host = network == "host" and node.driver_opts.get("network") != "host"
    if not (new or given or to_host or (not node.flags and files != node.files)):
        return node.flags
    words = options.flags if options.flags is not None else node.flags
    found = flags.with_entitlement(words or None, network=network, config=config.document_of(files) or None)
    return None if found is None else tuple(found)


def _files(node: NodeEntry, options: NodeOptions, default: Optional[Mapping[str, Any]]) -> Mapping[str, bytes]:
    """A configuration that says what is stored already leaves the stored text, which may have been written by hand."""
    document = options.config if options.config is not None else default
    carried = None
    if options.registries is not None or options.gc is not None:
        if document is None:
            document = config.document_of(node.files)
            carried = node.files if options.registries is None else None
        document = config.merged(document, options.registries, options.gc)
    if document is None:
        return node.files
    files = config.node_files(document, carried) if document else {}
    return node.files if digests(files) == digests(node.files) else files
