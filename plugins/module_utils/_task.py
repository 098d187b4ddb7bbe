# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change at any time without notice.

"""What a task has in hand: the store, the docker contexts and the engines that its options and environment name."""

from __future__ import annotations

from typing import Optional

from ansible_collections.buildfleet.buildx.plugins.module_utils._builder.store import Store
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.client import Engine
from ansible_collections.buildfleet.buildx.plugins.module_utils._engine.contexts import Contexts, Target, from_options
from ansible_collections.buildfleet.buildx.plugins.module_utils._module import Parameters, surroundings


class Task:
    """Use it as a context manager: leaving it closes the engines."""

    def __init__(self, module: Parameters) -> None:
        around = surroundings(module)
        asked, base = from_options(module.params, around.cert_path)
        self.surroundings = around
        self.contexts = Contexts(around.docker_config, around.context, asked, base)
        self.store = Store(around.store)
        self._engines: dict[Target, Engine] = {}

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for engine in self._engines.values():
            engine.close()

    def engine(self, endpoint: Optional[str] = None) -> Engine:
        """The engine of a stored endpoint, or the task's own. Raises ConfigError for an endpoint that is none."""
        target = self.contexts.target() if endpoint is None else self.contexts.resolve(endpoint)
        if target not in self._engines:
            self._engines[target] = Engine(target)
        return self._engines[target]

    def current_builder(self) -> str:
        """Name of the builder that is used when none is named: the selected one, else the docker context's."""
        return self.store.current(self.contexts.key()) or self.contexts.current()
