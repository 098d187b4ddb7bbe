# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""One build (the body of buildx_build): choose the builder, boot it, solve, and judge by the result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _connect as connect
from ansible_collections.buildfleet.buildx.plugins.module_utils import _fleet as fleet
from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms
from ansible_collections.buildfleet.buildx.plugins.module_utils._build import request as requests
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import (
    DOCKER_CONTAINER,
    Instance,
    NodeEntry,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.names import container_name
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers, images
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError, ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

OLDEST = (0, 12)
"""Releases of BuildKit before this one are refused (DESIGN §6)."""


class Choice(NamedTuple):
    """The builder of a build. instance None: the BuildKit inside the engine of the docker context `name`."""

    name: str
    instance: Optional[Instance]


def ensure(task: Task, params: Mapping[str, Any], *, check_mode: bool, warn: Callable[[str], None]) -> dict[str, Any]:
    """Do a build, or in check mode say whether one would be done. The result of the module."""
    if params["build_timeout"] is not None and params["build_timeout"] <= 0:
        raise ConfigError("build_timeout must be more than 0")
    request = requests.from_params(params)
    choice = choose(task, params["builder"])
    engine = task.engine()
    before = images.inspect(engine, request.image) if request.image else None
    if params["rebuild"] == "never" and before is not None:
        return _result(changed=False, image=before)
    if check_mode:
        return _result(changed=True, image=before)
    outcome = _build(task, choice, request, Deadline(params["build_timeout"]))
    if outcome.unexported and params["load"] is not True:
        warn(requests.NO_OUTPUT_WARNING)
    after = images.inspect(engine, request.image) if request.image and outcome.loads else before
    if outcome.loads and request.image:
        changed = after is None or before is None or after["Id"] != before["Id"]
        outcome.verify(after, request.image)
    else:
        changed = bool(outcome.executed)
    return _result(
        changed=changed or params["rebuild"] == "always",
        image=after,
        log_tail=outcome.log_tail,
        steps=outcome.steps,
        executed=outcome.executed,
        digest=outcome.response.get("containerimage.digest"),
        ref=outcome.ref,
    )


def _result(*, changed: bool, image: Optional[Mapping[str, Any]], **others: Any) -> dict[str, Any]:
    result = {"changed": changed, "image": dict(image or {}), "log_tail": [], "steps": [], "executed": []}
    result.update({key: value for key, value in others.items() if value is not None})
    return result


def choose(task: Task, name: Optional[str]) -> Choice:
    """The builder that a task means (buildx §1.6, §1.7). Raises BuilderError when there is none of that name."""
    wanted = name or task.surroundings.builder or task.current_builder()
    instance = task.store.load(wanted) if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9.\-_]*", wanted) else None
    if instance is None:
        if wanted not in task.contexts.names():
            raise fleet.unknown_builder(task, wanted)
        if wanted != task.contexts.current():
            raise BuilderError(
                f"the builder {wanted} belongs to another docker context than the task's",
                hint=f"Name its engine with docker_host, or set DOCKER_CONTEXT={wanted} in the task's environment.",
            )
    elif instance.driver != DOCKER_CONTAINER:
        raise BuilderError(
            f"the builder {wanted} has the driver {instance.driver}, which this collection cannot build with yet"
        )
    return Choice(wanted, instance)


class Outcome(NamedTuple):
    """What a build came to. wanted_id: what the image's id must be in the engine, None: not known."""

    ref: str
    response: Mapping[str, str]
    log_tail: list[str]
    steps: list[dict[str, Any]]
    executed: list[str]
    loads: bool
    unexported: bool
    wanted_id: Optional[str]

    def verify(self, image: Optional[Mapping[str, Any]], name: str) -> None:
        """Nothing counts as loaded until the engine has it under its name."""
        if image is None or (self.wanted_id and image["Id"] != self.wanted_id):
            found = image["Id"] if image else "nothing"
            raise BuildxError(
                f"the engine said that it loaded {name}, but has {found} under that name instead of {self.wanted_id}",
                hint="Something else loads or removes the same name; run the task again.",
                log_tail=self.log_tail,
            )


def _build(task: Task, choice: Choice, request: requests.BuildRequest, deadline: Deadline) -> Outcome:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress

    progress = Progress()
    steps: list[dict[str, Any]] = []
    if choice.instance is None:
        dialer: Any = connect.EngineDialer(task.engine())
        node = NodeEntry(choice.name, choice.name)
    else:
        node = _node(choice.instance, request)
        engine = task.engine(node.endpoint)
        steps = _boot(task, choice.instance, node, engine, progress)
        inspect = containers.inspect(engine, container_name(node.name))
        if inspect is None:
            raise BuilderError(f"the container of the node {node.name} is gone")
        dialer = connect.container_dialer(engine, inspect)
    try:
        with Client(dialer) as client:
            return _solve(task, choice, node, request, client, dialer, progress, deadline, steps)
    finally:
        dialer.close()


def _node(instance: Instance, request: requests.BuildRequest) -> NodeEntry:
    """The node that builds: the first whose fixed platforms have all that is asked for, else the first."""
    for node in instance.nodes:
        fixed = {
            platforms.format(item) for item in platforms.unique(platforms.from_json(p) for p in node.platforms or ())
        }
        if request.platforms and fixed.issuperset(request.platforms):
            return node
    if not instance.nodes:
        raise BuilderError(f"the builder {instance.name} has no nodes")
    return instance.nodes[0]


def _boot(task: Task, instance: Instance, node: NodeEntry, engine: Engine, progress: Any) -> list[dict[str, Any]]:
    """Bring the node up if it is not, without looking for drift: a build repairs nothing that may serve others."""
    found = containers.inspect(engine, container_name(node.name))
    if found is not None and found["State"]["Status"] == "running":
        return []
    from ansible_collections.buildfleet.buildx.plugins.module_utils._reconcile import boot

    with progress.local("[internal] booting buildkit") as vertex:
        return boot(task, instance, node, log=vertex)


def _solve(
    task: Task,
    choice: Choice,
    node: NodeEntry,
    request: requests.BuildRequest,
    client: Any,
    dialer: Any,
    progress: Any,
    deadline: Deadline,
    steps: list[dict[str, Any]],
) -> Outcome:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._build import load
    from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.spec import default_load
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import solve
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import FileSend
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
    from ansible_collections.buildfleet.buildx.plugins.module_utils._identifiers import new_ref

    _refuse_old(client)
    engine_store = choice.instance is None
    loads = request.load if request.load is not None else bool(request.image) or default_load(node)
    kind, attrs = _exporter(request, loads, engine_store, task.engine())
    ref = new_ref()
    made: list[load.EngineImport] = []
    services: list[Any] = [Health(), FileSync(requests.local_directories(request))]
    if kind in ("docker", "oci"):
        services.append(FileSend({0: load.sink(task.engine(), lambda: progress.local("importing to docker"), made)}))
    session = Session(dialer, new_ref(), _shared_key(task, request), services)
    message = control.SolveRequest(
        Ref=ref,
        Session=session.id,
        Frontend=requests.FRONTEND,
        FrontendAttrs=requests.frontend_attrs(request, engine_store=engine_store, attest=not engine_store),
    )
    if kind:
        message.Exporters.add(Type=kind, Attrs=attrs)
        # What a daemon up to 0.12 reads instead (wire §13.3).
        message.ExporterDeprecated = kind
        message.ExporterAttrsDeprecated.update(attrs)
    if choice.instance is not None:
        _record(task, choice.instance, node, ref, request)
    try:
        response = solve.run(client, session, message, progress, deadline)
    except BuildxError as exc:
        exc.details.setdefault("log_tail", progress.lines())
        exc.details.setdefault("steps", steps)
        raise
    key = "containerimage.digest" if kind == "oci" else "containerimage.config.digest"
    return Outcome(
        ref=ref,
        response=response,
        log_tail=progress.lines(),
        steps=steps,
        executed=progress.executed(),
        loads=loads,
        unexported=kind is None and not engine_store,
        wanted_id=response.get(key) or (response.get("containerimage.digest") if engine_store else None),
    )


def _exporter(
    request: requests.BuildRequest, loads: bool, engine_store: bool, engine: Engine
) -> tuple[Optional[str], dict[str, str]]:
    """The exporter that brings the result to where it should be (buildx §5.6), None: it stays in the cache."""
    if not loads:
        return None, {}
    attrs = {"name": request.image} if request.image else {}
    if engine_store:
        return "moby", attrs
    if images.has_containerd_store(engine.info()):
        return "oci", attrs
    if len(request.platforms) > 1:
        raise ConfigError(
            "docker exporter does not currently support exporting manifest lists: "
            "an engine without the containerd image store takes one platform",
            hint="Name one platform, or load: false.",
        )
    return "docker", attrs


def _shared_key(task: Task, request: requests.BuildRequest) -> str:
    """Unique per client and directory: under an equal key the daemon takes equal size and time for equal content."""
    with task.store.locked():
        client = task.store.client_id()
    return hashlib.sha256(f"{client}\0{request.source.context}".encode("utf-8", "surrogateescape")).hexdigest()


def _record(task: Task, instance: Instance, node: NodeEntry, ref: str, request: requests.BuildRequest) -> None:
    with task.store.locked():
        task.store.touch(instance.name)
        task.store.record_build(instance.name, node.name, ref, request.source.context, request.source.dockerfile)


def _refuse_old(client: Any) -> None:
    version = client.version(20.0)
    match = re.match(r"v?(\d+)\.(\d+)\.", version)
    if match and version != "v0.0.0+unknown" and (int(match[1]), int(match[2])) < OLDEST and int(match[2]):
        raise BuilderError(
            f"the builder runs BuildKit {version}; builds need v{OLDEST[0]}.{OLDEST[1]} or newer",
            hint="Give the builder a newer image.",
        )
