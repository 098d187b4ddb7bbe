# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a task says of one node: its options, read and checked as far as they stand for themselves (DESIGN §5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import plain_text

from . import config, driver_options, flags

REPOSITORY = "moby/buildkit"
SETTINGS = {
    name.replace("-", "_"): name
    for name in (
        *("memory-swap", "cpu-quota", "cpu-period", "cpu-shares", "cpuset-cpus", "cpuset-mems", "cgroup-parent"),
        *("network", "restart-policy", "default-load"),
    )
}
"""Options of the module that are driver options of the CLI: their names here → there."""

_VERSION = re.compile(r"v?([0-9]+\.[0-9]+\.[0-9]+(?:-rc[0-9]+)?)")


@dataclass(frozen=True)
class NodeOptions:
    """What a task says of a node. None: not given, what is stored stays; {}, [] or "": back to the default.

    endpoint: as the store keeps it. env: NAME → text. flags: words. config: a parsed buildkitd.toml.
    settings: driver option → text, of those with an option of their own beside image and memory.
    driver_opts: all driver options, under the CLI's names.
    registries: name → its table. gc: the keys of worker.oci that it stands for. platforms: as the store keeps them.
    """

    endpoint: Optional[str] = None
    image: Optional[str] = None
    env: Optional[Mapping[str, str]] = None
    memory: Optional[str] = None
    config: Optional[Mapping[str, Any]] = None
    flags: Optional[Sequence[str]] = None
    settings: Mapping[str, str] = field(default_factory=dict)
    driver_opts: Optional[Mapping[str, str]] = None
    registries: Optional[Mapping[str, Any]] = None
    gc: Optional[Mapping[str, Any]] = None
    platforms: Optional[tuple[Mapping[str, Any], ...]] = None

    @property
    def typed(self) -> dict[str, str]:
        """Driver option → text, of all that are given under a name of their own."""
        named = {"image": self.image, "memory": self.memory, **self.settings}
        return {name: text for name, text in named.items() if text is not None}


def from_params(params: Mapping[str, Any], endpoint: Optional[str]) -> NodeOptions:
    """Read a task's options; those that are missing are not given. Raises ConfigError that names the option."""
    env = params.get("env")
    given_opts = params.get("driver_opts")
    options = NodeOptions(
        endpoint=endpoint,
        image=_image(params),
        env=None if env is None else {_variable(name): _value(name, value) for name, value in env.items()},
        memory=_setting(params, "memory", "memory"),
        config=_config(params),
        flags=_flags(params.get("buildkitd_flags")),
        settings={
            there: text for here, there in SETTINGS.items() if (text := _setting(params, here, there)) is not None
        },
        driver_opts=None if given_opts is None else driver_options.read(given_opts),
        registries=_registries(params.get("registries")),
        gc=_gc(params.get("gc")),
        platforms=_platforms(params.get("platforms")),
    )
    _consistent(options)
    return options


def _image(params: Mapping[str, Any]) -> Optional[str]:
    image, version = params.get("image"), params.get("version")
    if image is not None and version is not None:
        raise ConfigError("image and version contradict each other: version is the image of that BuildKit release")
    if version:
        match = _VERSION.fullmatch(version)
        if match is None:
            raise ConfigError(
                f"version: {version!r} is no version of BuildKit",
                hint="It has three numbers, such as v0.34.2, and is a text: put it in quotes.",
            )
        return f"{REPOSITORY}:v{match[1]}"
    if image:
        reference.parse(image, what="image")
    return version if image is None else str(image)


def _setting(params: Mapping[str, Any], here: str, there: str) -> Optional[str]:
    value = params.get(here)
    if value is None:
        return None
    text = plain_text(value)
    driver_options.check(there, text, here)
    return text


def _config(params: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
    document, path = params.get("buildkitd_config"), params.get("buildkitd_config_file")
    if document is not None and path is not None:
        raise ConfigError("buildkitd_config and buildkitd_config_file contradict each other: both are the whole of it")
    if path is not None:
        return config.read_document(path) if path else {}
    return document if not document else _coerced(document)


def _coerced(document: Mapping[str, Any]) -> dict[str, Any]:
    from .config_keys import coerced

    return coerced(document)


def _registries(given: Optional[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    if not given:
        return given
    for name, table in given.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"registries: what is said of {name} must be a dict, it is {table!r}")
    tables: Mapping[str, Any] = _coerced({"registry": given})["registry"]
    return tables


def _gc(given: Optional[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """The option's keys as worker.oci has them; what is not given is null where Ansible has read them."""
    if given is None:
        return None
    table = {"gc" if key == "enabled" else key: value for key, value in given.items() if value is not None}
    if "gcpolicy" in table:
        table["gcpolicy"] = [
            {key: value for key, value in rule.items() if value is not None} for rule in table["gcpolicy"]
        ]
    found: Mapping[str, Any] = _coerced({"worker": {"oci": table}})["worker"]["oci"]
    return found


def _platforms(given: Optional[Sequence[str]]) -> Optional[tuple[Mapping[str, Any], ...]]:
    if given is None:
        return None
    from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms

    return tuple(platforms.to_json(platform) for platform in platforms.parse_list(given))


def _consistent(options: NodeOptions) -> None:
    """Raises ConfigError when two options say different things of the same."""
    if options.driver_opts is not None:
        found = driver_options.contradictions(options.driver_opts, options.typed, options.env)
        if found:
            raise ConfigError(
                f"driver_opts says otherwise than an option of its own does: {', '.join(found)}",
                hint="Say it in one place.",
            )
    document = options.config or {}
    if options.registries is not None and document.get("registry"):
        raise ConfigError("registries contradicts the registry tables of the configuration: say it in one place")
    if options.gc is not None and config.gc_table(document):
        keys = ", ".join(config.gc_table(document))
        raise ConfigError(f"gc contradicts worker.oci of the configuration, which has {keys}: say it in one place")


def _flags(given: Any) -> Optional[list[str]]:
    if isinstance(given, str):
        return flags.split(given)
    if given is not None and not isinstance(given, list):
        raise ConfigError("buildkitd_flags must be a string or a list of strings")
    return None if given is None else [_flag(flag) for flag in given]


def _flag(word: Any) -> str:
    if isinstance(word, (list, dict)) or word is None or "\0" in str(word):
        raise ConfigError(f"buildkitd_flags: {word!r} is no plain text")
    return str(word)


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
