# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The random number that docker's directory keeps for each registry, shared with the CLI (wire §9.2).

From it and the daemon's salt comes the key with which two builds prove that they have the same credentials;
without it the daemon would fetch a new token for each build.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

FILE = ".token_seed"
SIZE = 16
_of_this_process: dict[str, bytes] = {}


def seed(directory: str, host: str) -> bytes:
    """The number of a registry, made when there is none; one of this process alone where nothing can be written."""
    path = os.path.join(directory, FILE)
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with _locked(f"{path}.lock"):
            known = _read(path)
            found = _decoded(known.get(host))
            if not found:
                found = secrets.token_bytes(SIZE)
                _write(path, {**known, host: {"Seed": base64.b64encode(found).decode()}})
            return found
    except OSError:
        return _of_this_process.setdefault(host, secrets.token_bytes(SIZE))


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: str) -> dict[str, Any]:
    """What is stored; a file that is none of ours or the CLI's counts as empty, since all of it can be made again."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _decoded(entry: object) -> bytes:
    text = entry.get("Seed") if isinstance(entry, dict) else None
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error:
        return b""


def _write(path: str, document: dict[str, Any]) -> None:
    temporary = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2, sort_keys=True)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
