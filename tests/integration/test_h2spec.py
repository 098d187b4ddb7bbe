# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server of a session's inner connection against h2spec, the conformance tests of RFC 9113 and RFC 7541.

All cases pass, the strict ones as well; there is no exception to justify.
"""

from __future__ import annotations

import contextlib
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.connection import (
    Connection,
    DataReceived,
    Event,
    HeadersReceived,
    Role,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.http2.errors import ProtocolError

LAB = Path(__file__).resolve().parents[1] / "lab" / "lab.py"
CASES = 146
CONTENT = b"Hello!"  # flow control is tested with windows of a few bytes


class Answering(socketserver.BaseRequestHandler):
    """One connection: every request is answered, as far as the windows allow."""

    def setup(self) -> None:
        self.connection = Connection(Role.SERVER)
        self.connection.start()
        self.unsent: dict[int, bytes] = {}

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # most cases end with one that was cut
            alive = True
            while alive:
                self.request.sendall(self.connection.data_to_send())
                data = self.request.recv(65_536)
                alive = bool(data) and self.take(data)
            self.request.sendall(self.connection.data_to_send())

    def take(self, data: bytes) -> bool:
        """Whether the connection goes on."""
        try:
            events, alive = self.connection.receive(data), True
        except ProtocolError as fault:
            events, alive = fault.events, False
        for event in events:
            self.see(event)
        for stream_id, content in list(self.unsent.items()):
            size = min(self.connection.writable(stream_id), len(content))
            if size:
                self.connection.send_data(stream_id, content[:size], end_stream=size == len(content))
                self.unsent[stream_id] = content[size:]
            if size == len(content):
                del self.unsent[stream_id]
        return alive

    def see(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.connection.consumed(event.stream_id, event.size_for_flow_control)
        elif isinstance(event, HeadersReceived) and not event.trailers:
            self.connection.send_headers(event.stream_id, [(b":status", b"200")])
        if isinstance(event, (DataReceived, HeadersReceived)) and event.end_stream:
            self.unsent[event.stream_id] = CONTENT


@pytest.fixture
def port() -> Iterator[int]:
    """That of a server on this machine's loopback."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_conformance(port: int, tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, LAB, "program", "h2spec"], stdout=subprocess.PIPE, text=True, check=True)
    report = tmp_path / "report.xml"
    command = [found.stdout.strip(), "--port", str(port), "--strict", "--timeout", "20", "--junit-report", str(report)]

    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=False)

    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - h2spec wrote it
    assert [f"{case.get('package')}: {case.get('classname')}" for case in cases if len(case)] == []
    assert (len(cases), done.returncode) == (CASES, 0), done.stdout
