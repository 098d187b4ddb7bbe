# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Platforms: `linux/arm64/v8`, `windows(10.0.17763)/amd64`, as containerd and buildx read and write them.

A platform has a short form (what people write), a canonical one (`normalize`, then `format`), a JSON form
(instance files of the store, image indexes) and its cell in the table of `ls` (buildx.md §1.3, §2.1, §4.1).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

_SYSTEMS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd"}
    | {"openbsd", "plan9", "solaris", "windows", "zos"}
)
_ARCHITECTURES = frozenset(
    {"386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le"}
    | {"mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64"}
    | {"wasm"}
)
_MACHINES = {  # what uname says -> architecture and variant, where normalize() does not know it
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "loongarch64": ("loong64", ""),
}
_OPTION = r"[A-Za-z0-9_.%-]"
_SYSTEM = re.compile(rf"([A-Za-z0-9_-]+)(?:\(({_OPTION}*)((?:\+{_OPTION}+)*)\))?")
_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPES = str.maketrans({"%": "%25", "+": "%2B", "(": "%28", ")": "%29", "/": "%2F"})

# The order in which `ls` shows the groups that it has room for.
_MAJOR = ("linux/amd64", "linux/arm64", "linux/arm", "linux/ppc64le", "linux/s390x", "linux/riscv64", "linux/mips64")
_MAX_GROUPS = 4


class Platform(NamedTuple):
    """One platform. As parsed it may be in any spelling; compare only what normalize() returned."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


def host() -> Platform:
    """The platform of this process's machine, which is what `local` means (§2.1)."""
    machine = os.uname().machine.lower()
    arm = re.match(r"armv([3-8])", machine)
    if arm:
        return Platform(sys.platform, "arm", "v" + arm[1])
    return Platform(sys.platform, *_MACHINES.get(machine, _normalize_architecture(machine, "")))


def parse(text: str, *, local: Optional[Platform] = None) -> Platform:
    """The platform that a specifier means, completed but not normalized: `arm64` -> linux, `linux/arm64/v8` keeps v8.

    local: this machine's platform, for single words; host() unless given. Raises ConfigError.
    """
    if "*" in text:
        raise ConfigError(f'"{text}": wildcards not yet supported')
    system, *rest = text.split("/", 3)
    platform = _parse_system(system, text)
    for component in rest:
        if not _COMPONENT.fullmatch(component):
            raise ConfigError(
                f'"{component}" is an invalid component of "{text}": letters, digits, "_", "." and "-" are allowed'
            )
    if not rest:
        return _parse_word(system, platform, local or host())
    if len(rest) > 2:
        raise ConfigError(f'"{text}": cannot parse platform specifier')
    architecture, variant = _normalize_architecture(rest[0], rest[1] if len(rest) > 1 else "")
    if len(rest) == 1 and (architecture, variant) == ("arm", "v7"):
        variant = ""
    elif len(rest) > 1 and (architecture, variant) == ("arm64", ""):
        variant = "v8"
    return platform._replace(architecture=architecture, variant=variant)


def _parse_system(system: str, text: str) -> Platform:
    match = _SYSTEM.fullmatch(system)
    if match is None:
        raise ConfigError(f'"{system}" is an invalid OS component of "{text}"')
    name, version, features = match.groups(default="")
    decoded = (_decode(feature, text) for feature in features.split("+"))
    return Platform(_normalize_system(name), "", "", _decode(version, text), tuple(filter(None, decoded)))


def _parse_word(word: str, platform: Platform, local: Platform) -> Platform:
    if platform.os in _SYSTEMS:
        # On ARM the CLI leaves the most common variant out.
        variant = local.variant if local.architecture == "arm" and local.variant != "v7" else ""
        return platform._replace(architecture=local.architecture, variant=variant)
    architecture, variant = _normalize_architecture(word, "")
    if architecture not in _ARCHITECTURES:
        raise ConfigError(f'"{word}": unknown operating system or architecture')
    return platform._replace(
        os=local.os, architecture=architecture, variant="" if (architecture, variant) == ("arm", "v7") else variant
    )


def parse_list(texts: Iterable[str], *, local: Optional[Platform] = None) -> list[Platform]:
    """The platforms of `--platform`: each text may hold several with commas, `local` is this machine (§2.1).

    Normalized, in order, and with duplicates, as the CLI stores them. Raises ConfigError.
    """
    words = (word for text in texts for word in text.split(","))
    return [normalize((local or host()) if word.lower() == "local" else parse(word, local=local)) for word in words]


def normalize(platform: Platform) -> Platform:
    """The canonical spelling: Aarch64 -> arm64, x86_64 -> amd64, arm -> arm/v7, arm64/v8 -> arm64."""
    architecture, variant = _normalize_architecture(platform.architecture, platform.variant)
    features = tuple(sorted(set(platform.os_features)))
    return Platform(_normalize_system(platform.os), architecture, variant, platform.os_version, features)


def _normalize_system(system: str) -> str:
    system = system.lower() or sys.platform
    return "darwin" if system == "macos" else system


def _normalize_architecture(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.lower(), variant.lower()
    if architecture == "i386":
        return "386", ""
    if architecture in ("x86_64", "x86-64", "amd64"):
        return "amd64", "" if variant == "v1" else variant
    if architecture in ("aarch64", "arm64"):
        known = {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}
        return "arm64", known.get(variant, variant)
    if architecture in ("armhf", "armel"):
        return "arm", "v7" if architecture == "armhf" else "v6"
    if architecture == "arm":
        known = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}
        return "arm", known.get(variant, variant)
    return architecture, variant


def format(platform: Platform) -> str:
    """`os/architecture/variant`, with `os(version+feature)` where there is more to say (since buildx 0.37, §4.1)."""
    if not platform.os:
        return "unknown"
    features = sorted({feature for feature in platform.os_features if feature})
    options = "+".join(option.translate(_ESCAPES) for option in [platform.os_version, *features])
    system = f"{platform.os}({options})" if options else platform.os
    return "/".join(filter(None, (system, platform.architecture, platform.variant)))


def _decode(option: str, text: str) -> str:
    if "%" not in option:
        return option
    if _BAD_ESCAPE.search(option):
        raise ConfigError(f'"{text}" has an invalid OS version or feature "{option}"')
    from urllib.parse import unquote

    return unquote(option)


def unique(platforms: Iterable[Platform]) -> list[Platform]:
    """Normalized, each once, in the order of first appearance."""
    return list(dict.fromkeys(map(normalize, platforms)))


def to_json(platform: Platform) -> dict[str, object]:
    """The OCI form, which the store uses too (§1.3); keys in the order of the CLI, none that is empty."""
    document: dict[str, object] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        document["os.version"] = platform.os_version
    if platform.os_features:
        document["os.features"] = list(platform.os_features)
    if platform.variant:
        document["variant"] = platform.variant
    return document


def from_json(document: Mapping[str, object]) -> Platform:
    """The platform of an OCI object; null, missing and empty are the same. Raises ConfigError for other types."""
    texts = [document.get(key) or "" for key in ("os", "architecture", "variant", "os.version")]
    features = document.get("os.features") or []
    if not isinstance(features, list) or not all(isinstance(text, str) for text in [*texts, *features]):
        raise ConfigError(f"not a platform: {document!r}")
    system, architecture, variant, version = map(str, texts)
    return Platform(system, architecture, variant, version, tuple(features))


def labels(fixed: Sequence[Platform], detected: Sequence[Platform]) -> list[str]:
    """The platforms of a node as `ls` lists them without truncation: the fixed ones first, with a star (§4.1)."""
    stars = dict.fromkeys(format(platform) for platform in unique(fixed))
    rest = dict.fromkeys(format(platform) for platform in unique(detected))
    return [text + "*" for text in stars] + [text for text in rest if text not in stars]


def cell(fixed: Sequence[Platform], detected: Sequence[Platform]) -> str:
    """The platforms of a node in the table of `ls`: at most four groups, the rest as a number (§4.1)."""
    texts = labels(fixed, detected)
    bases = [_base(text) for text in texts]
    groups: dict[str, list[str]] = {}
    for major in _MAJOR:
        for base, text in zip(bases, texts):
            if base == major and len(groups) < _MAX_GROUPS:  # once the last group exists not even that one grows
                groups.setdefault(base, []).append(text)
    if len(groups) < _MAX_GROUPS:
        others: dict[str, list[str]] = {}
        for base, text in zip(bases, texts):
            if base and base not in groups:
                others.setdefault(base, []).append(text)
        groups.update((base, others[base]) for base in sorted(others)[: _MAX_GROUPS - len(groups)])
    left = len(texts) - sum(map(len, groups.values()))
    return ", ".join([*(_group(base, group) for base, group in groups.items()), *([f"({left} more)"] if left else [])])


def _base(text: str) -> str:
    """The group of a label; '' for what no specifier says, which is only counted."""
    try:
        platform = parse(text.removesuffix("*"))
    except ConfigError:
        return ""
    return f"{platform.os}/{platform.architecture}"


def _group(base: str, texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    star = "*" if any(text.endswith("*") for text in texts) else ""
    return f"{base}{star} (+{len(texts)})"
