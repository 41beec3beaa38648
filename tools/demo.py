"""Set up `.venv` and run the main job on the embedded demo model.

    python3 tools/demo.py [--prompt "Once upon a time"] [--output demo-out] [--verbose]

It runs three commands, as a user would type them: export the model to ONNX, verify the bundle, and
let it write. It needs Python 3.10 or newer with pip and venv, and nothing else; no model is
downloaded. The exit status is that of the first command that fails.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import environment


def commands(output: str, prompt: str) -> list[list[str]]:
    """Return the arguments of the three `llama-export` commands."""
    bundle = str(Path(output) / "onnx")
    return [
        ["--target", "onnx", "--model", "demo", "-o", output, "--force"],
        ["verify", bundle],
        ["generate", bundle, "--prompt", prompt],
    ]


def main() -> int:
    """Prepare the environment, then show and run each of the three commands."""
    parser = argparse.ArgumentParser(description="Export the demo model, verify it, let it write.")
    parser.add_argument("-o", "--output", default="demo-out", help="folder (default: demo-out)")
    parser.add_argument("--prompt", default="Once upon a time", help="how the story begins")
    parser.add_argument("--verbose", action="store_true", help="show the libraries' warnings too")
    options = parser.parse_args()
    ours = environment.default_environment()
    environment.prepare(ours, ["demo"])
    for arguments in commands(options.output, options.prompt):
        shown = [*arguments, "--verbose"] if options.verbose else arguments
        print(f"\n$ llama-export {shlex.join(shown)}", file=sys.stderr, flush=True)
        status = environment.run_program(ours, "llama-export", shown)
        if status != 0:
            return status
    print(
        f"\nDone. The bundle is {Path(options.output) / 'onnx'}. "
        "The command itself is .venv/bin/llama-export; --help lists what else it does.",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(environment.guarded(main))
