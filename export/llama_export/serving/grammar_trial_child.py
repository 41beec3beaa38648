"""The process of a `GrammarTrial`: reads a grammar from each line, and says what is wrong with it.

It limits its own processor time and memory, and is ended by the system past either. It knows no
request and no vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys

from llama_export.errors import LlamaExportError
from llama_export.generation.grammar import Grammar, GrammarKind
from llama_export.generation.structured import check_grammar, rehearse

READY = "ready"
"""What is said first."""
# Address space of the process; llguidance ends it where it gets no more.
_MOST_BYTES = 4 * 2**30


def main() -> None:
    """Answer each line of the standard input with one of the standard output."""
    # Ctrl-C in the server's terminal is the server's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    cpu_s = float(sys.argv[1])
    check_grammar(Grammar.any_object())  # to load the library is no grammar's cost
    print(json.dumps(READY), flush=True)  # noqa: T201 - whoever started it waits for the line
    for line in sys.stdin:
        kind, text = json.loads(line)
        _limit_time(cpu_s)
        told = {"message": "", "hint": ""}
        try:
            rehearse(Grammar(GrammarKind[kind], text))
        except LlamaExportError as error:
            told = {"message": error.message, "hint": error.hint}
        _limit_time(0)
        print(json.dumps(told), flush=True)  # noqa: T201 - the answer is a line


def _limit_memory() -> None:
    # Windows has no such limits, and macOS not this one.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))


def _limit_time(cpu_s: float) -> None:
    """Let the system end the process after so much processor time from now; 0: not."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_s)


if __name__ == "__main__":
    main()
