# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the checkout usable as a collection: the link by which Ansible finds it under its full name.

The link points from `.collections/ansible_collections/buildfleet/buildx` back at the checkout. It is
ignored by git, because a link to a directory above is what Ansible's sanity tests refuse.
"""

from __future__ import annotations

from pathlib import Path

_TARGET = Path("../../..")


def link_collection(checkout: Path) -> Path:
    link = checkout / ".collections" / "ansible_collections" / "buildfleet" / "buildx"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == _TARGET:
        return link
    link.unlink(missing_ok=True)
    link.symlink_to(_TARGET)
    return link


if __name__ == "__main__":
    link_collection(Path(__file__).resolve().parents[1])
