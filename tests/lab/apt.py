# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's packages: the machine's own mirror and keyring, read from its apt sources.

No mirror's name is written down in this project: a machine that can install packages has one.
`BUILDX_LAB_MIRROR` names one where the machine is no Debian.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .progress import Step

SOURCES = Path("/etc/apt")
DEFAULT_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# What of the machine's apt configuration a root of ours needs in order to reach the same mirror.
_RELEVANT_OPTION = re.compile(r"^Acquire::(https?::Proxy|Check-)")


@dataclass(frozen=True)
class Source:
    """One entry of the apt sources, in either of their two forms."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


def debian_source() -> Source:
    """The entry for this machine's own release; its mirror carries the other releases as well."""
    codename = _os_release().get("VERSION_CODENAME", "")
    for source in _all_sources():
        if codename in source.suites and "main" in source.components:
            return _with_override(source)
    if os.environ.get("BUILDX_LAB_MIRROR"):
        return _with_override(Source("", (), ("main",), ""))
    raise LabError(
        f"no Debian mirror for {codename or 'this release'} in {SOURCES}/sources.list or sources.list.d; "
        "name one in BUILDX_LAB_MIRROR"
    )


def source_line(suite: str) -> str:
    """The one-line form that a root of `suite` is made from."""
    source = debian_source()
    keyring = source.signed_by or (str(DEFAULT_KEYRING) if DEFAULT_KEYRING.exists() else "")
    options = f"[signed-by={keyring}] " if keyring else ""
    return f"deb {options}{source.uri} {suite} main"


def transport_options(step: Step) -> list[str]:
    """The machine's proxy and clock settings, for an apt that does not read the machine's configuration."""
    lines = step.capture(["apt-config", "dump"]).splitlines()
    return [line for line in lines if _RELEVANT_OPTION.match(line)]


def architecture(step: Step) -> str:
    """Debian's name of this machine's architecture; for those we run on, Go and OCI use the same."""
    return step.capture(["dpkg", "--print-architecture"]).strip()


def require_program(program: str, package: str, step: Step) -> None:
    """Install a package of the machine when its program is missing, and say so."""
    if shutil.which(program):
        return
    install([package], step)


def install(packages: list[str], step: Step) -> None:
    if os.geteuid() != 0:
        raise LabError(f"missing on this machine: {' '.join(packages)}; install with apt-get as root")
    step.say(f"installing on this machine: {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    try:
        step.run(command, env=env)
    except LabError:
        step.run(["apt-get", "update"], env=env)  # the package lists are old or were never fetched
        step.run(command, env=env)


def _with_override(source: Source) -> Source:
    mirror = os.environ.get("BUILDX_LAB_MIRROR")
    return Source(mirror, source.suites, source.components, source.signed_by) if mirror else source


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _separator, value in (line.partition("=") for line in lines)}


def _all_sources() -> Iterator[Source]:
    directory = SOURCES / "sources.list.d"
    for path in [SOURCES / "sources.list", *sorted(directory.glob("*.list"))]:
        if path.exists():
            yield from one_line_sources(path.read_text().splitlines())
    for path in sorted(directory.glob("*.sources")):
        yield from deb822_sources(path.read_text())


def one_line_sources(lines: Iterable[str]) -> Iterator[Source]:
    """`deb [signed-by=KEYRING arch=…] URI SUITE COMPONENT…`."""
    for line in lines:
        match = re.match(r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line.strip())
        if not match:
            continue
        options = dict(option.partition("=")[::2] for option in (match[1] or "").split())
        yield Source(match[2], (match[3],), tuple(match[4].split()), options.get("signed-by", ""))


def deb822_sources(text: str) -> Iterator[Source]:
    """Stanzas of `Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:`; a key may be given inline."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _deb822_fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            yield Source(
                uri,
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                signed_by if signed_by.startswith("/") else "",  # an inline key: the distribution's keyring has it too
            )


def _deb822_fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[key] = f"{fields.get(key, '')} {line.strip()}".strip()
        else:
            key, _separator, value = line.partition(":")
            key = key.strip().lower()
            fields[key] = value.strip()
    return fields
