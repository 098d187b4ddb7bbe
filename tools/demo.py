# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo`: look at this machine, set up what is missing, run playbooks/demo.yml, leave nothing behind.

An engine that runs and can run builders is used, and left as it was found; where there is none, the
lab's engine is started for the time of the demo. What was downloaded and compiled stays in the cache.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    # Nothing but the standard library is used, and no installed package called `tests` may come before ours.
    sys.path[:] = [str(CHECKOUT), *(path for path in sys.path[1:] if not path.endswith("-packages"))]
    from tools.demonstration.show import main

    sys.exit(main())
