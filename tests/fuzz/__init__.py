# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random build contexts, and builds of them by the collection's client and by the real CLI.

Everything follows from one number, the seed. `tests/integration/test_context_fuzz.py` compares; `make fuzz`
does it thousands of times.
"""
