"""How a run ends: each exception with a code and a message, a fault of ours with a log."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import click
import pytest

from llama_export.cli import boundary, faults, main, tokens
from llama_export.cli.app import app
from llama_export.cli.signals import InterruptedBySignal
from llama_export.errors import BundleError, OutOfMemoryError, UsageError
from llama_export.system.memory_shortage import shortage, shortage_named
from llama_quantize.errors import QuantizationError

pytestmark = pytest.mark.usefixtures("own_process_state")
ROOT = Path(__file__).parents[2]
BOOM = RuntimeError("boom")
TOKEN = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """Return the folder where logs go."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "llama-export"


@pytest.fixture
def ended(command, monkeypatch, state):
    """Return a function that runs `list` with an exception in its place."""

    def call(error: BaseException, *words: object) -> tuple[int, str]:
        def fail(**_: object) -> None:
            raise error

        monkeypatch.setattr(app.commands["list"], "callback", fail)
        code, out, err = command(*words, "list", columns=400)
        assert out == ""
        return code, err

    return call


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom"),
        KeyError("max_context"),
        AssertionError(),
        RecursionError("too deep"),
        SystemExit("a library said goodbye"),
        SystemExit(1),
        SystemExit(0),
        ImportError("no module named x"),
        click.ClickException("click's own code is 1"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        StopIteration(),
        GeneratorExit(),
    ],
    ids=repr,
)
def test_what_nobody_caught_is_a_fault_of_ours(ended, state, error):
    code, err = ended(error)
    assert code == 70
    assert f"fault of llama-export, not of what you gave it: {type(error).__name__}" in err
    assert "Traceback" not in err
    (log,) = state.iterdir()
    assert f"report it with the log in {log}; --verbose shows" in err
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert "in fail" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BundleError("it is bent", "straighten it"), 8, "what to do: straighten it"),
        (UsageError("no"), 2, "error: no"),
        (QuantizationError("too large"), 9, "too large"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (InterruptedBySignal(signal.SIGTERM), 143, "interrupted"),
        (BrokenPipeError(), 141, ""),
        (OSError(errno.EACCES, "Permission denied"), 10, "the system refused"),
        (OSError(errno.ENOSPC, "No space left on device"), 11, "No space left"),
        (MemoryError(), 18, "the system gave no more memory"),
    ],
)
def test_what_is_known_has_its_own_code_and_no_log(ended, state, error, code, said):
    found, err = ended(error)
    assert found == code
    assert said in err
    assert "Traceback" not in err
    assert not state.exists()


def test_an_interrupt_says_what_was_noted_on_it(ended):
    pressed = InterruptedBySignal(signal.SIGINT)
    assert "error: interrupted; nothing was left half written" in ended(pressed)[1]
    pressed.__notes__ = ["the new bundle is in place", "x/.onnx.old-1 is left"]
    code, err = ended(pressed)
    assert code == 130
    assert "error: interrupted; the new bundle is in place; x/.onnx.old-1 is left" in err


def test_verbose_shows_the_traceback_before_the_message(ended):
    code, err = ended(RuntimeError("boom \x1b[31m"), "--verbose")
    assert code == 70
    assert err.index("Traceback (most recent call last)") < err.index("error: this is a fault")
    assert "in fail" in err
    assert "\x1b" not in err
    assert "--verbose" not in err.split("what to do:")[1]


def test_a_message_is_short_and_clean(ended):
    _, err = ended(RuntimeError("\x1b]0;pwned\x07" + "x" * 1_000_000))
    assert len(err) < 2000
    assert "\x1b" not in err
    assert r"\x1b]0;pwned" in err


def test_a_token_is_in_no_message_and_in_no_log(ended, state, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "first-secret\nsecond-secret")
    text = f"Illegal header value b'Bearer typed-secret' {TOKEN} first-secret\\nsecond-secret"
    for words in (["--verbose"], []):
        _, err = ended(RuntimeError(text), *words)
        assert "[token]" in err
        assert "secret" not in err
        assert TOKEN not in err
    logs = list(state.iterdir())
    assert len(logs) == 2
    for log in logs:
        assert "secret" not in log.read_text(encoding="utf-8")
        assert TOKEN not in log.read_text(encoding="utf-8")
    words = ["list", "--token", "typed-one", "--token=typed-two"]
    assert tokens.without_tokens("typed-one typed-two typed", words) == "[token] [token] typed"
    assert tokens.without_tokens("hf_models/3.2-1B", words) == "hf_models/3.2-1B"
    _, err = ended(BundleError(f"no {TOKEN}", "use first-secret"))
    assert err.count("[token]") == 2


def test_a_line_break_in_a_name_begins_no_line_of_ours(ended):
    _, err = ended(BundleError("'x\nwhat to do: run this' does not exist", "give another"))
    assert [line for line in err.splitlines() if line.startswith("what to do:")] == [
        "what to do: give another"
    ]


def test_a_log_is_the_users_alone_and_few_are_kept(state):
    state.mkdir(parents=True)
    (state / "notes.txt").write_text("mine")
    written = []
    for number in range(14):
        try:
            raise RuntimeError(str(number))
        except RuntimeError as error:
            written.append(faults.write_log(error))
    assert stat.S_IMODE(written[-1].stat().st_mode) == 0o600
    kept = sorted(path.name for path in state.iterdir() if path.name != "notes.txt")
    assert kept == sorted(path.name for path in written)[-10:]
    assert (state / "notes.txt").read_text() == "mine"


def test_without_a_log_the_message_says_so(ended, state):
    state.parent.mkdir(parents=True)
    state.write_text("a file where the folder should be")
    code, err = ended(RuntimeError("boom"))
    assert code == 70
    assert "report it; no log could be written: " in err


def test_a_relative_state_folder_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert faults.logs_folder() == tmp_path / ".local" / "state" / "llama-export"


def test_a_message_that_cannot_be_shown_keeps_its_code(ended, monkeypatch):
    """Neither rich nor a plain line: stderr takes nothing."""

    class Full:
        encoding = "utf-8"

        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self) -> int:
            raise OSError(errno.EBADF, "no file")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        assert ended(BundleError("it is bent"))[0] == 8


def test_what_fails_while_a_fault_is_named_still_ends(ended, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(boundary, "ending_of", fail)
    assert ended(KeyError("x"))[0] == 70
    assert ended(MemoryError())[0] == 18


# Memory.

SHORT = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("can't start new thread"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
    RuntimeError("std::bad_alloc"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]
NOT_SHORT = [
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("shape mismatch"),
    KeyError("std::bad_alloc"),
    BundleError("a tensor is called 'out of memory'"),
    ImportError("x.so: cannot allocate memory in static TLS block"),
]


@pytest.mark.parametrize("error", SHORT, ids=repr)
def test_want_of_memory_is_named_in_every_librarys_words(ended, error):
    code, err = ended(error)
    assert code == 18
    assert "the system gave no more memory" in err
    assert "what to do: close other programs" in err


@pytest.mark.parametrize("error", NOT_SHORT, ids=repr)
def test_other_errors_are_no_want_of_memory(error):
    assert shortage(error) is None


def test_an_error_that_want_of_memory_was_turned_into_is_want_of_memory():
    found = BundleError("model.onnx cannot be loaded")
    found.__context__ = RuntimeError("std::bad_alloc")  # as `raise ... from None` leaves it
    assert isinstance(shortage(found), OutOfMemoryError)


def test_an_export_says_how_much_it_takes():
    said = r"gave no more memory.*takes about 3\.00 GB"
    with pytest.raises(OutOfMemoryError, match=said), shortage_named(3_000_000_000):
        raise MemoryError
    with pytest.raises(KeyError), shortage_named(1):
        raise KeyError
    assert isinstance(shortage(OutOfMemoryError("x")), OutOfMemoryError)


NO_MEMORY = """
import resource, sys
from llama_export.cli.{begun} import {function}
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + {more}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = ["llama-export", "list"]
sys.exit({function}())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space")
@pytest.mark.parametrize(
    ("begun", "function", "more"),
    [("main", "main", 0), ("boundary", "run_to_an_end", 0), ("boundary", "run_to_an_end", 2**21)],
)
def test_a_process_that_has_no_memory_ends_with_its_code(tmp_path, begun, function, more):
    """Without memory to import the boundary with, the verbs with, or what `list` takes."""
    code = NO_MEMORY.format(begun=begun, function=function, more=more)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 18, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space")
def test_a_limit_under_which_numpy_cannot_be_imported(tmp_path):
    """OpenBLAS would end the process with exit code 1, which is a failed verification."""
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY.format(begun="main", function="main", more=60_000_000)],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 18, done.stderr
    assert "the system gave no more memory: the process may have" in done.stderr


def environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    return {**os.environ, "PYTHONPATH": paths, "XDG_STATE_HOME": str(home), "OMP_NUM_THREADS": "1"}


# Before and after the run.


@pytest.mark.parametrize(
    ("error", "code"), [(ImportError("click"), 70), (MemoryError(), 18), (KeyboardInterrupt(), 130)]
)
def test_what_fails_before_the_boundary_has_a_code_too(monkeypatch, capsys, error, code):
    def fail() -> int:
        raise error

    monkeypatch.setattr(boundary, "run_to_an_end", fail)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == code
    err = capsys.readouterr().err
    said = "interrupted" if code == 130 else f"llama-export could not start: {type(error).__name__}"
    assert f"error: {said}" in err
    assert "Traceback" not in err


CHILD = """
import os, signal, sys, threading
{before}
from llama_export.cli.main import main
sys.argv = ["llama-export", "list"]
main()
"""
BREAKS = {
    # An import inside the program, of a module that is broken.
    "import": ("sys.modules['llama_export.cli.list'] = None", 70),
    # Ctrl-C in the middle of the imports: of the boundary, and of what is behind it.
    "early press": (
        "import builtins; real = builtins.__import__\n"
        "def pressing(name, *rest):\n"
        "    if name == 'llama_export.errors':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = pressing",
        130,
    ),
    "press": (
        "import builtins; real = builtins.__import__\n"
        "def pressing(name, *rest):\n"
        "    if name == 'llama_export.cli.target_options':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = pressing",
        130,
    ),
    # Ctrl-C when the run is over, while Python ends.
    "end": ("import atexit; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))", -2),
}


@pytest.mark.parametrize("name", BREAKS)
def test_no_moment_of_a_process_shows_a_traceback(tmp_path, name):
    before, code = BREAKS[name]
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(before=before)],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_thread_that_fails_is_a_note_with_a_log(command, monkeypatch, state):
    def fail() -> None:
        raise BOOM

    def run(**_: object) -> None:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    monkeypatch.setattr(app.commands["list"], "callback", run)
    code, _, err = command("list", columns=400)
    assert code == 0
    assert "note: the run goes on, but this is a fault of llama-export" in err
    assert re.search(r"RuntimeError: boom", err)
    assert "Traceback" not in err
    assert len(list(state.iterdir())) == 1


def test_what_cannot_be_raised_stays_off_the_screen(command, monkeypatch):
    class Bad:
        def __del__(self) -> None:
            raise BOOM

    def run(**_: object) -> None:
        bad = Bad()
        del bad

    monkeypatch.setattr(app.commands["list"], "callback", run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert command("list")[::2] == (0, "")


def test_nothing_is_imported_before_the_door_that_could_fail():
    code = (
        "import sys; before = set(sys.modules); import llama_export.cli.main\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(ROOT),
        check=True,
    )
    ours = ["llama_export", "llama_export.cli", "llama_export.cli.main", "llama_export.version"]
    assert set(ast.literal_eval(done.stdout)) - {"__future__"} == set(ours)
