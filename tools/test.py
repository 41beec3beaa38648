"""Set up `.venv` with the test dependencies and run the tests.

    python3 tools/test.py [--all] [pytest's options]

It runs the fast tier, which leaves out the tests marked `slow`; `--all` runs every test. Other
arguments are passed on to pytest, and a `-m` among them replaces the tier. It needs Python 3.10 or
newer with pip and venv, and nothing else. The exit status is pytest's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import environment

ALL = "--all"
FAST_TIER = ("-m", "not slow")


def pytest_arguments(arguments: Sequence[str]) -> list[str]:
    """Turn this command's arguments into pytest's."""
    passed_on = [argument for argument in arguments if argument != ALL]
    # Of several `-m`, pytest takes the last.
    tier = () if ALL in arguments else FAST_TIER
    return ["-q", *tier, *passed_on]


def main() -> int:
    """Prepare the environment, then run pytest on the repository's tests."""
    ours = environment.default_environment()
    environment.prepare(ours, ["test", "model"])
    # pytest reads its settings and finds the tests from the repository's root.
    os.chdir(environment.ROOT)
    command = ["-m", "pytest", *pytest_arguments(sys.argv[1:])]
    return environment.run_program(ours, "python", command)


if __name__ == "__main__":
    sys.exit(environment.guarded(main))
