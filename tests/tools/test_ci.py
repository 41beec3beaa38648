"""`.ci/run` with every program a stand-in: what it installs, exports and runs, in which order."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "run"
REAL_PROGRAMS = ("bash", "cat", "chmod", "dirname", "mkdir", "realpath", "rm")
LINTERS = ("ruff", "mypy", "lint-imports", "mkdocs")

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="a script for bash"),
    pytest.mark.skipif(not SCRIPT.is_file(), reason="the source distribution has no .ci"),
]


class Machine:
    """A repository beside nothing else, and a PATH with only what is put there."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        (self.repository / ".ci").mkdir(parents=True)
        shutil.copy(SCRIPT, self.repository / ".ci")
        self.wheels = folder / "shared" / "wheels"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.calls = folder / "calls"
        for name in REAL_PROGRAMS:
            (self.programs / name).symlink_to(shutil.which(name))
        linters = " ".join(f".venv/bin/{name}" for name in LINTERS)
        # The first call of tools/environment.py makes the environment, which has the linters.
        self.add(
            "python3",
            f'case "$1" in *environment.py) mkdir -p .venv/bin; for p in {linters};'
            " do printf '#!/bin/sh\\nexit 0\\n' > $p; chmod +x $p; done;; esac",
        )
        self.add("id", "echo 0")
        for name in (
            "node",
            "npm",
            "chromium",
            "javac",
            "g++",
            "mvn",
            "aapt2",
            "mmdebstrap",
            "apt-get",
        ):
            self.add(name)

    def add(self, name: str, script: str = "") -> None:
        record = f'echo "{name} $* [$PIP_FIND_LINKS]" >> "{self.calls}"'
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{'' if name == 'id' else record}\n{script}\n")
        program.chmod(0o755)

    def remove(self, name: str) -> None:
        (self.programs / name).unlink()

    def run(self, **variables: str) -> list[str]:
        """Return what was called, each call with the value of PIP_FIND_LINKS."""
        done = subprocess.run(
            [str(self.repository / ".ci" / "run")],
            env={"PATH": str(self.programs), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_it_sets_up_and_runs_every_test(machine):
    (machine.repository / ".venv").mkdir()
    (machine.repository / ".venv" / "left over").touch()
    assert machine.run() == [
        "python3 -c import ensurepip, venv []",
        "python3 tools/environment.py lint test model []",
        "python3 tools/clients.py []",
        "python3 tools/apps/check_android.py --require []",
        "python3 tools/apps/check_ios.py --require []",
        "python3 tools/test.py --all []",
    ]
    assert not (machine.repository / ".venv" / "left over").exists()


def test_a_failing_step_ends_it(machine):
    machine.add("python3", "exit 1")
    with pytest.raises(AssertionError):
        machine.run()
    assert "clients.py" not in machine.calls.read_text()


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("node", "nodejs"),
        ("g++", "g++"),
        ("npm", "npm"),
        ("chromium", "chromium"),
        ("javac", "openjdk-17-jdk-headless"),
        ("mvn", "maven"),
        ("aapt2", "aapt"),
        ("mmdebstrap", "mmdebstrap debian-archive-keyring"),
    ],
)
def test_only_what_is_lacking_is_installed(machine, name, package):
    machine.remove(name)
    assert [call for call in machine.run() if call.startswith("apt-get")] == [
        "apt-get update -q []",
        f"apt-get install -q -y --no-install-recommends {package} []",
    ]


def test_a_browser_that_is_named_is_enough(machine):
    machine.remove("chromium")
    assert not any("apt-get" in call for call in machine.run(CHROMIUM="/opt/a-browser"))


def test_without_root_nothing_is_installed(machine):
    machine.remove("npm")
    machine.add("id", "echo 1000")
    assert not any("apt-get" in call for call in machine.run())


def test_pip_looks_at_the_wheels_beside_the_repository(machine):
    machine.wheels.mkdir(parents=True)
    calls = machine.run()
    assert calls[-1] == f"python3 tools/test.py --all [{machine.wheels.resolve()}]"
    machine.calls.unlink()
    (*_, last) = machine.run(PIP_FIND_LINKS="/no/such/folder")
    assert last == f"python3 tools/test.py --all [/no/such/folder {machine.wheels.resolve()}]"


def test_pips_own_places_stay_where_there_are_no_wheels(machine):
    (*_, last) = machine.run(PIP_FIND_LINKS="/mine")
    assert last.endswith("[/mine]")
