# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Local caches and OCI layouts through the Content service, each read by the CLI and written by it as well."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.blobs import Blobs
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content import Content
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.oci_layout import Layout, store_name

if TYPE_CHECKING:
    from conftest import Bench, Driven

STEPS = "FROM scratch\nADD root.tar /\nRUN head -c 3000000 /dev/urandom > /random && cat /proc/sys/kernel/random/uuid > /once\n"
"""A step whose result is another one each time it really runs."""


def modes(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): oct(stat.S_IMODE(path.lstat().st_mode)) for path in root.rglob("*")}


def export_cache(driven: Driven, context: Path, cache: Path, tag: str = "latest") -> bool:
    """Whether the cache became another one."""
    blobs, name = Blobs(str(cache), writable=True, locked=True), store_name(str(cache))
    try:
        response = driven.solve(
            context,
            services=[Content({f"local:{name}": blobs})],
            cache_exports=[("local", {"dest": name, "mode": "max"})],
        )
        return Layout(str(cache)).publish(json.loads(response["cache.manifest"]), tag=tag)
    finally:
        blobs.close()


def executed(driven: Driven, context: Path, cache: Path) -> list[str]:
    """Build with a local cache; the steps that had to run."""
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress

    progress, name = Progress(), store_name(str(cache))
    digest = Layout(str(cache)).find("latest")
    imports = [{"Type": "local", "Attrs": {"src": name, "digest": digest}}]
    driven.solve(
        context,
        services=[Content({f"local:{name}": Blobs(str(cache))})],
        frontend={"cache-imports": json.dumps(imports)},
        progress=progress,
    )
    return progress.executed()


def forget(driven: Driven) -> None:
    driven.bench.buildx("prune", "--builder", driven.bench.name, "-af")


def test_a_cache_goes_both_ways_between_us_and_the_cli(
    driven_alone: Driven, context: Callable[..., Path], tmp_path: Path
) -> None:
    driven, path = driven_alone, context(STEPS)
    name = driven.bench.name
    ours, theirs = tmp_path / "ours é", tmp_path / "theirs"
    assert export_cache(driven, path, ours)
    driven.bench.buildx("build", "--builder", name, "--cache-to", f"type=local,dest={theirs},mode=max", str(path))
    assert modes(ours) == modes(theirs)
    assert (ours / "index.json").read_bytes() == (theirs / "index.json").read_bytes()
    assert not export_cache(driven, path, ours), "it is the same cache"

    forget(driven)
    assert executed(driven, path, theirs) == [], "the CLI's cache has it"
    forget(driven)
    printed = driven.bench.buildx(
        "build", "--builder", name, "--progress=plain", "--cache-from", f"type=local,src={ours}", str(path)
    )
    assert printed.count("CACHED") >= 2, printed
