# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of images, by the rules of docker's reference grammar."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "parts", "familiar"),
    [
        ("busybox", ("docker.io", "library/busybox", None, None), "busybox:latest"),
        ("busybox:1.36", ("docker.io", "library/busybox", "1.36", None), "busybox:1.36"),
        ("library/busybox", ("docker.io", "library/busybox", None, None), "busybox:latest"),
        ("docker.io/busybox", ("docker.io", "library/busybox", None, None), "busybox:latest"),
        ("index.docker.io/busybox", ("docker.io", "library/busybox", None, None), "busybox:latest"),
        ("moby/buildkit:v0.34.2", ("docker.io", "moby/buildkit", "v0.34.2", None), "moby/buildkit:v0.34.2"),
        ("localhost/app", ("localhost", "app", None, None), "localhost/app:latest"),
        ("localhost:5000/app", ("localhost:5000", "app", None, None), "localhost:5000/app:latest"),
        ("registry:5000/app:x", ("registry:5000", "app", "x", None), "registry:5000/app:x"),
        ("r.example.com/a/b/c", ("r.example.com", "a/b/c", None, None), "r.example.com/a/b/c:latest"),
        ("127.0.0.1:5001/a", ("127.0.0.1:5001", "a", None, None), "127.0.0.1:5001/a:latest"),
        ("[fd00::1]:5000/a", ("[fd00::1]:5000", "a", None, None), "[fd00::1]:5000/a:latest"),
        (f"busybox@{DIGEST}", ("docker.io", "library/busybox", None, DIGEST), f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", ("docker.io", "library/busybox", "1", DIGEST), f"busybox:1@{DIGEST}"),
        ("a.b__c-d--e/f_g", ("docker.io", "a.b__c-d--e/f_g", None, None), "a.b__c-d--e/f_g:latest"),
        ("app:5000", ("docker.io", "library/app", "5000", None), "app:5000"),
    ],
)
def test_a_name_taken_apart(text: str, parts: tuple[str, str, str | None, str | None], familiar: str) -> None:
    parsed = reference.parse(text)
    assert parsed == parts
    assert str(parsed) == familiar
    assert reference.parse(str(parsed))[:2] == parsed[:2]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "UPPER/lower/", "Busybox", "a//b", "/a", "a/", "a:", "a@", ":tag", "a:b:c", "a b", "a\n", "a___b",
        "-a", "a-", "_a", "a..b", "a:.x", "a:" + "x" * 129, "a@sha256:short", "http://r/a", "a@md5:" + "0" * 31, "ü",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid image name"):
        reference.parse(text)


def test_the_error_says_what_the_name_was_meant_for() -> None:
    with pytest.raises(ConfigError, match="invalid image 'A'"):
        reference.parse("A", what="image")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("busybox", "docker.io/library/busybox:latest", True),
        ("moby/buildkit:x", "docker.io/moby/buildkit:x", True),
        ("busybox:1", "busybox:2", False),
        ("localhost/busybox", "busybox", False),
        (f"busybox@{DIGEST}", f"docker.io/busybox@{DIGEST}", True),
        (f"busybox:1@{DIGEST}", f"busybox@{DIGEST}", False),
        (DIGEST, DIGEST, True),
        (DIGEST, "busybox", False),
        ("Not A Name", "Not A Name", True),
    ],
)
def test_whether_two_names_mean_the_same(one: str, other: str, same: bool) -> None:
    for pair in ((one, other), (other, one)):
        assert reference.same(*pair) is same


@pytest.mark.parametrize(
    ("text", "good"),
    [("latest", True), ("1.10", True), ("_x", True), ("x" * 128, True), ("x" * 129, False), ("", False),
     (".x", False), ("-x", False), ("a b", False), ("a/b", False), ("x\n", False)],
)  # fmt: skip
def test_tags(text: str, good: bool) -> None:
    assert reference.is_tag(text) is good


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9./:@_-]{1,40}", fullmatch=True))
@settings(deadline=None, max_examples=100)
def test_any_text_is_a_name_or_a_config_error(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except ConfigError:
        return
    assert reference.same(text, str(parsed)) or parsed.digest
