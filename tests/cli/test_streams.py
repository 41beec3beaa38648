"""Closed, full, endless and odd streams and surroundings: a message and a code each."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle

from llama_export.cli import streams
from llama_export.cli.app import app

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("own_process_state")]
__all__ = ["demo_bundle"]
ROOT = Path(__file__).resolve().parents[2]
CLOSED = {"<&-": "stdin", ">&-": "stdout", "2>&-": "stderr"}
GENERATE = "generate BUNDLE --threads 1 -n 2"


@pytest.fixture
def shell(demo_bundle, tmp_path):
    """Return a function that runs a command line of ours in a shell, and may close its streams."""

    def run(words: str, end: str = "", **surroundings: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
        program = f"{shlex.quote(sys.executable)} -m llama_export"
        line = f"{program} {words.replace('BUNDLE', shlex.quote(str(demo_bundle)))} {end}"
        environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**environment, "XDG_STATE_HOME": str(tmp_path / "state"), **surroundings},
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert not (tmp_path / "state").exists(), "that was a fault of ours"
        return done

    return run


@pytest.mark.parametrize(
    "closed", [each for size in (1, 2, 3) for each in itertools.combinations(CLOSED, size)]
)
def test_every_combination_of_closed_streams(shell, closed):
    done = shell(f"{GENERATE} --prompt hi", " ".join(closed))
    names = {CLOSED[each] for each in closed}
    assert done.returncode == (11 if "stdout" in names else 0)
    assert bool(done.stdout) == ("stdout" not in names)
    assert bool(done.stderr) == ("stderr" not in names)
    if names >= {"stdout"} and "stderr" not in names:
        assert "error: stdout is closed" in done.stderr
        assert "what to do: send it to a file, or to /dev/null" in done.stderr


@pytest.mark.parametrize(
    "words",
    [GENERATE, f"{GENERATE} -p -", "chat BUNDLE", "chat BUNDLE --file -", "chat BUNDLE -p hi"],
)
def test_a_text_is_missing_where_stdin_is_closed(shell, words):
    done = shell(words, "<&-")
    assert (done.returncode, done.stdout) == (15, "")
    assert "stdin is closed" in done.stderr or "there is no prompt" in done.stderr
    assert "what to do: give" in done.stderr


@pytest.mark.parametrize("verb", ["", *app.commands])
def test_a_closed_stdout_is_refused_before_anything_is_done(command, monkeypatch, verb):
    """No export of an hour ends with a table that cannot be written."""
    monkeypatch.setattr(sys, "stdout", None)
    words = [verb, "nowhere"] if verb else ["--target", "onnx", "--model", "demo"]
    code, _, err = command(*words)
    assert code == 11
    assert "stdout is closed" in err


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    """A library would write its messages into it."""
    code = (
        "import os, sys\n"
        "from llama_export.cli.streams import open_streams\n"
        "open_streams()\n"
        "print(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT))"
    )
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" "$2" <&- 2>&-', sys.executable, code, str(tmp_path / "x")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    assert int(done.stdout) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("words", "end", "code"),
    [
        ("--version", ">/dev/full", 11),
        ("list --json", ">/dev/full", 11),
        (f"{GENERATE} -p hi", ">/dev/full", 11),
        ("inspect nowhere", "2>/dev/full", 8),
        ("inspect nowhere", ">/dev/full 2>/dev/full", 8),
    ],
)
def test_a_full_device(shell, words, end, code):
    """Python itself would end with 120, because its buffers cannot be written at the end."""
    assert shell(words, end).returncode == code


@pytest.mark.parametrize("words", ["list", f"{GENERATE} -p hi", "inspect BUNDLE --json"])
def test_a_reader_that_has_gone(shell, words):
    assert shell(words, "| true; exit ${PIPESTATUS[0]}").returncode == 141


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("< /dev/zero", "stdin is longer than 16777216 bytes"),
        ("0> written", "stdin cannot be read: Bad file descriptor"),
    ],
)
def test_a_stdin_that_holds_no_text(shell, end, said):
    done = shell(f"{GENERATE} -p -", end)
    assert (done.returncode, done.stdout) == (15, "")
    assert said in done.stderr


def test_no_more_is_read_than_a_context_could_hold(command, demo_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MOST_TEXT_BYTES", 20)
    file = tmp_path / "text"
    file.write_bytes(b"x" * 21)
    for words in (["generate", demo_bundle, "-f", file], ["chat", demo_bundle, "-f", file]):
        code, _, err = command(*words, stdin=b"", columns=400)
        assert code == 15
        assert f"{file} is longer than 20 bytes" in err
    code, _, err = command("chat", demo_bundle, stdin=b"one\n" + b"x" * 21, columns=400)
    assert code == 15
    assert "line 2 of stdin is longer than 20 bytes" in err


@pytest.mark.parametrize("option", ["generate -p", "chat -p", "chat --system"])
def test_a_word_that_is_not_utf8_is_named(command, demo_bundle, option):
    verb, name = option.split()
    code, out, err = command(verb, demo_bundle, name, "a\udcffb", stdin=b"", columns=200)
    assert (code, out) == (15, "")
    assert "is not UTF-8 at position 1" in err


@pytest.mark.parametrize("columns", ["0", "1", "5", "-3", "²", "many", "99999999999", ""])
@pytest.mark.parametrize("words", [["list"], ["--help"], ["inspect", "nowhere"]])
def test_odd_widths(command, columns, words):
    code, out, err = command(*words, columns=columns)
    assert code == (8 if "nowhere" in words else 0)
    assert out or err


def test_a_terminal_without_a_size(demo_bundle):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    left = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_export", "inspect", str(demo_bundle), "--hashes"],
        stdout=slave,
        stderr=slave,
        env={**left, "PYTHONPATH": paths},
    )
    os.close(slave)
    shown = b""
    while piece := _read(master):
        shown += piece
    assert process.wait(timeout=60) == 0
    os.close(master)
    assert b"Traceback" not in shown
    assert b"What takes the space" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "xx_YY"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii:strict", "HOME": "", "TERM": "nonsense"},
    ],
    ids=lambda found: found.get("LC_ALL", "ascii"),
)
def test_odd_surroundings(shell, surroundings):
    done = shell("inspect BUNDLE", **surroundings)
    assert done.returncode == 0
    assert "What takes the space" in done.stdout


def test_a_current_folder_that_is_gone(shell):
    before = "cd $(mktemp -d gone.XXXX) && rmdir $PWD && "
    code = f"{before}{shlex.quote(sys.executable)} -m llama_export -t onnx -m demo --dry-run"
    done = shell("--version", f"; {code}")
    assert done.returncode == 10
    assert "error: the current folder does not exist any more" in done.stderr
