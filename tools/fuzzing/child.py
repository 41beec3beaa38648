"""Run the command line's own `main` in a forked child, under limits, and return what became of it.

The child has the modules that the parent imported, so a case costs milliseconds. A child that dies
of a signal takes nothing with it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_LIMIT_S = 20
WALL_LIMIT_S = 240
MEMORY_LIMIT_BYTES = 6 * 2**30
FILE_LIMIT_BYTES = 2**30
_ESCAPED_CODE, _FAULT_CODE = 99, 70
_OURS = ("llama_export", "llama_quantize", "coreml_evaluator")


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Args:
        code: exit code; None where it died of a signal.
        signal: number of the signal; 0: none.
        cpu_s: processor time.
        peak_bytes: most memory that was resident.
        stdout: what it wrote.
        stderr: what it said.
        fault: place and class of an exception that nobody expected; empty: none.
        trace: its traceback.
    """

    code: int | None
    signal: int
    cpu_s: float
    peak_bytes: int
    stdout: bytes
    stderr: bytes
    fault: str = ""
    trace: str = ""


def run_main(
    arguments: Sequence[str],
    scratch: Path,
    *,
    stdin: Path | None = None,
    before: Callable[[], None] | None = None,
) -> Outcome:
    """Run `llama-export` with arguments.

    Args:
        arguments: command line without the program's name.
        scratch: existing folder for what the child writes besides its output.
        stdin: file that it reads as standard input; None: nothing.
        before: function that the child calls first.
    """

    def body() -> None:
        if before is not None:
            before()
        from llama_export.cli.app import main

        sys.argv = ["llama-export", *arguments]
        main()

    return run_forked(body, scratch, stdin=stdin)


def run_forked(body: Callable[[], None], scratch: Path, *, stdin: Path | None = None) -> Outcome:
    """Run a function in a child, with its output in files; `SystemExit` is its exit code."""
    out, err, note = (scratch / name for name in ("stdout", "stderr", "note"))
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _redirect(stdin, out, err)
        _limit()
        _finish(*_call(body), note)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    noted = json.loads(note.read_text()) if note.exists() else {"fault": "", "trace": ""}
    return Outcome(
        code if code >= 0 else None,
        max(0, -code),
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * 1024,
        out.read_bytes(),
        err.read_bytes(),
        noted["fault"],
        noted["trace"],
    )


def _redirect(stdin: Path | None, out: Path, err: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, opened in (
        (0, os.open(stdin or os.devnull, os.O_RDONLY)),
        (1, os.open(out, flags)),
        (2, os.open(err, flags)),
    ):
        os.dup2(opened, number)
    # Python's own objects may be a test's, which keep what is written.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the child
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    faulthandler.enable(2)


def _limit() -> None:
    size_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = size_bytes + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))
    signal.alarm(WALL_LIMIT_S)


def _call(body: Callable[[], None]) -> tuple[int, BaseException | None]:
    try:
        body()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        # The last boundary turns what nobody expected into an exit; it hangs on its context.
        return code, stopped.__context__ if code == _FAULT_CODE else None
    except BaseException as error:  # noqa: BLE001 - that none is left is what is tested
        return _ESCAPED_CODE, error
    return 0, None


def _finish(code: int, error: BaseException | None, note: Path) -> None:
    if error is not None:
        trace = "".join(traceback.format_exception(error))
        note.write_text(json.dumps({"fault": _place(error), "trace": trace[-6000:]}))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _place(error: BaseException) -> str:
    """Return the innermost place in our own code, and the class of the exception."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(f"/{name}/" in frame.filename for name in _OURS)]
    frame = (ours or list(frames) or [None])[-1]
    if frame is None:
        return type(error).__name__
    parts = Path(frame.filename).parts
    name = (
        "/".join(parts[max(parts.index(each) for each in _OURS if each in parts) :])
        if ours
        else frame.filename
    )
    return f"{name}:{frame.lineno} {type(error).__name__}"
