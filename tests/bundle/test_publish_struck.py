"""Publishing in processes that are killed, interrupted, limited, or in each other's way."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from artifacts.folders import (
    failing_with,
    is_old,
    leftovers,
    make_old,
    names,
    publish_with,
    write_new,
)

import llama_quantize
from llama_export.bundle import publish as publish_module
from llama_export.errors import OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

# Opens a publish, says so, and waits to be ended.
WRITER = """
import sys, time
from pathlib import Path
from llama_export.bundle.publish import publish
with publish(Path(sys.argv[1]), force=True) as folder:
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
from llama_export.bundle.publish import publish
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with publish(Path(sys.argv[1]), force=True) as folder:
        (folder / "model.onnx.data").write_bytes(bytes(200_000))
except OutputError as error:
    print(error.message, "|", error.hint)
    sys.exit(error.exit_code)
"""

UNPRIVILEGED = """
import os, sys
from pathlib import Path
from llama_export.errors import OutputError
from llama_export.bundle.publish import publish
if os.geteuid() == 0:  # root may write everywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    with publish(Path(sys.argv[1]), force=False):
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
from llama_export.bundle.publish import publish
done = 0
while done < 8:
    try:
        with publish(Path(sys.argv[1]), force=True) as folder:
            for name in ("manifest.json", "a", "b"):
                (folder / name).write_text(f"{os.getpid()} {done}")
        done += 1
    except OutputError as error:
        assert "another export" in error.message, error.message
print(done)
"""

# Runs one publish again and again, and strikes at its first, second, third ... system call.
SWEEP = """
import errno, os, signal, sys
from pathlib import Path
from llama_export.errors import OutputError
from llama_export.bundle.publish import publish

mode, root = sys.argv[1], Path(sys.argv[2])
target = root / "out"
watched = {
    "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir",
    "fcntl.flock",
}
left = None
os.fsync = lambda handle: None  # slow, and not what is tested here

def strike(event, args):
    global left
    if left is None or event not in watched:
        return
    left -= 1
    if left == 0:
        left = None
        if mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt if mode == "interrupt" else OSError(errno.ENOSPC, "full")

def write(word):
    with publish(target, force=True) as folder:
        for name in ("manifest.json", "a", "deep/b", "deep/c"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(word)

def state():
    if not target.exists():
        return "absent"
    words = [path.read_text() for path in sorted(target.rglob("*")) if path.is_file()]
    return words[0] if len(words) == 4 and len(set(words)) == 1 else f"broken {words}"

def attempt(step):
    global left
    left = step
    try:
        write("new")
    except OutputError as error:
        return 3 if error.hint else 5
    except KeyboardInterrupt:
        return 4
    return 0 if left is None else 77

sys.addaudithook(strike)
seen = set()
for step in range(1, 500):
    write("old")
    assert sorted(os.listdir(root)) == ["out"], (step, os.listdir(root))
    child = os.fork()
    if child == 0:
        os._exit(attempt(step))
    status = os.waitpid(child, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else "killed"
    found = state()
    seen.add((code, found))
    allowed = {
        "kill": {("killed", "old"), ("killed", "new"), ("killed", "absent")},
        "interrupt": {(4, "old"), (4, "new")},
        "full": {(3, "old"), (0, "new")},
    }[mode]
    if code == 77:
        break
    assert (code, found) in allowed, (step, code, found)
    if found == "absent":
        try:
            with publish(target, force=False):
                raise SystemExit("the moved folder was not put back")
        except OutputError:
            assert state() == "old", (step, state())
print(step, sorted(map(str, seen)))
"""


def start(script: str, *args: object) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *map(str, args)]
    roots = (Path(publish_module.__file__).parents[2], Path(llama_quantize.__file__).parents[1])
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
    partial = tmp_path / f".out.partial-{writer.pid}"
    with pytest.raises(OutputError, match="another export is writing"):
        write_new(tmp_path / "out", force=True)
    assert names(partial) == ["deep", "manifest.json"]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert is_old(tmp_path / "out")
    assert names(partial) == ["deep", "manifest.json"]
    write_new(tmp_path / "out", force=True)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["manifest.json"]


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

    monkeypatch.setattr(publish_module.fcntl, "flock", unsupported)
    dead = start("pass")
    finish(dead)
    leftovers(tmp_path, dead.pid, os.getpid(), 2**70)
    write_new(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    leftovers(tmp_path, os.getppid())
    with pytest.raises(OutputError, match="another export is writing"):
        write_new(tmp_path / "out", force=True)
    assert names(tmp_path) == [f".out.partial-{os.getppid()}", "out"]


@pytest.mark.parametrize("mode", ["kill", "interrupt", "full"])
def test_struck_at_any_system_call_the_old_or_the_new_is_there(tmp_path, mode):
    code, text = finish(start(SWEEP, mode, tmp_path))
    assert code == 0, text
    steps = int(text.split()[0])
    assert steps > 30, text
    expected = {
        "kill": ["('killed', 'absent')", "('killed', 'new')", "('killed', 'old')"],
        "interrupt": ["(4, 'new')", "(4, 'old')"],
        "full": ["(0, 'new')", "(3, 'old')"],
    }[mode]
    for outcome in expected:
        assert outcome in text


def test_rivals_never_mix_their_files(tmp_path):
    rivals = [start(RIVAL, tmp_path / "out") for _ in range(3)]
    results = [finish(rival) for rival in rivals]
    assert [code for code, _ in results] == [0, 0, 0], results
    # Each one gets its turns in the end, however often it was told to wait.
    assert [int(text) for _, text in results] == [8, 8, 8]
    found = {path.read_text() for path in (tmp_path / "out").iterdir()}
    assert len(found) == 1
    assert names(tmp_path / "out") == ["a", "b", "manifest.json"]
    assert names(tmp_path) == ["out"]
