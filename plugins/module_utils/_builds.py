# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""One build (the body of buildx_build): choose the builder, boot it, solve, and judge by the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils import _connect as connect
from ansible_collections.buildfleet.buildx.plugins.module_utils._build import request as requests
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.exports import Load, planned
from ansible_collections.buildfleet.buildx.plugins.module_utils._build.outputs import resolve
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.instance import (
    DOCKER_CONTAINER,
    REMOTE,
    Instance,
    NodeEntry,
)
from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.names import container_name
from ansible_collections.buildfleet.buildx.plugins.module_utils._clock import Deadline
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine import containers, images
from ansible_collections.buildfleet.buildx.plugins.module_utils._errors import BuilderError, BuildxError, ConfigError
from ansible_collections.buildfleet.buildx.plugins.module_utils._task import Task

if TYPE_CHECKING:
    from ansible_collections.buildfleet.buildx.plugins.module_utils._build.caches import Caches
    from ansible_collections.buildfleet.buildx.plugins.module_utils._build.load import Loaded
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.auth import Source
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.dial import Dialer
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.service import Service
    from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.vertex import LocalVertex
    from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
    from ansible_collections.buildfleet.buildx.plugins.module_utils._registries import Registries

OLDEST = 12
"""BuildKit 0.N before this one is refused (DESIGN §6)."""
IGNORED_BEFORE = 34
"""Daemons before this one ignore something that could be asked of them (_build/features.py)."""
VERSION_SECONDS = 20.0


class Choice(NamedTuple):
    """The builder of a build. instance None: the BuildKit inside the engine of the docker context `name`."""

    name: str
    instance: Optional[Instance]


def ensure(task: Task, params: Mapping[str, Any], *, check_mode: bool, warn: Callable[[str], None]) -> dict[str, Any]:
    """Do a build, or in check mode say whether one would be done. The result of the module."""
    if params["build_timeout"] is not None and params["build_timeout"] <= 0:
        raise ConfigError("build_timeout must be more than 0")
    request = requests.from_params(params, task.surroundings)
    choice = choose(task, params["builder"])
    build = Build(task, choice, request, Deadline(params["build_timeout"]), warn)
    if check_mode or params["rebuild"] == "never":
        image = images.inspect(task.engine(), request.image) if request.image else None
        if check_mode or image is not None:
            return _result(changed=image is None or params["rebuild"] != "never", image=image)
    outcome = build.run()
    return _result(
        changed=outcome.changed or params["rebuild"] == "always",
        image=outcome.image,
        log_tail=outcome.log_tail,
        steps=outcome.steps,
        executed=outcome.executed,
        digest=outcome.digest,
        ref=outcome.ref,
        load=outcome.load and outcome.load.to_result(),
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
            from ansible_collections.buildfleet.buildx.plugins.module_utils import _fleet as fleet

            raise fleet.unknown_builder(task, wanted)
        if wanted != task.contexts.current():
            raise BuilderError(
                f"the builder {wanted} belongs to another docker context than the task's",
                hint=f"Name its engine with docker_host, or set DOCKER_CONTEXT={wanted} in the task's environment.",
            )
    elif instance.driver not in (DOCKER_CONTAINER, REMOTE):
        raise BuilderError(
            f"the builder {wanted} has the driver {instance.driver}, which this collection cannot build with yet"
        )
    return Choice(wanted, instance)


class Outcome(NamedTuple):
    """What a build came to. changed: the result is another one than before."""

    ref: str
    changed: bool
    image: Optional[Mapping[str, Any]]
    digest: Optional[str]
    log_tail: list[str]
    steps: list[dict[str, Any]]
    executed: list[str]
    load: Optional[Loaded]


class Build:
    """One build on its way: the node is booted, the request solved, the result followed to where it goes."""

    def __init__(
        self,
        task: Task,
        choice: Choice,
        request: requests.BuildRequest,
        deadline: Deadline,
        warn: Callable[[str], None],
    ) -> None:
        self.warn = warn
        self._task = task
        self._instance = choice.instance
        self._node = _node(choice.instance, request) if choice.instance else NodeEntry(choice.name, choice.name)
        self._request = request
        self._deadline = deadline
        self._steps: list[dict[str, Any]] = []
        self.inside = choice.instance is None
        self.platforms = len(request.platforms)
        self.protected: Sequence[str] = (request.source.context, request.source.directory)
        outputs = resolve(
            request.outputs,
            load=request.load,
            push=request.push,
            named=bool(request.images),
            default_load=self._node.default_load,
        )
        self._exports = planned(outputs, request.images, self)
        self._caches = self._planned_caches(warn)

    def _planned_caches(self, warn: Callable[[str], None]) -> Optional[Caches]:
        request = self._request
        if not (request.cache_from or request.cache_to):
            return None
        from ansible_collections.buildfleet.buildx.plugins.module_utils._build import caches

        if self.inside and not images.has_containerd_store(self.engine("").info()):
            caches.refuse_in_engine(request.cache_to)
        return caches.Caches(request.cache_from, request.cache_to, warn)

    def engine(self, context: str) -> Engine:
        """The engine of a docker context, of the task for ""."""
        return self._task.engine(context or None)

    def step(self, name: str) -> LocalVertex:
        """Show a step of this side."""
        return self._progress.local(name)

    @cached_property
    def registries(self) -> Registries:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._registries import Registries

        return Registries(self._task.surroundings, self._node.files)

    @cached_property
    def _progress(self) -> Progress:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.progress import Progress

        return Progress()

    def run(self) -> Outcome:
        """Raises BuildxError whose details hold the log's tail and the steps of the boot."""
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.client import Client

        try:
            for export in self._exports:
                export.look()
            dialer = self._dialer()
            try:
                with Client(dialer) as client:
                    version = client.version(VERSION_SECONDS)
                    _refuse_old(version)
                    return self._solve(client, dialer, version)
            finally:
                dialer.close()
                met = [self.registries] if "registries" in vars(self) else []
                for held in (*self._exports, *([self._caches] if self._caches else ()), *met):
                    held.close()
        except BuildxError as exc:
            exc.details = {
                **_known(exc.details),
                "log_tail": self._progress.lines(),
                "steps": exc.details.get("steps") or self._steps,
            }
            raise

    def _dialer(self) -> Dialer:
        """The way to the daemon, which is booted when it does not run."""
        if self._instance is None:
            from ansible_collections.buildfleet.buildx.plugins.module_utils._tunnels import EngineDialer

            return EngineDialer(self._task.engine())
        if self._instance.driver == REMOTE:
            from ansible_collections.buildfleet.buildx.plugins.module_utils import _remote

            return _remote.dialer(self._task, self._instance.name, self._node)
        engine, name = self._task.engine(self._node.endpoint), container_name(self._node.name)
        found = containers.inspect(engine, name)
        if found is None or found["State"]["Status"] != "running":
            self._boot(self._instance)
            found = containers.inspect(engine, name)
        if found is None:
            raise BuilderError(f"the container of the node {self._node.name} is gone")
        return connect.container_dialer(engine, found)

    def _boot(self, instance: Instance) -> None:
        """Bring the node up without looking for drift: a build repairs nothing that may serve others."""
        from ansible_collections.buildfleet.buildx.plugins.module_utils._reconcile import boot

        with self.step("[internal] booting buildkit") as vertex:
            self._steps = boot(self._task, instance, self._node, log=vertex)

    def _solve(self, client: Client, dialer: Dialer, version: str) -> Outcome:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit import solve
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.session import Session
        from ansible_collections.buildfleet.buildx.plugins.module_utils._identifiers import new_ref

        session = Session(dialer, new_ref(), self._shared_key(), self._services(client))
        message = self._message(new_ref(), session.id)
        minor = _minor(version)
        if minor is not None and minor < IGNORED_BEFORE:
            from ansible_collections.buildfleet.buildx.plugins.module_utils._build.features import refuse_ignored

            refuse_ignored(version, minor, message)
        if self._instance is not None:
            self._record(self._instance, message.Ref)
        response = solve.run(client, session, message, self._progress, self._deadline)
        found = [export.finish(response) for export in self._exports] or [None]
        if self._caches:
            self._caches.finish(response)
        if not (self._exports or self._request.outputs or self.inside):
            self.warn(requests.NO_OUTPUT_WARNING)
        executed = self._progress.executed()
        return Outcome(
            ref=message.Ref,
            changed=any(bool(executed) if changed is None else changed for changed in found),
            image=next((export.image for export in self._exports if isinstance(export, Load)), None),
            digest=response.get("containerimage.digest"),
            log_tail=self._progress.lines(),
            steps=self._steps,
            executed=executed,
            load=next((export.loaded for export in self._exports if isinstance(export, Load)), None),
        )

    def _services(self, client: Client) -> list[Service]:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.auth import Auth
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.filesync import FileSync
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.health import Health

        services: list[Service] = [
            Health(),
            FileSync(requests.local_directories(self._request)),
            Auth(self._authentication),
        ]
        made = {index: export.receiver(client) for index, export in enumerate(self._exports)}
        receivers = {index: receiver for index, receiver in made.items() if receiver is not None}
        if self._request.secrets:
            from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.secrets import Secrets

            services.append(Secrets(self._request.secrets))
        if receivers:
            from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.receive import FileSend

            services.append(FileSend(receivers))
        stores = {key: store for export in self._exports for key, store in export.stores().items()}
        stores.update(self._caches.stores() if self._caches else {})
        if stores:
            from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.content import Content

            services.append(Content(stores))
        return services

    def _authentication(self) -> Source:
        return self.registries.authentication()

    def _message(self, ref: str, session: str) -> Any:
        """The SolveRequest."""
        from ansible_collections.buildfleet.buildx.plugins.module_utils._buildkit.messages import control

        message = control.SolveRequest(
            Ref=ref,
            Session=session,
            Frontend=requests.FRONTEND,
            FrontendAttrs=requests.frontend_attrs(self._request, engine_store=self.inside, attest=not self.inside),
        )
        message.Cache.SetInParent()  # a daemon such as v0.20.2 dies of a request without it, whatever it holds
        if self._caches:
            message.FrontendAttrs.update(self._caches.attrs())
            for kind, attrs in self._caches.exports:
                message.Cache.Exports.add(Type=kind, Attrs=attrs)
        for export in self._exports:
            message.Exporters.add(Type=export.kind, Attrs=export.attrs)
        for export in self._exports[:1]:
            # What a daemon up to 0.12 reads instead (wire §13.3).
            message.ExporterDeprecated = export.kind
            message.ExporterAttrsDeprecated.update(export.attrs)
        return message

    def _shared_key(self) -> str:
        from ansible_collections.buildfleet.buildx.plugins.module_utils._build.directory_keys import shared_key

        with self._task.store.locked():
            client = self._task.store.client_id()
        return shared_key(client, self._request.source.context, self._request.source.directory)

    def _record(self, instance: Instance, ref: str) -> None:
        """Note the use of the builder, and the build, where the CLI looks for them."""
        store, source = self._task.store, self._request.source
        with store.locked():
            store.touch(instance.name)
            store.record_build(instance.name, self._node.name, ref, source.context, source.dockerfile)


def _known(details: Mapping[str, object]) -> dict[str, object]:
    """Facts of a failure as a task returns them: what is not known is left out, an excerpt is its lines."""
    known = {key: value for key, value in details.items() if value is not None and value != []}
    if isinstance(known.get("excerpt"), str):
        known["excerpt"] = str(known["excerpt"]).split("\n")
    return known


def _node(instance: Instance, request: requests.BuildRequest) -> NodeEntry:
    """The node that builds: the first whose fixed platforms have all that is asked for, else the first."""
    if not instance.nodes:
        raise BuilderError(f"the builder {instance.name} has no nodes")
    if len(instance.nodes) > 1 and request.platforms:
        from ansible_collections.buildfleet.buildx.plugins.module_utils import _platforms as platforms

        for node in instance.nodes:
            fixed = platforms.unique(platforms.from_json(item) for item in node.platforms or ())
            if {platforms.format(item) for item in fixed}.issuperset(request.platforms):
                return node
    return instance.nodes[0]


def _minor(version: str) -> Optional[int]:
    """N of BuildKit 0.N, None when it does not say or cannot be compared, as with an engine's own (wire §13.1)."""
    match = re.match(r"v?0\.([1-9]\d*)\.", version)
    return int(match[1]) if match else None


def _refuse_old(version: str) -> None:
    """BuildKit before OLDEST is refused."""
    if (_minor(version) or OLDEST) < OLDEST:
        raise BuilderError(
            f"the builder runs BuildKit {version}; builds need v0.{OLDEST} or newer",
            hint="Give the builder a newer image.",
        )
