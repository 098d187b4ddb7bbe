# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make fuzz` tries every property with more examples than `make test`: BUILDX_FUZZ_EXAMPLES."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

EXAMPLES = int(os.environ.get("BUILDX_FUZZ_EXAMPLES") or 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if EXAMPLES else ():
        test: Any = getattr(item, "obj", None)
        if is_hypothesis_test(test):
            # Where hypothesis keeps what @settings said; it has no public way to say more afterwards.
            test = getattr(test, "__func__", test)
            own = getattr(test, "_hypothesis_internal_use_settings", settings.default)
            wanted = max(EXAMPLES, own.max_examples)
            test._hypothesis_internal_use_settings = settings(own, max_examples=wanted, deadline=None)
