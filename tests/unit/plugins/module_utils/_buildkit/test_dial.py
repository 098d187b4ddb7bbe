# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways to a daemon, and the private socket in front of those that grpcio cannot dial."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import UnixDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, EngineError
from ansible_collections.buildfleet.buildx.plugins.module_utils._relay import Relay

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a socket left open


class Echo:
    """A dialer whose connections send everything back, in capitals."""

    authority = "localhost"

    def __init__(self) -> None:
        self.dialled = 0
        self.threads: list[threading.Thread] = []

    def dial(self) -> socket.socket:
        self.dialled += 1
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(theirs,), daemon=True)
        thread.start()
        self.threads.append(thread)
        return ours

    @staticmethod
    def _serve(stream: socket.socket) -> None:
        with stream:
            while True:
                data = stream.recv(65536)
                if not data:
                    return
                stream.sendall(data.upper())

    def target(self) -> str | None:
        return None

    def explain(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


class Nowhere(Echo):
    def dial(self) -> socket.socket:
        raise EngineError("the container is paused")


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    deadline = time.monotonic() + 5
    while not set(os.listdir("/proc/self/fd")) <= before and time.monotonic() < deadline:
        time.sleep(0.01)  # the pumps end by themselves
    assert set(os.listdir("/proc/self/fd")) <= before


def connect(relay: Relay) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(10)
    stream.connect(relay.path)
    return stream


def test_a_daemons_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "buildkitd.sock")
    dialer = UnixDialer(path)
    with pytest.raises(BuildkitError, match=f"no BuildKit daemon listens at {path}: No such file"):
        dialer.dial()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with pytest.raises(BuildkitError, match="Connection refused"):
            dialer.dial()
        listener.listen(1)
        with dialer.dial() as stream:
            listener.accept()[0].close()
            assert stream.recv(1) == b""
    assert (dialer.target(), dialer.explain()) == (f"unix:{path}", "")


def test_each_connection_is_one_of_the_dialer(nothing_left: None) -> None:
    dialer = Echo()
    relay = Relay(dialer.dial)
    streams = [connect(relay) for _time in range(3)]
    for number, stream in enumerate(streams):
        stream.sendall(b"hello %d" % number)
    for number, stream in enumerate(streams):
        assert stream.recv(100) == b"HELLO %d" % number
    assert dialer.dialled == 3
    for stream in streams:
        stream.close()
    relay.close()


def test_much_data_both_ways(nothing_left: None) -> None:
    relay = Relay(Echo().dial)
    stream = connect(relay)
    content = b"abcdefgh" * 300_000
    sender = threading.Thread(target=stream.sendall, args=(content,))
    sender.start()
    found = bytearray()
    while len(found) < len(content):
        found += stream.recv(65536)
    sender.join()
    assert found == content.upper()
    stream.close()
    relay.close()


def test_the_end_of_one_side_is_the_end_of_the_other(nothing_left: None) -> None:
    dialer = Echo()
    relay = Relay(dialer.dial)
    connect(relay).close()
    while not dialer.threads:
        time.sleep(0.01)
    dialer.threads[0].join(5)
    assert not dialer.threads[0].is_alive()
    relay.close()


def test_a_way_that_cannot_be_opened_is_remembered(nothing_left: None) -> None:
    """grpcio only sees that the connection ends; the words are here."""
    relay = Relay(Nowhere().dial)
    with connect(relay) as stream:
        assert stream.recv(1) == b""
    assert str(relay.failure) == "the container is paused"
    with connect(relay) as stream:
        assert stream.recv(1) == b"", "it is tried again"
    relay.close()


def test_closing_ends_every_connection_and_leaves_nothing(nothing_left: None, tmp_path: Path) -> None:
    dialer = Echo()
    relay = Relay(dialer.dial)
    stream = connect(relay)
    stream.sendall(b"x")
    assert stream.recv(10) == b"X"
    relay.close()
    assert stream.recv(10) == b""
    stream.close()
    for thread in dialer.threads:
        thread.join(5)
        assert not thread.is_alive()


def test_it_has_no_name(nothing_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can connect can build as the daemon's owner; and what has no name is not left behind by a process that is
    killed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    relay = Relay(Echo().dial)
    assert list(tmp_path.iterdir()) == []
    assert relay.path.startswith("/proc/self/fd/")
    with connect(relay) as stream:
        stream.sendall(b"x")
        assert stream.recv(10) == b"X"
    relay.close()


def test_a_directory_whose_name_is_long(nothing_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's name may have 107 bytes."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    relay = Relay(Echo().dial)
    with connect(relay) as stream:
        stream.sendall(b"x")
        assert stream.recv(10) == b"X"
    relay.close()
    assert list(deep.iterdir()) == []
