# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a build asks for, and the request that says so to the daemon. Pure but for the look at the context's files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _reference as reference
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._words import plain_text

from .outputs import Output

if TYPE_CHECKING:
    from .cache_option import Cache
    from .contexts import NamedContexts
    from .further_options import Process

FRONTEND = "dockerfile.v0"
DEFAULT_ATTESTATION = "mode=min,inline-only=true"
"""What the CLI sends when nothing is said of attestations (buildx §5.9)."""
NO_OUTPUT_WARNING = (
    "No output specified with docker-container driver. Build result will only remain in the build cache. "
    "To push result image into registry use --push or to load image into docker use --load"
)
"""The CLI's sentence (buildx §5.8)."""
FURTHER = ("outputs", "cache_from", "cache_to", "secrets", "build_contexts")
"""Options that only some builds have."""


@dataclass(frozen=True)
class Source:
    """Where a build comes from. Directories are absolute, links in them resolved.

    filename: of the Dockerfile in its directory.
    """

    context: str
    directory: str
    filename: str

    @property
    def dockerfile(self) -> str:
        return os.path.join(self.directory, self.filename)


@dataclass(frozen=True)
class BuildRequest:
    """A build as a task asks for it, checked.

    images:  the names that the result gets. outputs: where it goes, besides what `load` and `push` say in short;
    load None: as is usual for the name and the builder. secrets: id → what reads the value.
    """

    source: Source
    images: Sequence[str] = ()
    load: Optional[bool] = None
    push: bool = False
    outputs: Sequence[Output] = ()
    cache_from: Sequence[Cache] = ()
    cache_to: Sequence[Cache] = ()
    secrets: Mapping[str, Callable[[], bytes]] = field(default_factory=dict, repr=False)
    contexts: Optional[NamedContexts] = None
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: Sequence[str] = ()
    no_cache: bool = False
    pull: bool = False

    @property
    def image(self) -> Optional[str]:
        """The name under which the result is looked for, None: it has none."""
        return self.images[0] if self.images else None


def from_params(params: Mapping[str, Any], process: Process) -> BuildRequest:
    """Read a task's options. Raises ConfigError that names the option."""
    images = _images(params["name"], params["tag"], params["tags"] or ())
    if params["load"] and not images:
        raise ConfigError("load needs a name: an image without one cannot be found in the engine")
    request = BuildRequest(
        source=source(params["path"], params["dockerfile"]),
        images=images,
        load=params["load"],
        push=params["push"],
        target=params["target"] or "",
        args=_texts(params["args"]),
        labels=_texts(params["labels"]),
        platforms=_platforms(params["platform"] or []),
        no_cache=params["nocache"],
        pull=params["pull"],
    )
    if not any(params[option] for option in FURTHER) and "BUILDKIT_INLINE_CACHE" not in request.args:
        return request
    from . import further_options

    return further_options.added(request, params, process)


def _platforms(texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms

    return [platforms.format(item) for item in platforms.parse_list(texts)]


def _images(name: Optional[str], tag: str, more: Iterable[str]) -> list[str]:
    """Every name of the image once: the one that `name` and `tag` make, then the others."""
    if not reference.is_tag(tag):
        raise ConfigError(f"invalid tag {tag!r}: letters, digits, '_', '.' and '-', at most 128")
    parsed = [_named(name, "name")] if name else []
    if parsed and not parsed[0].tag:
        parsed = [parsed[0]._replace(tag=tag)]
    return list(dict.fromkeys(str(item) for item in [*parsed, *(_named(text, "tags") for text in more)]))


def _named(text: str, option: str) -> reference.Reference:
    parsed = reference.parse(text, what=option)
    if parsed.digest:
        raise ConfigError(f"{option} must not hold a digest, a build makes a new one: {text}")
    return parsed


def _texts(values: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Values of YAML as text, as docker_image_build does; sorted, so that equal builds are equal requests."""
    return {str(key): plain_text(value) for key, value in sorted((values or {}).items(), key=lambda item: str(item[0]))}


def source(path: str, dockerfile: Optional[str]) -> Source:
    """Look at the context and the Dockerfile. Raises ConfigError that names what is missing."""
    context = os.path.realpath(path)
    if not os.path.isdir(context):
        what = "is no directory" if os.path.exists(context) else "not found on the target"
        raise ConfigError(f'unable to prepare context: path "{path}" {what}')
    if not os.access(context, os.R_OK | os.X_OK):
        raise ConfigError(f'unable to prepare context: path "{path}" cannot be read by this user')
    file = os.path.join(context, dockerfile or "Dockerfile")
    if not os.path.isfile(file):
        other = os.path.join(os.path.dirname(file), "dockerfile")
        if os.path.basename(file) != "Dockerfile" or not os.path.isfile(other):
            raise ConfigError(
                f"there is no Dockerfile at {file}", hint="dockerfile names another one, relative to path."
            )
        file = other
    if not os.access(file, os.R_OK):
        raise ConfigError(f"the Dockerfile {file} cannot be read by this user")
    return Source(context, os.path.realpath(os.path.dirname(file)), os.path.basename(file))


def frontend_attrs(request: BuildRequest, *, engine_store: bool, attest: bool) -> dict[str, str]:
    """The attributes of dockerfile.v0 (wire §5.2).

    engine_store: the daemon is inside an engine and may use the engine's own images.
    attest: the daemon knows attestations.
    """
    attrs = {"filename": request.source.filename}
    if request.target:
        attrs["target"] = request.target
    if request.platforms:
        attrs["platform"] = ",".join(request.platforms)
    if request.no_cache:
        attrs["no-cache"] = ""
    if request.pull:
        attrs["image-resolve-mode"] = "pull"
    elif engine_store:
        attrs["image-resolve-mode"] = "local"
    if attest:
        attrs["attest:provenance"] = DEFAULT_ATTESTATION
    attrs.update({f"build-arg:{key}": value for key, value in request.args.items()})
    attrs.update({f"label:{key}": value for key, value in request.labels.items()})
    attrs.update(request.contexts.attrs if request.contexts else {})
    return attrs


def local_directories(request: BuildRequest) -> dict[str, str]:
    """Local name → directory, as the frontend asks for them."""
    more = request.contexts.directories if request.contexts else {}
    return {"context": request.source.context, "dockerfile": request.source.directory, **more}
