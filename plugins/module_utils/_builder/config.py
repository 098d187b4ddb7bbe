# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""buildkitd's configuration as the files that a node carries (buildx §2.6)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from .spec import CONFIG_DIRECTORY, CONFIG_FILE

LARGEST = 1 << 20
"""The CLI cuts every file at 1 MiB without a word; here a larger one is refused."""


GC_KEYS = ("gc", "gckeepstorage", "reservedSpace", "maxUsedSpace", "minFreeSpace", "gcpolicy")
"""What the option `gc` stands for in the table worker.oci."""


def gc_table(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of garbage collection by the worker that a builder has."""
    worker = document.get("worker")
    table = worker.get("oci") if isinstance(worker, Mapping) else None
    return {key: table[key] for key in table if _is_gc(key)} if isinstance(table, Mapping) else {}


def _is_gc(key: str) -> bool:
    return key.lower() in [known.lower() for known in GC_KEYS]


def merged(
    document: Mapping[str, Any], registries: Optional[Mapping[str, Any]], gc: Optional[Mapping[str, Any]]
) -> dict[str, Any]:
    """A configuration with other `registry` tables and another garbage collection; None leaves what it has."""
    result = {**document}
    if registries is not None:
        result.pop("registry", None)
        result.update({"registry": registries} if registries else {})
    if gc is not None:
        workers = result.pop("worker", None)
        workers = {**workers} if isinstance(workers, Mapping) else {}
        table = workers.pop("oci", None)
        table = {key: value for key, value in table.items() if not _is_gc(key)} if isinstance(table, Mapping) else {}
        table.update(gc)
        workers.update({"oci": table} if table else {})
        result.update({"worker": workers} if workers else {})
    return result


def node_files(document: Mapping[str, Any], carried: Optional[Mapping[str, bytes]] = None) -> dict[str, bytes]:
    """A configuration → path below /etc/buildkit → content.

    Certificates and keys that `registry` tables name are read here, on the target, and travel with the
    configuration, which then names their place in the container. carried: the files of a node whose configuration
    this is, with paths in the container already. Raises ConfigError.
    """
    from . import toml

    files: dict[str, bytes] = {}
    rewritten = {**document}
    registries = document.get("registry")
    if carried is not None:
        files.update({path: content for path, content in carried.items() if path != CONFIG_FILE})
    elif isinstance(registries, Mapping):
        rewritten["registry"] = {name: _registry(name, table, files) for name, table in registries.items()}
    try:
        files[CONFIG_FILE] = toml.dumps(rewritten).encode()
    except ConfigError as exc:
        raise ConfigError(f"buildkitd_config: {exc}") from exc
    return files


def _registry(name: str, table: Any, files: dict[str, bytes]) -> Any:
    if not isinstance(table, Mapping):
        return table
    directory = "certs/" + re.sub(r"[^a-zA-Z0-9.-]+", "_", name)
    table = {**table}
    if table.get("ca"):
        table["ca"] = [_carry(path, directory, f"CA of the registry {name}", files) for path in _paths(name, table)]
    if table.get("keypair"):
        table["keypair"] = [
            {part: _carry(pair[part], directory, f"{part} of the registry {name}", files) for part in ("key", "cert")}
            for pair in _pairs(name, table)
        ]
    return table


def _paths(name: str, table: Mapping[str, Any]) -> list[Any]:
    if not isinstance(table["ca"], list):
        raise ConfigError(f"ca of the registry {name} must be a list of files")
    return table["ca"]


def _pairs(name: str, table: Mapping[str, Any]) -> list[Any]:
    pairs = table["keypair"]
    if not isinstance(pairs, list) or not all(
        isinstance(pair, Mapping) and pair.get("key") and pair.get("cert") for pair in pairs
    ):
        raise ConfigError(f"keypair of the registry {name} must be a list, each with the files key and cert")
    return pairs


def _carry(path: Any, directory: str, what: str, files: dict[str, bytes]) -> str:
    target = f"{directory}/{os.path.basename(str(path))}"
    content = _read(str(path), what)
    if files.setdefault(target, content) != content:
        # The CLI lets the last one win and then trusts only that one.
        raise ConfigError(f"the {what}, {path}, has the same name as another file of that registry: rename one")
    return f"{CONFIG_DIRECTORY}/{target}"


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as exc:
        raise ConfigError(f"the {what} cannot be read: {path}: {exc.strerror}") from exc
    if len(content) > LARGEST:
        raise ConfigError(f"the {what} is larger than 1 MiB: {path}")
    return content


def read_document(path: str) -> dict[str, Any]:
    """Parse a buildkitd.toml of the target. Raises ConfigError with its path."""
    from . import toml

    try:
        return toml.loads(_read(path, "buildkitd configuration").decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8: {exc}") from exc
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from exc


def document_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The parsed configuration among a node's files, {} when there is none or it is no TOML."""
    if CONFIG_FILE not in files:
        return {}
    from . import toml

    try:
        return toml.loads(files[CONFIG_FILE].decode("utf-8"))
    except (ConfigError, UnicodeDecodeError):
        return {}
