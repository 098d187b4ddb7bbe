# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""One solve: the request, its status stream and the session, ended in the right order (wire §0, §6.1)."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._deps import require
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuildkitError, BuildxError, DeadlineError

from .client import Client
from .progress import Progress
from .session import Session

QUIET_SECONDS = 5.0
"""How long the status stream may say nothing after the solve has ended, before it is given up."""
UNHEARD_SECONDS = 0.5
"""The same when it never said anything: the build failed before it became a job, and the daemon would wait 6 s."""


def run(client: Client, session: Session, request: Any, progress: Progress, deadline: Deadline) -> Mapping[str, str]:
    """Solve a request whose Session is `session`, which is started and closed here.

    What happens is folded into `progress`. Returns the exporters' response.
    Raises SolveError when the build failed, DeadlineError when it was cut off, BuildkitError otherwise.
    """
    try:
        session.start()
        watch = _Watch(client, request.Ref, progress)
        try:
            response = _wait(client, client.solve(request), session, progress, deadline, watch)
        finally:
            watch.end()
            progress.finish()
    finally:
        session.close()
    return dict(response.ExporterResponse)


def _wait(client: Client, future: Any, session: Session, progress: Progress, deadline: Deadline, watch: _Watch) -> Any:
    grpc = require("grpc")
    session.on_failure = future.cancel  # without it the build may go on, but its result would be lost
    if session.failure is not None:
        future.cancel()
    try:
        return future.result(timeout=deadline.left())
    except grpc.FutureTimeoutError:
        future.cancel()
        raise DeadlineError(
            f"the build was cut off: it took longer than {deadline.seconds:g} s",
            hint="Raise build_timeout if it needs more time.",
        ) from None
    except grpc.FutureCancelledError:
        raise _broken(session, "") from None
    except grpc.RpcError as exc:
        watch.settle()
        progress.finish()
        raise _failure(client, exc, session, progress) from exc
    except BaseException:
        future.cancel()
        raise


def _failure(client: Client, exc: Any, session: Session, progress: Progress) -> BuildxError:
    details = b""
    for key, value in exc.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            details = value
    code = exc.code().name
    if code == "UNAVAILABLE" and not details:
        return _broken(session, client.words(exc))
    from .errors import from_rpc

    return from_rpc(code, client.words(exc), details, progress)


def _broken(session: Session, words: str) -> BuildxError:
    lost = session.failure
    hint = lost.hint if lost else None
    return BuildkitError(
        f"the connection to the daemon broke during the build: {lost or words}",
        hint=hint or "See whether the builder's container runs; the next build starts it again.",
    )


class _Watch:
    """The status stream in a thread, and how long it has been quiet."""

    def __init__(self, client: Client, ref: str, progress: Progress) -> None:
        self._call = client.status(ref)
        self._progress = progress
        self._heard = 0.0
        self._thread = threading.Thread(target=self._read, name="status", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        grpc = require("grpc")
        try:
            for response in self._call:
                self._heard = time.monotonic()
                self._progress.update(response)
        except grpc.RpcError:
            return  # the solve says what went wrong

    def settle(self) -> None:
        """Wait until the stream has ended, or has been quiet for long enough after the solve's end."""
        ended = time.monotonic()
        while self._thread.is_alive():
            patience = QUIET_SECONDS if self._heard else UNHEARD_SECONDS
            left = max(self._heard, ended) + patience - time.monotonic()
            if left <= 0:
                return
            self._thread.join(left)

    def end(self) -> None:
        self.settle()
        self._call.cancel()
        self._thread.join(QUIET_SECONDS)
