"""Publishing in processes that are killed, interrupted, limited, or in each other's way."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from artifacts import folders
from artifacts.folders import (
    failing_with,
    is_new,
    is_old,
    leftovers,
    make_old,
    names,
    publish_with,
    word_of,
    write_new,
)

import llama_quantize
from llama_export.bundle import output_lock
from llama_export.errors import OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

# Opens a publish, says so, and waits to be ended.
WRITER = """
import sys, time
from pathlib import Path
from artifacts.folders import publish_one
with publish_one(Path(sys.argv[1]), force=True) as folder:
    (folder / "manifest.json").write_text("half")
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""

LIMITED = """
import resource, sys
from pathlib import Path
from llama_export.errors import OutputError
from artifacts.folders import publish_one
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with publish_one(Path(sys.argv[1]), force=True) as folder:
        (folder / "model.onnx.data").write_bytes(bytes(200_000))
except OutputError as error:
    print(error.message, "|", error.hint)
    sys.exit(error.exit_code)
"""

UNPRIVILEGED = """
import os, sys
from pathlib import Path
from llama_export.errors import OutputError
from artifacts.folders import publish_one
if os.geteuid() == 0:  # root may write everywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    with publish_one(Path(sys.argv[1])):
        print("entered")
except OutputError as error:
    print(error.message, "|", error.hint)
    sys.exit(error.exit_code)
"""

# Publishes over and over; every file of a publish holds the same number.
RIVAL = """
import os, sys
from pathlib import Path
from llama_export.errors import OutputError
from artifacts.folders import publish_one, write_folder
done = 0
while done < 8:
    try:
        with publish_one(Path(sys.argv[1]), force=True) as folder:
            write_folder(folder, f"{os.getpid()} {done}")
        done += 1
    except OutputError as error:
        assert "another export" in error.message, error.message
print(done)
"""

# Publishes two folders together again and again, and strikes at the first, second ... system call.
SWEEP = """
import errno, os, signal, sys
from pathlib import Path
from artifacts.folders import word_of, write_folder
from llama_export.bundle import swap
from llama_export.bundle.journal import unfinished
from llama_export.bundle.output_lock import LOCK_NAME
from llama_export.bundle.publish import Publication, publish
from llama_export.bundle.root_files import lay_out
from llama_export.errors import OutputError

mode, exchanges, root = sys.argv[1], sys.argv[2] == "exchange", Path(sys.argv[3])
places = root / "out" / "onnx", root / "out" / "weights"
watched = {
    "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir",
    "fcntl.flock",
}
left = None
os.fsync = lambda handle: None  # slow, and not what is tested here
if not exchanges:
    swap.exchange = lambda first, second: False

def strike(event, args):
    global left
    if left is None or event not in watched:
        return
    left -= 1
    if left == 0:
        left = None
        if mode == "full":
            raise OSError(errno.ENOSPC, "full")
        if mode == "break":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGKILL if mode == "kill" else signal.SIGINT)

def write(word):
    with publish(Publication(root / "out", ("onnx", "weights"), force=True)) as work:
        for name in ("onnx", "weights"):
            write_folder(work / name, word)
        lay_out(root / "out", work, {"README.md": word.encode(), f"of-{word}": b""})

def state():
    card = root / "out" / "README.md"
    return (*map(word_of, places), card.read_text() if card.exists() else "absent")

def root_of(word):
    return ["README.md", f"of-{word}", "onnx", "repository.json", "weights"]

def attempt(step):
    global left
    left = step
    try:
        write("new")
    except OutputError as error:
        return 3 if error.hint else 5
    except KeyboardInterrupt as error:
        return 6 if "in place" in str(getattr(error, "__notes__", "")) else 4
    return 0 if left is None else 77

sys.addaudithook(strike)
old, new = ("old",) * 3, ("new",) * 3
seen = set()
for step in range(1, 1500):
    write("old")
    assert sorted(os.listdir(root / "out")) == root_of("old"), (step, os.listdir(root / "out"))
    child = os.fork()
    if child == 0:
        os._exit(attempt(step))
    status = os.waitpid(child, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else "killed"
    if code == 77:
        break
    found, here = state(), sorted(os.listdir(root / "out"))
    seen.add((code, found))
    allowed = {
        "interrupt": {(4, old), (6, new)},
        "break": {(4, old), (4, new), (6, new)},
        "full": {(3, old), (0, new)},
    }
    if mode != "kill":
        assert (code, found) in allowed[mode], (step, code, found)
        # A lock that cannot be removed stays, and nobody holds it.
        lock = {LOCK_NAME} if mode == "full" else set()
        assert mode == "break" or {*here} - lock == {*root_of(found[0])}, (step, here)
    elif found not in (old, new):
        # Half a pass: both are whole, each of them says so, and the next one there ends it.
        assert set(found) <= {"old", "new", "absent"}, (step, found)
        assert not exchanges or "absent" not in found, (step, found)
        assert all("finishes it" in unfinished(place) for place in places), (step, here)
        try:
            with publish(Publication(root / "out", ("onnx", "weights"))):
                raise SystemExit("what was finished may not be replaced")
        except OutputError:
            assert state() == new, (step, state())
print(step, sorted(map(str, seen)))
"""


def start(script: str, *args: object) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *map(str, args)]
    files = (output_lock.__file__, llama_quantize.__file__, folders.__file__)
    roots = (Path(file).parents[depth] for file, depth in zip(files, (2, 1, 1), strict=True))
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of publishing to `tmp_path / "out"`, over an old folder."""
    make_old(tmp_path / "out")
    process = start(WRITER, tmp_path / "out")
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_read_only_parent_is_refused():
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        code, text = finish(start(UNPRIVILEGED, Path(folder) / "out"))
        assert (code, "Permission denied" in text) == (11, True), text
        assert names(Path(folder)) == []


def test_a_limit_on_file_size_keeps_the_old_files(tmp_path):
    make_old(tmp_path / "out")
    code, text = finish(start(LIMITED, tmp_path / "out"))
    assert (code, "File too large" in text) == (11, True), text
    assert "ulimit" in text
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_living_process_is_left_alone_and_a_killed_one_is_cleaned_up(tmp_path, writer):
    partial = tmp_path / f".llama-export-{writer.pid}" / "out"
    with pytest.raises(OutputError, match="another export is writing"):
        write_new(tmp_path / "out", force=True)
    assert names(partial) == ["deep", "manifest.json"]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert is_old(tmp_path / "out")
    assert names(partial) == ["deep", "manifest.json"]
    write_new(tmp_path / "out", force=True)
    assert names(tmp_path) == ["out"]
    assert is_new(tmp_path / "out")


def test_a_leftover_goes_even_when_the_next_publish_fails(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with pytest.raises(ValueError, match="bug"):
        publish_with(tmp_path / "out", failing_with(ValueError("bug")), force=True)
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_ctrl_c_leaves_nothing_behind(tmp_path, writer):
    writer.send_signal(signal.SIGINT)
    code, text = finish(writer)
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in text
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_without_locks_the_process_ids_decide(tmp_path, monkeypatch):
    def unsupported(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    dead = start("pass")
    finish(dead)
    leftovers(tmp_path, dead.pid, os.getpid(), 2**70)
    write_new(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    leftovers(tmp_path, os.getppid())
    with pytest.raises(OutputError, match="another export is writing"):
        write_new(tmp_path / "out", force=True)
    assert names(tmp_path) == [f".llama-export-{os.getppid()}", "out"]


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("kill", "exchange"),
        ("interrupt", "exchange"),
        ("full", "renames"),
        *(
            pytest.param(mode, how, marks=pytest.mark.slow)
            for mode, how in (
                ("kill", "renames"),
                ("interrupt", "renames"),
                ("break", "exchange"),
                ("break", "renames"),
                ("full", "exchange"),
            )
        ),
    ],
)
def test_struck_at_any_system_call_both_are_old_or_new(tmp_path, mode, how):
    code, text = finish(start(SWEEP, mode, how, tmp_path))
    assert code == 0, text
    assert int(text.split()[0]) > 60, text
    old, new = ("old",) * 3, ("new",) * 3
    expected = {
        "kill": [("killed", old), ("killed", new), ("killed", ("new", "new", "old"))],
        "interrupt": [(4, old), (6, new)],
        "break": [(4, old), (6, new)],
        "full": [(3, old), (0, new)],
    }[mode]
    for outcome in expected:
        assert str(outcome) in text


def test_rivals_never_mix_their_files(tmp_path):
    rivals = [start(RIVAL, tmp_path / "out") for _ in range(3)]
    results = [finish(rival) for rival in rivals]
    assert [code for code, _ in results] == [0, 0, 0], results
    # Each one gets its turns in the end, however often it was told to wait.
    assert [int(text) for _, text in results] == [8, 8, 8]
    assert "broken" not in word_of(tmp_path / "out")
    assert names(tmp_path) == ["out"]
