"""The command that was typed, as it may stand in a report: without tokens of the hub."""

from __future__ import annotations

import shlex
import sys

from llama_export.cli.tokens import without_tokens


def command_line() -> str:
    """Return this process's command line, quoted for a shell."""
    return without_tokens(shlex.join(["llama-export", *sys.argv[1:]]))
