# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What is wrong with a configuration before any daemon has seen it: keys, types, garbage collection, registries.

BuildKit ignores a key that it does not know without a word, and ends at a value of another type (wire §12).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from . import config_keys
from .config_keys import Setting, space

Version = tuple[int, int]
"""Major and minor number of a BuildKit release."""

_REGISTRY = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_WORDS = {
    "log.format": ("text", "json"),
    "log.level": ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"),
    "networkMode": ("auto", "cni", "bridge", "host"),
    "insecure-entitlements": ("network.host", "security.insecure", "device"),
}
_NEWER_GC = ("reservedSpace", "maxUsedSpace", "minFreeSpace")


def version_of(tag: Optional[str]) -> Optional[Version]:
    """The release that an image's tag or a daemon names (`v0.34.2`), None when it says none."""
    found = re.match(r"v?([0-9]+)\.([0-9]+)\.[0-9]+", tag or "")
    return (int(found[1]), int(found[2])) if found else None


def needs_version(document: Mapping[str, Any]) -> bool:
    """Whether only BuildKit's version tells if the document is right: it has keys that not all releases have."""
    return any(one.key is None or one.key.since > config_keys.OLDEST for one in config_keys.settings(document))


def unknown_keys(document: Mapping[str, Any]) -> list[str]:
    """Keys that no release of the table has, with the nearest one that there is."""
    found = []
    for setting in config_keys.settings(document):
        if setting.key is None:
            near = setting.nearest()
            advice = f"; did you mean {near}?" if near else ""
            found.append(f"{setting.where}: BuildKit has no such key and would ignore it{advice}")
    return found


def newer_keys(document: Mapping[str, Any], version: Version) -> list[str]:
    """Keys that this release does not have yet."""
    return [
        f"{one.where}: BuildKit has this key since 0.{one.key.since}, and would ignore it in {version[0]}.{version[1]}"
        for one in config_keys.settings(document)
        if one.key is not None and (0, one.key.since) > version
    ]


def wrong_values(document: Mapping[str, Any]) -> list[str]:
    """Values of another type than the key has, and words and numbers that it cannot have."""
    found = []
    for setting in config_keys.settings(document):
        if setting.key is None:
            continue
        kind = setting.key.kind
        why = _no_table(setting) if not kind else config_keys.complaint(kind, setting.value)
        why = why or _no_word(setting) or _negative(setting)
        if why:
            found.append(f"{setting.where} {why}")
    tls = _table(_table(document, "grpc"), "tls")
    if bool(tls.get("cert")) != bool(tls.get("key")):
        found.append("grpc.tls needs both cert and key")
    return found


def _no_table(setting: Setting) -> str:
    many = setting.key is not None and setting.key.many
    return f"must be a {'list of tables' if many else 'table'}, it is {setting.value!r}"


def _no_word(setting: Setting) -> Optional[str]:
    for name, words in _WORDS.items():
        if setting.where == name or setting.path[-1] == name:
            values = setting.value if isinstance(setting.value, list) else [setting.value]
            known = (*words, "")
            wrong = [one for one in values if isinstance(one, str) and one.lower().partition("=")[0] not in known]
            if wrong:
                return f"cannot be {wrong[0]!r}: it is one of {', '.join(words)}"
    return None


def _negative(setting: Setting) -> Optional[str]:
    number = isinstance(setting.value, int) and setting.path[-1] not in ("uid", "gid", "sessionAuthTimeout")
    return f"must not be negative, it is {setting.value}" if number and setting.value < 0 else None


def collection(document: Mapping[str, Any]) -> list[str]:
    """What of garbage collection is impossible, or has no effect beside something else (wire §11.4)."""
    found = []
    for name in ("oci", "containerd"):
        table = _table(_table(document, "worker"), name)
        found += [f"worker.{name}: {words}" for words in _worker(table)]
        rules = table.get("gcpolicy")
        for number, rule in enumerate(rules if isinstance(rules, list) else (), 1):
            if isinstance(rule, Mapping):
                found += [f"worker.{name}.gcpolicy, rule {number}: {words}" for words in _spaces(rule)]
                if rule.get("keepBytes") and rule.get("reservedSpace"):
                    found.append(f"worker.{name}.gcpolicy, rule {number}: keepBytes has no effect beside reservedSpace")
    return found


def _worker(table: Mapping[str, Any]) -> Iterator[str]:
    yield from _spaces(table)
    newer = [key for key in _NEWER_GC if table.get(key)]
    limits = [*newer, *(["gckeepstorage"] if table.get("gckeepstorage") else [])]
    if newer and table.get("gckeepstorage"):
        yield f"gckeepstorage has no effect beside {newer[0]}"
    if limits and table.get("gcpolicy"):
        yield f"{limits[0]} has no effect beside gcpolicy, whose rules have limits of their own"
    if table.get("gc") is False and (limits or table.get("gcpolicy")):
        yield f"{(limits or ['gcpolicy'])[0]} has no effect while gc is off"


def _spaces(table: Mapping[str, Any]) -> Iterator[str]:
    reserved, most, free = (space(table[key]) if table.get(key) else None for key in _NEWER_GC)
    if reserved and most and reserved[0] == most[0] and reserved[1] > most[1]:
        yield f"reservedSpace ({table['reservedSpace']}) is more than maxUsedSpace ({table['maxUsedSpace']})"
    if reserved and free and reserved[0] == free[0] == "%" and reserved[1] + free[1] > 100:
        both = f"reservedSpace ({table['reservedSpace']}) and minFreeSpace ({table['minFreeSpace']})"
        yield f"{both} are more than the disk"


def registries(document: Mapping[str, Any]) -> list[str]:
    """Names of registries and mirrors that no image's name leads to."""
    found = []
    for name, table in _table(document, "registry").items():
        found += [f"registry.{name}: {words}" for words in _no_host(str(name), path=False)]
        mirrors = table.get("mirrors") if isinstance(table, Mapping) else None
        for mirror in mirrors if isinstance(mirrors, list) else ():
            found += [f"registry.{name}.mirrors: {words}" for words in _no_host(str(mirror), path=True)]
    return found


def _no_host(text: str, *, path: bool) -> Iterator[str]:
    """Why a text is not HOST[:PORT], or HOST[:PORT]/PATH for a mirror."""
    if "://" in text:
        yield f"{text!r} has a scheme; name the host alone, and say http: true where it speaks plain HTTP"
    elif "/" in text and not path:
        yield f"{text!r} has a path; a registry is named by HOST[:PORT]"
    elif not _REGISTRY.fullmatch(text.partition("/")[0]):
        yield f"{text!r} is no HOST[:PORT]"


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}
