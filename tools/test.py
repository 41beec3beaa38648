"""Set up `.venv` with the test dependencies and run the tests.

    python3 tools/test.py [--all] [pytest's options]

It runs the fast tier, which leaves out the tests marked `slow`; `--all` runs every test. Other
arguments are passed on to pytest, and a `-m` among them replaces the tier. Where no test is named,
up to four processes share the files, each with its part of the cores. It needs Python 3.10 or newer
with pip and venv, and nothing else. The exit status is pytest's.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence

import environment

ALL = "--all"
FAST_TIER = ("-m", "not slow")
# Each of them may hold some GB.
_MOST_PROCESSES = 4
_THREADS = "OMP_NUM_THREADS"


def pytest_arguments(arguments: Sequence[str], processes: int) -> list[str]:
    """Turn this command's arguments into pytest's.

    Args:
        arguments: arguments of this command.
        processes: processes that share the files, if no test is named.
    """
    passed_on = [argument for argument in arguments if argument != ALL]
    # Of several `-m`, pytest takes the last.
    tier = () if ALL in arguments else FAST_TIER
    # A file's tests stay together, for they share what is made for them.
    shared = () if passed_on or processes < 2 else ("-n", str(processes), "--dist", "loadfile")
    return ["-q", *tier, *shared, *passed_on]


def main() -> int:
    """Prepare the environment, then run pytest on the repository's tests."""
    ours = environment.default_environment()
    environment.prepare(ours, ["test", "model"])
    # pytest reads its settings and finds the tests from the repository's root.
    os.chdir(environment.ROOT)
    cores = os.cpu_count() or 1
    processes = min(cores, _MOST_PROCESSES)
    arguments = pytest_arguments(sys.argv[1:], processes)
    if "-n" not in arguments:
        return environment.run_program(ours, "python", ["-m", "pytest", *arguments])
    os.environ.setdefault(_THREADS, str(cores // processes))
    # Each process has a folder inside pytest's, and some tests hold how wide a path's line gets:
    # from a short one on they are no longer than in one process.
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "pytest", f"--basetemp={folder}/t", *arguments]
        return environment.run_program(ours, "python", command)


if __name__ == "__main__":
    sys.exit(environment.guarded(main))
