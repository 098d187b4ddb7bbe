# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Certificates and keys of registries: whether BuildKit could use what the configuration carries."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from .spec import CONFIG_DIRECTORY


def findings(document: Mapping[str, Any], files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with the certificates of a node. document: its configuration; files: what it carries.

    BuildKit takes an authority's file without a certificate in it for an empty one, without a word; a key that does not
    belong to its certificate fails each build that needs the registry.
    """
    found = []
    registries = document.get("registry")
    for name, table in registries.items() if isinstance(registries, Mapping) else ():
        if isinstance(table, Mapping):
            found += [f"registry.{name}: {words}" for words in _registry(table, files)]
    return found


def _registry(table: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[str]:
    for path in _list(table.get("ca")):
        content = _content(path, files)
        why = None if content is None else _no_authority(content)
        if why:
            yield f"{os.path.basename(path)} holds no certificate that could be read ({why})"
    for pair in _list(table.get("keypair")):
        if isinstance(pair, Mapping):
            cert, key = _content(pair.get("cert"), files), _content(pair.get("key"), files)
            why = None if cert is None or key is None else _no_pair(cert, key)
            if why:
                names = (os.path.basename(pair[part]) for part in ("cert", "key"))
                yield f"the certificate {' with the key '.join(names)}: {why}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _content(path: Any, files: Mapping[str, bytes]) -> Optional[bytes]:
    """The content behind a path in the container, None when the node does not carry it."""
    prefix = f"{CONFIG_DIRECTORY}/"
    return files.get(path[len(prefix) :]) if isinstance(path, str) and path.startswith(prefix) else None


def _no_authority(content: bytes) -> Optional[str]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except UnicodeDecodeError:
        return "it is no PEM"
    except (ssl.SSLError, ValueError) as exc:
        return _words(exc)
    return None


def _no_pair(cert: bytes, key: bytes) -> Optional[str]:
    asked = []

    def password() -> str:
        asked.append(True)
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # how strong a key must be is for the registry to say
    with tempfile.TemporaryDirectory(prefix="buildx-") as directory:  # 0700, as its files are 0600
        paths = []
        for name, content in (("cert.pem", cert), ("key.pem", key)):
            paths.append(os.path.join(directory, name))
            with os.fdopen(os.open(paths[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(content)
        try:
            context.load_cert_chain(paths[0], paths[1], password=password)
        except (ssl.SSLError, ValueError, OSError) as exc:
            if asked:
                return "the key is encrypted, and BuildKit has no password for it"
            if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
                return "the key does not belong to the certificate"
            return f"they cannot be read ({_words(exc)})"
    return None


def _words(exc: Exception) -> str:
    reason = getattr(exc, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(exc)
