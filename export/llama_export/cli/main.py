"""The door of the program: what even the boundary behind it cannot name ends here.

Python ends with exit code 1 where an exception is left to it, and 1 is a verification that failed.
So nothing is left to it, from the first import on; this module imports nothing to begin with.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and end the process."""
    try:
        from llama_export.cli.boundary import run_to_an_end

        exit_code = run_to_an_end()
    except BaseException as error:  # noqa: BLE001 - an import that failed, or no memory for one
        exit_code = _bare_ending(error)
    sys.exit(exit_code)


def _bare_ending(error: BaseException) -> int:
    """Write in Python's own words how a run ended that did not begin; return the exit code."""
    codes = {"MemoryError": 18, "KeyboardInterrupt": 130, "InterruptedBySignal": 130}
    named = type(error).__name__
    # There may be no stderr, or no memory for a message. No import here either.
    said = f"llama-export could not start: {named}: {str(error)[:300]!a}"
    try:
        sys.stderr.write(f"error: {'interrupted' if codes.get(named) == 130 else said}\n")
    except Exception:  # noqa: BLE001 - the code is what is left to give
        return codes.get(named, 70)
    return codes.get(named, 70)
