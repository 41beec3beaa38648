"""Tries grammars of strangers in a process of its own, which is ended where one costs too much.

A grammar can take the library that follows it minutes and gigabytes before it says anything, and a
thread cannot be ended. It knows processes and grammars; it does not know requests or vocabularies.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import OrderedDict

from llama_export.errors import BackendUnavailableError, UsageError
from llama_export.generation.grammar import Grammar
from llama_export.generation.structured import require_llguidance

CPU_S = 1.0
"""Processor time that one grammar may take, in seconds."""
# For systems on which a process cannot be given a limit of processor time.
_WALL_S = 20.0
_MOST_KEPT = 256
_CHILD = "llama_export.serving.grammar_trial_child"
_HINT = "ask for fewer optional properties, fewer patterns that must hold at once, or less nesting"


class GrammarTrial:
    """Finds out whether grammars can be followed; for any number of threads.

    The process is started when the first grammar comes, and again after one that it did not
    survive. A grammar that was found good is not tried again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._good: OrderedDict[Grammar, None] = OrderedDict()

    def require_followable(self, grammar: Grammar) -> None:
        """Refuse a grammar that is wrong, or takes more than its time.

        Raises:
            BackendUnavailableError: llguidance is not installed, or the process cannot be started.
            UsageError: says which.
        """
        require_llguidance()  # what the process would say of it is no fault of the grammar
        with self._lock:
            if grammar in self._good:
                self._good.move_to_end(grammar)
                return
            told = self._ask(grammar)
            if told is None:
                what = f"the {grammar.kind.value} cannot be followed"
                message = f"{what}: to read it takes more than {CPU_S:g} s of processor time, "
                message += "or too much memory"
                raise UsageError(message, _HINT)
            if told["message"]:
                raise UsageError(told["message"], told["hint"])
            self._good[grammar] = None
            if len(self._good) > _MOST_KEPT:
                self._good.popitem(last=False)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._child is not None:
                _end(self._child)
                self._child = None

    def _ask(self, grammar: Grammar) -> dict[str, str] | None:
        """Return what is wrong with a grammar, nothing where "message" is ""; None: it takes long.

        Raises:
            BackendUnavailableError: the process cannot be started.
        """
        child = self._child
        if child is not None and child.poll() is not None:
            _end(child)  # by somebody else, since the last grammar
            child = None
        if child is None:
            self._child = child = _start()
        late = threading.Timer(_WALL_S, child.kill)
        late.start()
        try:
            answer = _exchange(child, json.dumps([grammar.kind.name, grammar.text]))
        finally:
            late.cancel()
        if answer:
            told: dict[str, str] = json.loads(answer)
            return told
        _end(child)
        self._child = None
        return None


def _start() -> subprocess.Popen[str]:
    """Start the process, and wait until it reads.

    Raises:
        BackendUnavailableError: it ends before that.
    """
    # Not by -m, which reads modules from the folder that the server was started in, whose may be
    # anybody's and have the names of Python's own.
    program = f"import sys; sys.path = [each for each in sys.path if each]; import {_CHILD} as it"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{program}; it.main()", str(CPU_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="ascii",
    )
    if child.stdout is None or not child.stdout.readline():
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_WALL_S)  # for its code
        _end(child)
        message = f"the process that tries grammars ended at once, with code {child.returncode}"
        raise BackendUnavailableError(message, f"see what python -m {_CHILD} 1 says")
    return child


def _exchange(child: subprocess.Popen[str], line: str) -> str:
    """Send a line, and return the one that comes back; "" where none does."""
    if child.stdin is None or child.stdout is None:
        return ""
    try:
        child.stdin.write(f"{line}\n")
        child.stdin.flush()
        return child.stdout.readline()
    except OSError:  # it has died
        return ""


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not yet sent has nowhere to go
                pipe.close()
    child.wait()
