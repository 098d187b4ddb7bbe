# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab: a real engine, a real registry, a real BuildKit, and the interpreters to test with.

Only the standard library of Python 3.11 is used here, because all of this runs before anything is
installed. `lab.py` is the door; `bring_up.py` shows what is made in which order.
"""
