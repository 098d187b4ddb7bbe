# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""Names of images, as docker reads them."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:localhost|(?:[a-zA-Z0-9-]+\.)+[a-zA-Z0-9-]+|[a-zA-Z0-9.-]+(?=:\d)|\[[0-9a-fA-F:]+\])(?::\d+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_NAME = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>[a-z0-9]+:[0-9a-f]{{32,}}))?\Z"
)
HUB = "docker.io"
LONGEST_PATH = 255


class Reference(NamedTuple):
    """A name taken apart. domain and path are whole: `busybox` is docker.io and library/busybox."""

    domain: str
    path: str
    tag: Optional[str]
    digest: Optional[str]

    def __str__(self) -> str:
        """The familiar form, as `docker images` prints it, with the tag that was left out."""
        path = self.path[len("library/") :] if self.domain == HUB and self.path.startswith("library/") else self.path
        name = path if self.domain == HUB else f"{self.domain}/{path}"
        if self.digest:
            return f"{name}:{self.tag}@{self.digest}" if self.tag else f"{name}@{self.digest}"
        return f"{name}:{self.tag or 'latest'}"


def parse(text: str, *, what: str = "image name") -> Reference:
    """Take a name apart. Raises ConfigError that says what it was meant to be."""
    match = _NAME.match(text)
    if not match:
        raise ConfigError(f"invalid {what} {text!r}: it must be [HOST[:PORT]/]PATH[:TAG], the path in lower case")
    domain, path = match["domain"] or HUB, match["path"]
    if domain in ("index.docker.io", HUB):
        domain = HUB
        if "/" not in path:
            path = f"library/{path}"
    if len(path) > LONGEST_PATH:
        raise ConfigError(f"invalid {what} {text!r}: its path has more than {LONGEST_PATH} letters")
    return Reference(domain, path, match["tag"], match["digest"])


def same(one: str, other: str) -> bool:
    """Whether two names mean the same image; what is no name (an id) is compared as text."""
    try:
        return str(parse(one)) == str(parse(other))
    except ConfigError:
        return one == other


def is_tag(text: str) -> bool:
    return re.fullmatch(_TAG, text) is not None
