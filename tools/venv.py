# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print the path of one of the project's environments, made when missing: `tools/venv.py dev`.

With a command behind the name, run that command in the environment: `tools/venv.py lint ansible-lint`.
What there is, is described in tests/lab/venvs.py; what is in it, in tests/requirements/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_LAB = Path(__file__).resolve().parents[1] / "tests" / "lab" / "lab.py"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    name, *command = sys.argv[1:]
    done = subprocess.run([sys.executable, str(_LAB), "venv", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or not command:
        print(done.stdout, end="")
        return done.returncode
    programs = Path(done.stdout.strip()) / "bin"
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
