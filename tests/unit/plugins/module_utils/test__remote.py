# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an entry of the driver remote says: its address and its options, as the CLI reads them (buildx.md §8)."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

pytest.importorskip("ansible.module_utils.basic", reason="a target has no ansible-core of its own")

from ansible_collections.buildfleet.buildx.plugins.module_utils import _remote as remotes
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import NodeEntry
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.remote import SshDialer, Tls
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

FILES = {"cacert": "/ca.pem", "cert": "/c.pem", "key": "/k.pem"}


def tls(options: dict[str, str], endpoint: str = "tcp://far.lab:1234") -> Tls | None:
    return remotes.tls_of(NodeEntry("n", endpoint, driver_opts=options), urlsplit(endpoint))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"default-load": "true"}, None),
        ({"cacert": "/ca.pem"}, Tls("far.lab", "/ca.pem")),
        (FILES, Tls("far.lab", "/ca.pem", "/c.pem", "/k.pem")),
        ({**FILES, "servername": "other"}, Tls("other", "/ca.pem", "/c.pem", "/k.pem")),
    ],
)
def test_options(options: dict[str, str], expected: Tls | None) -> None:
    assert tls(options) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"servername": "x"}, "tls enabled, but missing keys cacert"),
        ({"cacert": "/ca.pem", "cert": "/c.pem"}, "tls enabled, but missing keys key"),
        ({"key": "/k.pem"}, "tls enabled, but missing keys cacert, cert"),
        ({"cert": "c.pem"}, "non-absolute path 'c.pem' provided for cert"),
        ({"image": "x"}, "invalid driver option image for remote driver"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tls(options)


@pytest.mark.parametrize(
    ("endpoint", "command"),
    [
        ("ssh://far.lab", ["--", "far.lab", "buildctl", "dial-stdio"]),
        (
            "ssh://me@far.lab:22/run/s",
            ["-l", "me", "-p", "22", "--", "far.lab", "buildctl", "--addr", "unix:///run/s", "dial-stdio"],
        ),
    ],
)
def test_ssh(endpoint: str, command: list[str]) -> None:
    dialer = remotes._ssh(urlsplit(endpoint))
    assert isinstance(dialer, SshDialer)
    assert dialer._command[3:] == command


@pytest.mark.parametrize(
    "endpoint", ["ssh://me:secret@far.lab", "ssh:///run/s", "ssh://far.lab?x=y", "ssh://far.lab#x"]
)
def test_ssh_as_the_cli_refuses_it(endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remotes._ssh(urlsplit(endpoint))
    assert "secret" not in str(caught.value)
