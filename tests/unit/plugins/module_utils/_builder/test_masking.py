# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.masking import (
    MASK,
    is_secret_name,
    masked_options,
    masked_url,
)


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "token", "DB_PASSWORD", "MYSQL_PASSWD", "DB_PASS", "PASS", "PGPASS",
        "MYSQL_PWD", "SSH_PASSPHRASE", "GOOGLE_APPLICATION_CREDENTIALS", "PRIVATE", "API_KEY", "APIKEY", "ACCESSKEY",
        "SIGNING_KEY", "REGISTRY_AUTH", "Client-Secret",
    ],
)  # fmt: skip
def test_names_that_smell_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HTTP_PROXY", "BUILDKIT_STEP_LOG_MAX_SIZE", "KEYBOARD", "PWD", "OLDPWD", "COMPASS_URL", "PASSENGERS",
     "MONKEY", "OTEL_EXPORTER_OTLP_ENDPOINT", "LANG", "HOSTKEYS"],
)  # fmt: skip
def test_names_that_do_not(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pass@proxy:3128", f"http://{MASK}@proxy:3128"),
        ("https://token@github.com/x.git#main", f"https://{MASK}@github.com/x.git#main"),
        ("http://user:p@ss@proxy", f"http://{MASK}@proxy"),
        ("ssh://me@host", f"ssh://{MASK}@host"),
        ("a=http://u:p@h,b=http://v:q@i", f"a=http://{MASK}@h,b=http://{MASK}@i"),
        ("see http://u:p@h/x and http://v:q@i/y", f"see http://{MASK}@h/x and http://{MASK}@i/y"),
        ("http://proxy:3128/a@b", "http://proxy:3128/a@b"),
        ("http://proxy?x=a@b", "http://proxy?x=a@b"),
        ("me@host", "me@host"),
        ("", ""),
    ],
)
def test_userinfo_in_addresses(text: str, masked: str) -> None:
    assert masked_url(text) == masked


PART = st.text("abcXYZ019:@%!$", min_size=1, max_size=12)


@given(user=PART, host=st.from_regex(r"[a-z]{1,8}", fullmatch=True), path=st.sampled_from(["", "/x", "/x@y", "?q"]))
@settings(deadline=None, max_examples=100)
def test_nothing_of_the_userinfo_is_left(user: str, host: str, path: str) -> None:
    assert masked_url(f"https://{user}@{host}{path}") == f"https://{MASK}@{host}{path}"


def test_options_are_sorted_and_masked() -> None:
    options = {
        "network": "host",
        "env.TOKEN": "t0p",
        "env.HTTP_PROXY": "http://u:p@proxy",
        "env.DEBUG": "1",
        "image": "registry.example.com/buildkit:1",
    }
    assert list(masked_options(options).items()) == [
        ("env.DEBUG", "1"),
        ("env.HTTP_PROXY", f"http://{MASK}@proxy"),
        ("env.TOKEN", MASK),
        ("image", "registry.example.com/buildkit:1"),
        ("network", "host"),
    ]


def test_only_variables_are_masked_by_their_name() -> None:
    """An option of the driver is no secret, whatever it is called."""
    assert masked_options({"allow-untrusted-image": "true", "auth-x": "y"}) == {
        "allow-untrusted-image": "true",
        "auth-x": "y",
    }
