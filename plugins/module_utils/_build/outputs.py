# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Where the result of a build goes (buildx §5.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

DOCKER, IMAGE, LOCAL, CACHE_ONLY = "docker", "image", "local", "cacheonly"
NAMED = (IMAGE, "oci", DOCKER)
"""Exporters whose result has a name."""


class Output(NamedTuple):
    """One result that is asked for.

    attrs:   of the exporter, as the daemon takes them.
    dest:    absolute path of a file or directory, "": none. A docker output without one is loaded into an engine.
    names:   that this output alone gives to the image, (): those of the build.
    context: the docker context whose engine takes a load, "": the task's.
    pushes:  an image goes to the registries of its names.
    layout:  the result is the directory of an OCI layout in place of one archive.
    """

    type: str
    attrs: Mapping[str, str] = {}
    dest: str = ""
    names: tuple[str, ...] = ()
    context: str = ""
    pushes: bool = False
    layout: bool = False

    @property
    def loads(self) -> bool:
        return self.type == DOCKER and not self.dest

    def named(self, names: Sequence[str]) -> dict[str, str]:
        """The attributes of the exporter, with the names of its own, else with those of the build."""
        wanted = self.names or names
        return {**self.attrs, "name": ",".join(wanted)} if wanted and self.type in NAMED else dict(self.attrs)


def resolve(
    outputs: Sequence[Output], *, load: Optional[bool], push: bool, named: bool, default_load: bool
) -> list[Output]:
    """All results of a build, the short options `load` and `push` among them (DESIGN §5, outputs).

    named: the build's image has a name. default_load: the builder loads when nothing is said.
    Raises ConfigError for a push without a name.
    """
    found = list(outputs)
    if push:
        found = [pushed(output) if output.type == IMAGE else output for output in found]
        if not any(output.type == IMAGE for output in found):
            found.append(pushed(Output(IMAGE)))
    silent = not outputs and not push
    if (load or (load is None and silent and (named or default_load))) and not any(output.loads for output in found):
        found.append(Output(DOCKER))
    if any(output.pushes and not (named or output.names) for output in found):
        raise ConfigError("tag is needed when pushing to registry: give the image a name")
    if sum(output.layout for output in found) > 1:
        raise ConfigError('oci store key "export" already exists: only one output may have tar=false')
    return [output for output in found if output.type != CACHE_ONLY]


def pushed(output: Output) -> Output:
    """A push asks for no unpacking in the daemon unless somebody says so, as the CLI has it."""
    return output._replace(pushes=True, attrs={"unpack": "false", **output.attrs, "push": "true"})
