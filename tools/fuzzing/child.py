"""Run the command line's own `main` in a forked child, under limits, and return what became of it.

The child has the modules that the parent imported, and may run several command lines one after
another, so a case costs milliseconds. A child that dies of a signal takes nothing with it but the
runs that were still to come.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

CPU_LIMIT_S = 20
WALL_LIMIT_S = 240
MEMORY_LIMIT_BYTES = 6 * 2**30
FILE_LIMIT_BYTES = 2**30
_ESCAPED_CODE, _FAULT_CODE = 99, 70
_MOST_TRACE = 6000
_OURS = ("llama_export", "llama_quantize", "coreml_evaluator")


@dataclass(frozen=True)
class Run:
    """One command line.

    Args:
        arguments: words after the program's name.
        notes: path before the endings of the files that the run writes its output to.
        stdin: file that it reads as standard input; None: nothing.
        inside: function that is called in place of the command line; None: the command line.
    """

    arguments: tuple[str, ...]
    notes: Path
    stdin: Path | None = None
    inside: Callable[[], None] | None = None

    def file(self, ending: str) -> Path:
        """Return one of the files that the run writes."""
        return self.notes.with_name(f"{self.notes.name}.{ending}")

    def output(self) -> tuple[bytes, bytes]:
        """Return what it wrote to standard output, and what to standard error."""
        return self.file("stdout").read_bytes(), self.file("stderr").read_bytes()


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Args:
        code: exit code; None where it died of a signal.
        signal: number of the signal; 0: none.
        cpu_s: processor time.
        stdout: what it wrote.
        stderr: what it said.
        fault: place and class of an exception that nobody expected; empty: none.
        trace: its traceback.
    """

    code: int | None
    signal: int
    cpu_s: float
    stdout: bytes
    stderr: bytes
    fault: str = ""
    trace: str = ""


def run_forked(runs: Sequence[Run], before: Callable[[], None] | None = None) -> list[Outcome]:
    """Run command lines in one child, up to the one that it dies of.

    Args:
        runs: what is run, in this order.
        before: function that the child calls first.

    Returns:
        An outcome for each run that began; the last one may have died.
    """
    for each in runs:
        each.file("note").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _limit_memory()
        if before is not None:
            before()
        for each in runs:
            _do(each)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    found = [_noted(each) for each in runs if each.file("note").exists()]
    code = os.waitstatus_to_exitcode(status)
    if code:
        last = runs[len(found)]
        stdout, stderr = last.output()
        spent = used.ru_utime + used.ru_stime - sum(each.cpu_s for each in found)
        found.append(Outcome(None if code < 0 else code, max(0, -code), spent, stdout, stderr))
    return found


def _noted(run: Run) -> Outcome:
    note = json.loads(run.file("note").read_text(encoding="utf-8"))
    return Outcome(note["code"], 0, note["cpu_s"], *run.output(), note["fault"], note["trace"])


def _do(run: Run) -> None:
    """Run one command line in this process, and write down what became of it."""
    begun_s = time.process_time()
    _redirect(run)
    most = int(begun_s) + CPU_LIMIT_S
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(WALL_LIMIT_S)
    code, error = _call(run)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    note = {"code": code, "cpu_s": time.process_time() - begun_s, "fault": "", "trace": ""}
    if error is not None:
        trace = "".join(traceback.format_exception(error))[-_MOST_TRACE:]
        note |= {"fault": _place(error), "trace": trace}
    run.file("note").write_text(json.dumps(note), encoding="utf-8")


def _redirect(run: Run) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, opened in (
        (0, os.open(run.stdin or os.devnull, os.O_RDONLY)),
        (1, os.open(run.file("stdout"), flags)),
        (2, os.open(run.file("stderr"), flags)),
    ):
        os.dup2(opened, number)
        os.close(opened)
    # Python's own objects may be those of a test, which keep what is written to them.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the standard
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - streams
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - stay open
    # A copy, because the product silences its standard error while a runtime loads a file.
    faulthandler.enable(os.dup(2))


def _limit_memory() -> None:
    size_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = size_bytes + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))


def _call(run: Run) -> tuple[int, BaseException | None]:
    """Run what is to be run; return its exit code, and the exception that nobody expected."""
    met: list[BaseException] = []
    try:
        with _watched(met):
            if run.inside is not None:
                run.inside()
                return 0, None
            from llama_export.cli.main import main

            sys.argv = ["llama-export", *run.arguments]
            main()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        return code, met[-1] if met and code == _FAULT_CODE else None
    except BaseException as error:  # noqa: BLE001 - that none is left is what is tested
        return _ESCAPED_CODE, error
    return 0, None


def _watched(met: list[BaseException]) -> AbstractContextManager[object]:
    """Note what the last boundary of the command line meets; it only says that it is our fault."""
    from llama_export.cli import boundary, endings

    name_ending = endings.ending_of

    def ending_of(error: BaseException, program: str, *, verbose: bool) -> object:
        met.append(error)
        return name_ending(error, program, verbose=verbose)

    return mock.patch.object(boundary, "ending_of", ending_of)


def _place(error: BaseException) -> str:
    """Return the innermost place in our own code, and the class of the exception."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(f"/{name}/" in frame.filename for name in _OURS)]
    if not ours:
        return type(error).__name__
    parts = Path(ours[-1].filename).parts
    begins = max(parts.index(each) for each in _OURS if each in parts)
    return f"{'/'.join(parts[begins:])}:{ours[-1].lineno} {type(error).__name__}"
