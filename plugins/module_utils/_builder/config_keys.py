# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The keys of buildkitd.toml: the type of each, and the BuildKit that first had it (wire §12)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

from . import sizes

OLDEST, NEWEST = 12, 34
"""The releases 0.x that the table knows: a key without a number was there before all of them."""

_TABLE = """
debug bool
trace bool
root text
insecure-entitlements list
proxyNetwork bool 31
provenanceEnvDir text 25
log.format text 13
log.level text 30
grpc.address list
grpc.debugAddress text
grpc.uid int
grpc.gid int
grpc.securityDescriptor text 14
grpc.tls.cert text
grpc.tls.key text
grpc.tls.ca text
otel.socketPath text 13
cdi.disabled bool 20
cdi.specDirs list 20
cdi.autoAllowed list 20
WORKER.enabled bool
WORKER.labels.* text
WORKER.platforms list
WORKER.snapshotter text
WORKER.gc bool
WORKER.gckeepstorage space
WORKER.reservedSpace space 17
WORKER.maxUsedSpace space 17
WORKER.minFreeSpace space 17
WORKER.gcpolicy[].all bool
WORKER.gcpolicy[].filters list
WORKER.gcpolicy[].keepDuration duration
WORKER.gcpolicy[].keepBytes space
WORKER.gcpolicy[].reservedSpace space 17
WORKER.gcpolicy[].maxUsedSpace space 17
WORKER.gcpolicy[].minFreeSpace space 17
WORKER.networkMode text
WORKER.cniConfigPath text
WORKER.cniBinaryPath text
WORKER.cniPoolSize int
WORKER.bridgeName text 13
WORKER.bridgeSubnet text 13
WORKER.defaultCgroupParent text
WORKER.apparmor-profile text
WORKER.selinux bool
WORKER.max-parallelism int
WORKER.rootless bool
worker.oci.noProcessSandbox bool
worker.oci.binary text
worker.oci.proxySnapshotterPath text
worker.oci.stargzSnapshotter any
worker.oci.userRemapUnsupported text
worker.containerd.address text
worker.containerd.namespace text
worker.containerd.hypervIsolation bool 34
worker.containerd.runtime.name text 13
worker.containerd.runtime.path text 13
worker.containerd.runtime.options any 13
registry.*.mirrors list
registry.*.http bool
registry.*.insecure bool
registry.*.ca list
registry.*.keypair[].key text
registry.*.keypair[].cert text
registry.*.tlsconfigdir list
dns.nameservers list
dns.options list
dns.searchDomains list
history.maxAge duration
history.maxEntries int
frontend.dockerfile\\.v0.enabled bool 14
frontend.gateway\\.v0.enabled bool 14
frontend.gateway\\.v0.allowedRepositories list 14
system.platformsCacheMaxAge duration 14
system.maxRegistryConcurrency int 31
system.sessionAuthTimeout duration 34
compaction.enabled bool 34
compaction.idleTimeout duration 34
compaction.maxRetry int 34
compaction.writesPerCheck int 34
compaction.sizeWatermark int 34
compaction.sizeGrowthPercent int 34
compaction.minReclaimBytes int 34
compaction.minReclaimPercent int 34
compaction.minReclaimPercentFloor int 34
cache.gha.sign.command list 27
cache.gha.verify.required bool 27
cache.gha.verify.policy any 27
"""
"""`*`: any name, as in a map. `[]`: each table of a list. WORKER: worker.oci as well as worker.containerd."""

_DURATION = re.compile(r"[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass
class Key:
    """One key: a table with keys of its own, or a value.

    name: as BuildKit writes it. kind: of a value, "" for a table. many: a list of such tables. since: 0.x.
    keys: in lower case, since BuildKit does not tell cases apart; `*` stands for any name.
    """

    name: str
    kind: str = ""
    since: int = 0
    many: bool = False
    keys: Optional[dict[str, Key]] = None

    def child(self, name: str) -> Optional[Key]:
        keys = self.keys or {}
        return keys.get(name.lower()) or keys.get("*")


def _tree() -> Key:
    top = Key("")
    for line in _TABLE.split("\n"):
        path, _blank, rest = line.partition(" ")
        for worker in ("worker.oci", "worker.containerd") if "WORKER" in path else ("",):
            _plant(top, path.replace("WORKER", worker), rest.split())
    return top


def _plant(top: Key, path: str, words: list[str]) -> None:
    if not path:
        return
    kind, since = words[0], int(words[1]) if len(words) > 1 else 0
    here = top
    for word in re.split(r"(?<!\\)\.", path):
        many, name = word.endswith("[]"), word.replace("[]", "").replace("\\", "")
        here.keys = here.keys if here.keys is not None else {}
        here = here.keys.setdefault(name.lower(), Key(name, many=many, since=since))
        here.since = min(here.since, since)
    here.kind = kind


TREE = _tree()


@dataclass(frozen=True)
class Setting:
    """A key of a document. path: its names, from the outermost. key None: BuildKit does not know it."""

    path: tuple[str, ...]
    value: Any
    key: Optional[Key]
    parent: Key

    @property
    def where(self) -> str:
        return ".".join(f'"{name}"' if "." in name else name for name in self.path)

    def nearest(self) -> Optional[str]:
        """The known key beside this one that looks most like it."""
        known = {name: key.name for name, key in (self.parent.keys or {}).items() if name != "*"}
        close = difflib.get_close_matches(self.path[-1].lower(), known, n=1)
        return known[close[0]] if close else None


def settings(document: Mapping[str, Any]) -> Iterator[Setting]:
    """Every value of a document, and every table that should be none or is not known, in its order."""
    yield from _settings(document, TREE, ())


def _settings(table: Mapping[str, Any], parent: Key, path: tuple[str, ...]) -> Iterator[Setting]:
    for name, value in table.items():
        key = parent.child(str(name))
        here = (*path, str(name))
        if key is None or key.kind:
            yield Setting(here, value, key, parent)
        elif key.many and isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            for item in value:
                yield from _settings(item, key, here)
        elif not key.many and isinstance(value, Mapping):
            yield from _settings(value, key, here)
        else:
            yield Setting(here, value, key, parent)


def coerced(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the types that BuildKit's configuration has, where a value says it: "true", "4" (templates).

    What cannot be meant stays as it is, for the checks to tell.
    """
    return _coerced(document, TREE)


def _coerced(table: Mapping[str, Any], parent: Key) -> dict[str, Any]:
    result = {}
    for name, value in table.items():
        key = parent.child(str(name))
        if key is None:
            result[name] = value
        elif key.kind:
            result[name] = _value(key.kind, value)
        elif isinstance(value, Mapping):
            result[name] = _coerced(value, key)
        elif key.many and isinstance(value, list):
            result[name] = [_coerced(item, key) if isinstance(item, Mapping) else item for item in value]
        else:
            result[name] = value
    return result


def _value(kind: str, value: Any) -> Any:
    if kind == "bool" and str(value).lower() in (*_TRUE, *_FALSE):
        return str(value).lower() in _TRUE
    if kind in ("int", "space", "duration") and isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value.strip()):
        return int(value)
    if kind == "text":
        return _text(value)
    if kind == "list" and isinstance(value, list):
        return [_text(item) for item in value]
    return value


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


def complaint(kind: str, value: Any) -> Optional[str]:
    """Why a value is not of its type, None when it is; completes "KEY …"."""
    fits, words = _TYPES.get(kind, (lambda value: True, ""))
    return None if fits(value) else f"must be {words}, it is {value!r}"


def _is_duration(value: Any) -> bool:
    if isinstance(value, str):
        return _DURATION.fullmatch(value) is not None or re.fullmatch(r"[+-]?[0-9]+", value) is not None
    return _is_number(value)


def space(value: Any) -> Optional[tuple[str, int]]:
    """A disk space as ("%", percent) or ("bytes", bytes), None when it is none."""
    if _is_number(value):
        return ("bytes", value) if value >= 0 else None
    if not isinstance(value, str):
        return None
    percent = re.fullmatch(r"([0-9]+)%", value)
    if percent:
        return ("%", int(percent[1])) if int(percent[1]) <= 100 else None
    try:
        return "bytes", sizes.ram_in_bytes(value)
    except ConfigError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (_is_number, "a whole number"),
    "text": (lambda value: isinstance(value, str), "text"),
    "list": (lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of texts"),
    "duration": (_is_duration, 'seconds or a duration such as "48h" (units h, m, s)'),
    "space": (
        lambda value: space(value) is not None,
        'bytes, a size such as "10GB" or a part of the disk such as "20%"',
    ),
}
"""Type of a key → whether a value is of it, and what it is called."""
