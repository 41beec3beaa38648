"""Set up `.venv` with the test dependencies and run the tests.

    python3 tools/test.py [pytest's options]

Needs Python 3.10 or newer with pip and venv, and nothing else. The exit status is pytest's.
"""

from __future__ import annotations

import os
import sys

import environment


def main() -> int:
    """Prepare the environment, then run pytest on the repository's tests."""
    ours = environment.default_environment()
    environment.prepare(ours, ["test"])
    # pytest reads its settings and finds the tests from the repository's root.
    os.chdir(environment.ROOT)
    return environment.run_program(ours, "python", ["-m", "pytest", "-q", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(environment.guarded(main))
