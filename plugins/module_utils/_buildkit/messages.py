# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""The messages of BuildKit's wire (wire §1) as protobuf classes, made at run time.

No generated code: that ties itself to one release of protobuf, and a target has any from 3.21 to 7. The
descriptors travel as text in descriptors.py and are loaded on first use, into a pool of our own: other
users of the same files in this process (a containerd or googleapis package) stay out of the way.

Two fields differ from the tables: `def` is `definition`, a Python word being in the way; and what may
hold any bytes (path, linkname and xattrs of fsutil.types.Stat) is bytes, which is the same on the wire.
"""

from __future__ import annotations

import base64
import threading
import zlib
from typing import Any, Optional, cast

from .descriptors import DATA

_lock = threading.RLock()  # two threads that both come first must not get two pools: their classes would not mix
_pool: Optional[Any] = None
_factory: Optional[Any] = None  # kept for old releases, where a new factory means new classes
_known: dict[str, Any] = {}


def message(name: str) -> type[Any]:
    """The class of a message by its full protobuf name, such as `moby.buildkit.v1.SolveRequest`.

    Raises: KeyError - no such message, a mistake of the caller.
    """
    if name not in _known:
        with _lock:
            _known[name] = _message_class(_loaded_pool().FindMessageTypeByName(name))
    return cast("type[Any]", _known[name])


def enum(name: str) -> Any:
    """An enum by its full name; its values are attributes (`.COMMIT`), `.Name(2)` goes the other way."""
    if name not in _known:
        from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

        with _lock:
            _known[name] = EnumTypeWrapper(_loaded_pool().FindEnumTypeByName(name))
    return _known[name]


class Package:
    """A protobuf package as a namespace: `control.SolveRequest(Ref=…)`, `content.WriteAction.COMMIT`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, word: str) -> Any:
        if word.startswith("_"):  # what copy, pickle and inspect ask of any object
            raise AttributeError(word)
        full = f"{self._name}.{word}"
        for find in (message, enum):
            try:
                found = find(full)
            except KeyError:
                continue
            setattr(self, word, found)  # asked once: from now on an ordinary attribute
            return found
        raise AttributeError(f"no message or enum {full}")


control = Package("moby.buildkit.v1")
worker = Package("moby.buildkit.v1.types")
sourcepolicy = Package("moby.buildkit.v1.sourcepolicy")
pb = Package("pb")
filesync = Package("moby.filesync.v1")  # and auth
secrets = Package("moby.buildkit.secrets.v1")
sshforward = Package("moby.sshforward.v1")
upload = Package("moby.upload.v1")
exporter = Package("moby.exporter.v1")
fsutil = Package("fsutil.types")
content = Package("containerd.services.content.v1")
rpc = Package("google.rpc")
health = Package("grpc.health.v1")


def _loaded_pool() -> Any:
    global _pool  # noqa: PLW0603 - loaded once per process, and only by those who need it
    if _pool is None:
        from google.protobuf import descriptor_pb2, descriptor_pool

        pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(base64.b64decode(DATA)))
        for file in files.file:  # dependencies first, a private pool starts empty
            pool.AddSerializedFile(file.SerializeToString())
        _pool = pool
    return _pool


def _message_class(descriptor: Any) -> Any:
    global _factory  # noqa: PLW0603
    from google.protobuf import message_factory

    make = getattr(message_factory, "GetMessageClass", None)  # 4.22 and later
    if make is not None:
        return make(descriptor)
    if _factory is None:
        _factory = cast(Any, message_factory).MessageFactory(_loaded_pool())
    return _factory.GetPrototype(descriptor)
