# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds and registries: the lab's plain one, and the private one with TLS and a password.

Modules that talk to a registry themselves run in the lab's network, where the registries are.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Bench

PLAIN = os.environ.get("BUILDX_LAB_REGISTRY", "")
PRIVATE = os.environ.get("BUILDX_LAB_PRIVATE_REGISTRY", "")
PASSWORD = os.environ.get("BUILDX_LAB_PRIVATE_PASSWORD", "")


def private_base(bench: Bench, context: Callable[..., Path]) -> str:
    """An image that only the private registry has."""
    name = f"{PRIVATE}/{bench.image()}"
    path = context("FROM scratch\nADD root.tar /\n", directory="base")
    bench.buildx("build", "--builder", bench.name, "--push", "-t", name, str(path))
    return name


def test_base_image_from_a_private_registry(there: Bench, context: Callable[..., Path]) -> None:
    base = private_base(there, context)
    path = context(f"FROM {base}\nRUN echo built\n", directory="over")

    built = there.build(path, name=there.image())

    assert "[2/2] RUN echo built" in built["executed"]
