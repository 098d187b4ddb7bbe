# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What older daemons would ignore is refused with the version that has it (buildkit-wire.md §13.3)."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ansible.module_utils.basic", reason="a target has no ansible-core of its own")

from ansible_collections.buildfleet.buildx.plugins.module_utils import _builds as builds
from ansible_collections.buildfleet.buildx.plugins.module_utils._build import features
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError


def request(*exporters: tuple[str, dict[str, str]]) -> Any:
    message = control.SolveRequest(Ref="r")
    for kind, attrs in exporters:
        message.Exporters.add(Type=kind, Attrs=attrs)
    return message


ASKING = [
    (13, "more than one output", request(("local", {}), ("image", {"name": "x"}))),
    (13, "rewrite-timestamp", request(("oci", {"rewrite-timestamp": "true"}))),
    (19, "oci-artifact", request(("image", {"oci-artifact": "1"}))),
    (31, "mode=delete", request(("local", {"mode": "delete"}))),
    (34, "src of a local", request(("tar", {"src": "/a"}))),
    (34, "src of a local", request(("local", {"src": "/a"}))),
    (34, "together with unpack", request(("image", {"rewrite-timestamp": "true", "unpack": "true"}))),
]


@pytest.mark.parametrize(("since", "words", "asking"), ASKING)
def test_each_is_refused_before_its_version(since: int, words: str, asking: Any) -> None:
    with pytest.raises(BuilderError) as caught:
        features.refuse_ignored("v0.x", since - 1, asking)
    assert words in str(caught.value)
    assert f"needs BuildKit v0.{since} or newer; the builder runs v0.x" in str(caught.value)
    assert "newer image" in str(caught.value.hint)
    features.refuse_ignored("v", since, asking)


@pytest.mark.parametrize(
    "asking",
    [
        request(),
        request(("docker", {"name": "x"})),
        request(("local", {"mode": "copy"})),
        request(("image", {"oci-artifact": "false", "rewrite-timestamp": "false", "unpack": "true"})),
        request(("image", {"src": "no attribute of images"})),
    ],
)
def test_nothing_else_is(asking: Any) -> None:
    features.refuse_ignored("v0.12.5", 12, asking)


def test_a_newer_daemon_does_not_even_load_the_table() -> None:
    assert builds.IGNORED_BEFORE == features.NEWEST


@pytest.mark.parametrize(
    ("version", "minor"),
    [
        ("v0.12.5", 12),
        ("0.13.0-rc2", 13),
        ("v0.34.2-moby", 34),
        ("v0.0.0+unknown", None),
        ("", None),
        ("v1.0.0", None),
        ("x", None),
    ],
)
def test_what_a_version_says(version: str, minor: int | None) -> None:
    """One that cannot be compared is no reason to refuse anything: an engine's own BuildKit says what it likes."""
    assert builds._minor(version) == minor
    builds._refuse_old(version)


def test_too_old() -> None:
    with pytest.raises(BuilderError, match=r"runs BuildKit v0\.11\.6; builds need v0\.12 or newer"):
        builds._refuse_old("v0.11.6")
