# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Local caches and OCI layouts through the Content service, each read by the CLI and written by it as well."""

from __future__ import annotations

import base64
import json
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.blobs import Blobs
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content import Content
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.oci_layout import Layout, store_name
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildxError

if TYPE_CHECKING:
    from conftest import Driven

STEPS = "FROM scratch\nADD root.tar /\nRUN head -c 3000000 /dev/urandom > /random\n"
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
    ours = ours.rename(tmp_path / "ours")  # the CLI's own ids of stores are ASCII or fail
    printed = driven.bench.buildx(
        "build", "--builder", name, "--progress=plain", "--cache-from", f"type=local,src={ours}", str(path)
    )
    assert printed.count("CACHED") >= 2, printed


def test_a_cache_that_is_damaged_or_empty_does_not_stop_a_build(
    driven: Driven, context: Callable[..., Path], tmp_path: Path
) -> None:
    path, cache = context(STEPS), tmp_path / "cache"
    export_cache(driven, path, cache)
    for blob in (cache / "blobs" / "sha256").iterdir():
        if blob.stat().st_size > 100_000:
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    assert isinstance(executed(driven, path, cache), list)
    for blob in (cache / "blobs" / "sha256").iterdir():
        blob.unlink()
    assert isinstance(executed(driven, path, cache), list)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_layout_is_what_the_cli_makes_of_it(
    driven: Driven, context: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    # What no build before has seen: a step that two of them have made has two times, and an image has either.
    path = context("FROM scratch\nCOPY word /\n", word=uuid.uuid4().hex)
    names = [f"example.com/{driven.bench.name}/{kind}:v1", "second:latest"]
    blobs = Blobs(str(tmp_path / "ours"), writable=True)
    try:
        response = driven.solve(
            path,
            services=[Content({"export": blobs})],
            exporters=[(kind, {"tar": "false", "name": ",".join(names)})],
        )
    finally:
        blobs.close()
    layout = Layout(str(tmp_path / "ours"))
    descriptor = json.loads(base64.b64decode(response["containerimage.descriptor"]))
    published = response["image.name"].split(",")
    assert layout.publish(descriptor, names=published)
    assert not layout.publish(descriptor, names=published)
    assert layout.find(published[0]) == layout.find("v1") == descriptor["digest"]
    assert os.listdir(tmp_path / "ours" / "ingest") == [], "nothing is left aside"
    if kind == "docker":
        return  # the CLI refuses what it documents: "both file and store output is not supported by docker exporter"
    driven.bench.buildx(
        *("build", "--builder", driven.bench.name, "-o"),
        f'type=oci,tar=false,dest={tmp_path / "theirs"},"name={",".join(names)}"',
        str(path),
    )
    ours, theirs = (json.loads((tmp_path / side / "index.json").read_text()) for side in ("ours", "theirs"))
    assert [_stripped(entry) for entry in ours["manifests"]] == [_stripped(entry) for entry in theirs["manifests"]]
    assert (tmp_path / "ours/oci-layout").read_bytes() == (tmp_path / "theirs/oci-layout").read_bytes()
    assert modes(tmp_path / "ours").keys() == modes(tmp_path / "theirs").keys()


def _stripped(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without the time at which it was made."""
    return {**entry, "annotations": {k: v for k, v in entry["annotations"].items() if not k.endswith("created")}}


def test_a_layout_as_a_named_context(driven: Driven, context: Callable[..., Path], tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    path = context("FROM scratch\nADD root.tar /\n")
    driven.bench.buildx(
        *("build", "--builder", driven.bench.name, "-o", f"type=oci,tar=false,dest={layout},name=base:v1", str(path))
    )
    digest = Layout(str(layout)).find("v1")
    frontend = {"context:base": f"oci-layout://store@{digest}"}
    path = context("FROM base\nRUN test -x /bin/busybox\n", "other")
    driven.solve(path, services=[Content({"oci:store": Blobs(str(layout))})], frontend=frontend)


def test_a_full_disk_is_the_builds_error(driven: Driven, context: Callable[..., Path], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    driven.bench.run("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small))
    try:
        with pytest.raises(BuildxError, match=f"cannot write {small}/cache: No space left on device"):
            export_cache(driven, context(STEPS), small / "cache")
        left = [file for file in small.rglob("*") if file.is_file() and file.name != "cache.lock"]
        assert all(file.parent.name == "sha256" for file in left), "nothing is left aside"
    finally:
        driven.bench.run("umount", str(small))
