# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures: the modules of this collection side by side with the reference CLI.

`run.py` is the program. `works` are the rows of the table, `hands` what a row has to work with, `processes` measures
one process, `trees` makes files, `environment` finds or raises the lab and asks for versions, `report` writes the
table.
"""
