# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tests of the client against each BuildKit of the supported range: `make compat`.

With versions, those: `python3 tests/compat.py v0.12.5 v0.20.2`; words after `--` go to pytest. Each version is compiled
once, which takes a minute or more; BUILDX_COMPAT_VERSION tells tests/integration/conftest.py which one builders run.
The last lines are a table; a version that cannot be compiled here is in it as untested.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[0] = str(CHECKOUT)

from tests.lab.bring_up import serve_buildkit  # noqa: E402
from tests.lab.buildkit import BUILDKIT_VERSION  # noqa: E402
from tests.lab.errors import LabError  # noqa: E402
from tests.lab.instance import MAIN, Instance  # noqa: E402
from tests.run import CORES, Count, Tests  # noqa: E402

VERSIONS = ("v0.12.5", "v0.20.2", "v0.29.0", BUILDKIT_VERSION)
"""The oldest that is supported, two on the way, the newest."""
FILES = (
    "test_build_context.py",
    "test_build_errors.py",
    "test_build_faults.py",
    "test_build_log.py",
    "test_build_options.py",
    "test_build_results.py",
    "test_content.py",
    "test_ends.py",
    "test_load.py",
    "test_receive_file.py",
    "test_receive_tree.py",
    "test_registries.py",
    "test_registry_tokens.py",
    "test_remote.py",
    "test_session.py",
    "test_transport.py",
)
"""What a build does with a daemon. What an engine does with a builder's container is the same for each of them."""


def run_version(tests: Tests, version: str, arguments: list[str]) -> Count:
    """The suite against one version. Raises LabError when it cannot be made here."""
    environment = {
        **tests.lab_variables("dev"),
        "BUILDX_TEST_INTERPRETERS": str(tests.python("dev")),
        "BUILDX_COMPAT_VERSION": version,
        "BUILDX_LAB_BUILDKIT_VERSION": version,
    }
    with tests.progress.heartbeat():
        serve_buildkit(Instance(tests.places, MAIN, ()), version, tests.progress)
    files = [str(CHECKOUT / "tests" / "integration" / name) for name in FILES]
    return tests.pytest(f"compat-{version}", tests.python("dev"), "-n", CORES, *files, *arguments, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="for example v0.20.2")
    given, arguments = _split(sys.argv[1:])
    versions = parser.parse_args(given).versions or list(VERSIONS)
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="buildx-compat-") as scratch:
        tests = Tests(Path(scratch))
        for version in versions:
            print(f"=== BuildKit {version}", flush=True)
            began = time.monotonic()
            try:
                count = run_version(tests, version, arguments)
            except LabError as exc:
                rows.append(f"{version:10} untested: {exc}")
                continue
            failed = failed or bool(count.failed) or not count.passed
            seconds = time.monotonic() - began
            numbers = f"{count.passed:4} passed {count.failed:4} failed {count.skipped:4} skipped"
            rows.append(f"{version:10} {numbers} in {seconds:.0f} s")
            rows += [f"{'':10} skipped: {reason}" for reason in count.reasons]
    print("\n".join(rows))
    return 1 if failed or not any("passed" in row for row in rows) else 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Before and after `--`."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


if __name__ == "__main__":
    sys.exit(main())
