# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The Control service of a daemon over grpcio: everything that has few messages (DESIGN §4.6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError

from .dial import Dialer
from .messages import control

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._relay import Relay

SERVICE = "/moby.buildkit.v1.Control/"
OPTIONS = (
    # Error details travel in one trailer: the whole Dockerfile and more (wire §0.1).
    ("grpc.max_metadata_size", 64 << 20),
    ("grpc.absolute_max_metadata_size", 64 << 20),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A Solve must never be sent twice: the daemon knows its Ref already.
    ("grpc.enable_retries", 0),
    # Two channels of one process to one address must not share a connection that one of them closes.
    ("grpc.use_local_subchannel_pool", 1),
    # A window that grows with the bandwidth costs 15 MB of memory when layers are read, and gains nothing here.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
)


class Client:
    """A channel to one daemon. Use it as a context manager: leaving it closes the channel and the relay."""

    def __init__(self, dialer: Dialer) -> None:
        grpc = require("grpc")
        require("google.protobuf")
        self._dialer = dialer
        target = dialer.target()
        self._relay: Optional[Relay] = None
        if target is None:
            from ansible_collections.buildfleet.buildx.plugins.module_utils._relay import Relay

            self._relay = Relay(dialer.dial)
            target = f"unix:{self._relay.path}"
        options = [*OPTIONS, ("grpc.default_authority", dialer.authority)]
        self._channel = grpc.insecure_channel(target, options=options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()
        if self._relay is not None:
            self._relay.close()

    def version(self, seconds: float) -> str:
        """BuildKit's version as the daemon says it; "" from one that cannot (before 0.11)."""
        try:
            answer = self._unary("Info", control.InfoRequest(), control.InfoResponse, seconds, "ask for its version")
        except BuildkitError as exc:
            if exc.details.get("code") == "UNIMPLEMENTED":
                return ""
            raise
        return str(answer.buildkitVersion.version)

    def workers(self, seconds: float) -> list[Any]:
        """The daemon's WorkerRecord messages."""
        request, answer = control.ListWorkersRequest(), control.ListWorkersResponse
        return list(self._unary("ListWorkers", request, answer, seconds, "ask for its workers").record)

    def solve(self, request: Any) -> Any:
        """Begin a Solve and give its grpc.Future; cancelling it cancels the build."""
        call = self._channel.unary_unary(
            f"{SERVICE}Solve",
            request_serializer=type(request).SerializeToString,
            response_deserializer=control.SolveResponse.FromString,
        )
        return call.future(request)

    def status(self, ref: str) -> Any:
        """The stream of StatusResponse messages of a build; cancelling it does not cancel the build."""
        return self.stream(f"{SERVICE}Status", control.StatusRequest(Ref=ref), control.StatusResponse)

    def stream(self, path: str, request: Any, answer: Any, seconds: Optional[float] = None) -> Any:
        """Begin a call with many answers: an iterator of them, which `cancel` ends; read it under `errors`."""
        call = self._channel.unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=seconds)

    def _unary(self, method: str, request: Any, answer: Any, seconds: float, what: str) -> Any:
        call = self._channel.unary_unary(
            SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        with self.errors(what):
            return call(request, timeout=seconds)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn grpc's errors into BuildkitError; details.code is the status' name, `what` completes "could not …".

        A way that could not be opened is an error of its own, and is told as it is.
        """
        grpc = require("grpc")
        try:
            yield
        except grpc.RpcError as exc:
            if self._relay is not None and self._relay.failure is not None:
                raise self._relay.failure from exc
            code = exc.code().name
            if code == "DEADLINE_EXCEEDED":
                raise BuildkitError(
                    f"could not {what}: the daemon gave no answer",
                    hint="See whether the daemon is frozen, or its host overloaded.",
                    code=code,
                ) from exc
            raise BuildkitError(f"could not {what}: {self.words(exc)}", code=code) from exc

    def words(self, exc: Any) -> str:
        """The words of a failed call, with what the way to the daemon said of it."""
        failure: Optional[BaseException] = self._relay.failure if self._relay else None
        said = str(failure) if failure else self._dialer.explain()
        return f"{exc.details()} ({said.strip()})" if said else str(exc.details())
