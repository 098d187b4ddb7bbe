# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Before anything is touched: what would make a daemon fail to start, or ignore what was said, is told all at once.

Checked is what changes: an entry that stays as it is, whoever made it, is not judged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Optional
from urllib.parse import quote

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError, EngineError

from . import certificates, config, config_checks, config_keys, daemon_flags, limit_checks
from .instance import NodeEntry
from .options import REPOSITORY
from .plan import NodeObservation, Wish

OLDEST: config_checks.Version = (0, config_keys.OLDEST)
OWN_NETWORKS = ("", "default", "bridge", "host", "none")


def require(wish: Wish, engine: Callable[[str], Engine], *, may_run: bool, warn: Callable[[str], None]) -> None:
    """Raises one ConfigError that tells everything that is wrong with what a task changes.

    engine: node → its engine. may_run: whether an image may be pulled and run once to ask its daemon what it knows;
    where it may not, as in check mode, `warn` is told what nobody has checked.
    """
    before = {node.name: node for node in wish.stored.nodes} if wish.stored else {}
    found: list[str] = []
    for node in wish.nodes:
        change = _Change(wish, node, before.get(node.entry.name), engine(node.entry.name), may_run, warn)
        found += [words for words in _node(change) if words not in found]
    if found:
        lines = found[0] if len(found) == 1 else "".join(f"\n- {words}" for words in found)
        count = "" if len(found) == 1 else f"{len(found)} settings cannot work:"
        raise ConfigError(f"{count}{lines}", hint="Nothing was changed.", findings=found)


class _Change:
    """What a task makes of one node.

    before: its stored entry, None for a new one.
    """

    def __init__(
        self,
        wish: Wish,
        node: NodeObservation,
        before: Optional[NodeEntry],
        engine: Engine,
        may_run: bool,
        warn: Callable[[str], None],
    ) -> None:
        self.node, self.before, self.engine = node, before, engine
        self.may_run, self.warn = may_run, warn
        # A builder that is only declared needs no image yet, and its check pulls none.
        needed = wish.state == "started" or node.found is not None
        self.pull = needed and (wish.pull in ("auto", "always") or (wish.pull == "missing" and not node.has_image))

    def differs(self, *words: str) -> bool:
        """Whether one of these fields of the entry becomes another one."""
        return self.before is None or any(
            getattr(self.before, word) != getattr(self.node.entry, word) for word in words
        )

    @property
    def image(self) -> str:
        return self.node.wanted.image

    @property
    def other_image(self) -> bool:
        return self.before is None or self.before.driver_opts.get("image") != self.node.entry.driver_opts.get("image")


def _node(change: _Change) -> Iterator[str]:
    if change.differs("driver_opts"):
        yield from limit_checks.findings(change.node.wanted)
        yield from _network(change)
    yield from _daemon(change)


def _network(change: _Change) -> Iterator[str]:
    """The engine makes a container on a network that is not there, and then cannot start it."""
    name = change.node.wanted.network
    before = change.before.driver_opts.get("network", "") if change.before else ""
    if name in OWN_NETWORKS or name == before or name.startswith("container:"):
        return
    if change.engine.look(f"inspect the network {name}", f"/networks/{quote(name, safe='')}") is None:
        yield f"network: the engine has no network {name}"


def _daemon(change: _Change) -> Iterator[str]:
    """The configuration and the flags, against the BuildKit that they are for."""
    entry = change.node.entry
    new_files = change.differs("files")
    document: dict[str, Any] = config.document_of(entry.files) if new_files or change.other_image else {}
    new_flags = change.differs("flags") or change.other_image
    ask_flags = new_flags and daemon_flags.need_help(entry.flags or ())
    version = _named_version(change.image)
    if version is not None and version < OLDEST and change.other_image:
        yield f"image: BuildKit {version[0]}.{version[1]} is too old, this needs 0.{config_keys.OLDEST} or newer"
    known = None
    if ask_flags or (version is None and config_checks.needs_version(document)):
        known = _help(change)
    if known is not None:
        version = config_checks.version_of(known.version) or version
        yield from daemon_flags.findings(entry.flags or (), known) if new_flags else ()
    yield from _configuration(change, document, version, whole=new_files)


def _configuration(
    change: _Change, document: dict[str, Any], version: Optional[config_checks.Version], *, whole: bool
) -> Iterator[str]:
    """whole False: it is stored already, and only the image becomes another one."""
    yield from config_checks.newer_keys(document, version) if version else ()
    if not whole:
        return
    unknown = config_checks.unknown_keys(document)
    if version is None or version <= (0, config_keys.NEWEST):
        yield from unknown
    else:
        for words in unknown:
            change.warn(f"{words} (of its releases up to 0.{config_keys.NEWEST}; newer ones are not known here)")
    yield from config_checks.wrong_values(document)
    yield from config_checks.collection(document)
    yield from config_checks.registries(document)
    yield from certificates.findings(document, change.node.entry.files)


def _named_version(image: str) -> Optional[config_checks.Version]:
    """The release that the name of one of BuildKit's own images says; other images may call anything v1.2.3."""
    name = reference.parse(image)
    return config_checks.version_of(name.tag) if name.path == REPOSITORY or name.path.endswith("/buildkit") else None


def _help(change: _Change) -> Optional[daemon_flags.Help]:
    """Ask the image's daemon what it knows. None, with a warning, when nobody could."""
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import images, one_shot

    unchecked = (
        f"whether BuildKit in {change.image} knows all flags and keys of {change.node.entry.name} was not checked"
    )
    if not change.may_run:
        change.warn(f"{unchecked}: for that its image is pulled and run once, which check mode does not do")
        return None
    engine = change.engine
    if change.pull:
        with contextlib.suppress(EngineError):  # the plan's own pull tells it, or takes the image that is there
            images.pull(engine, change.image)
    if images.inspect(engine, change.image) is None:
        if not change.pull:
            change.warn(f"{unchecked}: the engine does not have it")
        return None
    name = f"buildx_check_{change.node.entry.name}"
    try:
        text = one_shot.run(engine, name, change.image, ["buildkitd", "--help"])
    except EngineError as exc:
        change.warn(f"{unchecked}: {exc}")
        return None
    known = daemon_flags.parse(text)
    if known is None:
        change.warn(f"{unchecked}: its --help is not understood")
    return known
