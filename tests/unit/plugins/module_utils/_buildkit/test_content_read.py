# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading blobs from a daemon: a server of grpcio in this process, which gives what the test says."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import content_read
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content_read import ContentReader
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import UnixDialer
from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import content
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, PeerProtocolError


class Daemon(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # grpc itself takes none
    """A content service. give: the pieces of a blob."""

    def __init__(self, path: str) -> None:
        self.give: Callable[[str, Any], Iterator[bytes]] = lambda digest, context: iter(())
        self.served = True
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def service(self, details: Any) -> Any:
        if not self.served or details.method != "/containerd.services.content.v1.Content/Read":
            return None
        return grpc.unary_stream_rpc_method_handler(
            self._read,
            request_deserializer=content.ReadContentRequest.FromString,
            response_serializer=content.ReadContentResponse.SerializeToString,
        )

    def _read(self, request: Any, context: Any) -> Iterator[Any]:
        for piece in self.give(request.digest, context):
            yield content.ReadContentResponse(data=piece)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(str(tmp_path / "d.sock"))
    yield made
    made.stop()


@pytest.fixture
def reader(daemon: Daemon, tmp_path: Path) -> Iterator[ContentReader]:
    with Client(UnixDialer(str(tmp_path / "d.sock"))) as client:
        yield ContentReader(client)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_document_is_put_together_and_proven(daemon: Daemon, reader: ContentReader) -> None:
    asked: list[str] = []

    def give(digest: str, _context: Any) -> Iterator[bytes]:
        asked.append(digest)
        yield from (b"one", b"two")

    daemon.give = give
    wanted = digest_of(b"onetwo")
    assert reader.document(wanted) == b"onetwo"
    assert asked == [wanted]
    with pytest.raises(PeerProtocolError, match="something else"):
        reader.document(digest_of(b"other"))


def test_a_document_has_an_end(daemon: Daemon, reader: ContentReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_read, "LARGEST_DOCUMENT", 1000)
    ended = threading.Event()

    def give(_digest: str, context: Any) -> Iterator[bytes]:
        context.add_callback(ended.set)
        while context.is_active():
            yield b"x" * 100

    daemon.give = give
    with pytest.raises(PeerProtocolError, match="more than 1000 bytes"):
        reader.document(digest_of(b""))
    assert ended.wait(10), "the daemon is told"


def test_who_leaves_off_ends_the_call(daemon: Daemon, reader: ContentReader) -> None:
    ended = threading.Event()

    def give(_digest: str, context: Any) -> Iterator[bytes]:
        context.add_callback(ended.set)
        yield b"first"
        ended.wait(10)

    daemon.give = give
    chunks = reader.chunks("sha256:x")
    assert next(chunks) == b"first"
    chunks.close()  # type: ignore[attr-defined]  # it is a generator
    assert ended.wait(10)


def test_what_is_not_there(daemon: Daemon, reader: ContentReader) -> None:
    def give(digest: str, context: Any) -> Iterator[bytes]:
        yield b"some"
        context.abort(grpc.StatusCode.NOT_FOUND, f"content digest {digest}: not found")

    daemon.give = give
    with pytest.raises(BuildkitError, match="content digest sha256:x: not found") as failed:
        list(reader.chunks("sha256:x"))
    assert failed.value.details["code"] == "NOT_FOUND"


def test_a_daemon_without_the_service(daemon: Daemon, reader: ContentReader) -> None:
    daemon.served = False
    with pytest.raises(BuildkitError) as failed:
        reader.document("sha256:x")
    assert failed.value.details["code"] == "UNIMPLEMENTED"
