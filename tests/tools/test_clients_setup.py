"""The set-up of the stock clients: what is installed when, and how a missing one is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import clients
import environment
from clients import Clients, MissingClientError
from environment import SetupError


class FakeRun:
    """Records commands; `venv` makes a folder for packages, and one command may fail."""

    def __init__(self, fail_on: str = ""):
        self.commands: list[list[str]] = []
        self.fail_on = fail_on

    def __call__(self, command, log, label):
        self.commands.append(list(command))
        log.write_text(f"\n$ {' '.join(command)}\nits last words\n")
        if "venv" in command:
            packages_of(Path(command[-1])).mkdir(parents=True)
        return 1 if self.fail_on and self.fail_on in command else 0


def packages_of(folder: Path) -> Path:
    return folder / "lib" / "python3.11" / "site-packages"


@pytest.fixture
def here(tmp_path) -> Clients:
    """A repository with an environment and the pinned project of transformers.js."""
    packages_of(tmp_path / ".venv").mkdir(parents=True)
    for file in Clients(environment.ROOT).js_project:
        copy = tmp_path / "tests" / "clients" / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return Clients(tmp_path)


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A folder that is all of PATH, with node and npm in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("node", "npm"):
        add_program(folder, name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CHROMIUM", raising=False)
    return folder


def add_program(folder: Path, name: str) -> Path:
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_npm_installs_what_the_lock_says_without_scripts_and_once(here, programs, capsys):
    run = FakeRun()
    assert clients.main(["transformers.js"], here, run) == 0
    (command,) = run.commands
    assert command[:2] == [str(programs / "npm"), "ci"]
    assert "--ignore-scripts" in command
    assert (here.js / "package-lock.json").is_file()
    assert clients.main(["transformers.js"], here, run) == 0
    assert len(run.commands) == 1
    assert "there already" in capsys.readouterr().out


def test_another_lock_file_installs_again(here, programs):
    run = FakeRun()
    clients.main(["transformers.js"], here, run)
    here.js_project[1].write_text("{}")
    clients.main(["transformers.js"], here, run)
    assert len(run.commands) == 2


def test_a_failed_npm_leaves_no_stamp_and_names_its_log(here, programs):
    with pytest.raises(SetupError, match=r"could not install transformers\.js; .*setup\.log"):
        clients.main(["transformers.js"], here, FakeRun(fail_on="ci"))
    assert not here.has_transformers_js()


@pytest.mark.parametrize("name", ["node", "npm"])
def test_without_node_or_npm_the_client_is_named(here, programs, name):
    (programs / name).unlink()
    run = FakeRun()
    with pytest.raises(
        MissingClientError, match=rf"client transformers\.js is missing: .* {name}\. Install Node"
    ):
        clients.main(["transformers.js"], here, run)
    assert run.commands == []


def test_chromium_is_found_by_its_names_or_by_the_variable(here, programs, capsys, monkeypatch):
    with pytest.raises(MissingClientError, match=r"client chromium is missing: .* CHROMIUM"):
        clients.main(["chromium"], here, FakeRun())
    found = add_program(programs, "google-chrome")
    assert clients.main(["chromium"], here, FakeRun()) == 0
    assert str(found) in capsys.readouterr().out
    monkeypatch.setenv("CHROMIUM", str(programs / "no-such-browser"))
    with pytest.raises(MissingClientError, match=r"CHROMIUM names .*no-such-browser"):
        clients.find_chromium()


def test_optimum_borrows_the_packages_of_the_environment_behind_its_own(here):
    run = FakeRun()
    clients.prepare_optimum(here, run)
    assert run.commands[1][-3:] == list(clients.OPTIMUM)
    (borrowed,) = packages_of(here.optimum.folder).glob("*.pth")
    assert borrowed.read_text().strip() == str(packages_of(here.root / ".venv"))
    stamp = here.optimum.folder / "installed.sha256"
    assert stamp.read_text() == clients.optimum_digest(
        environment.Environment(here.root, here.root / ".venv")
    )


def test_a_failed_installation_of_optimum_leaves_no_stamp(here):
    with pytest.raises(SetupError, match="its last words"):
        clients.prepare_optimum(here, FakeRun(fail_on="install"))
    assert not here.has_optimum()


def test_optimum_needs_the_environment_first(tmp_path):
    with pytest.raises(SetupError, match=r"tools/environment\.py test first"):
        clients.prepare_optimum(Clients(tmp_path), FakeRun())
    assert not Clients(tmp_path).has_optimum()


def test_an_unknown_client_is_a_usage_error(here, capsys):
    assert clients.main(["emacs"], here, FakeRun()) == 2
    assert "usage" in capsys.readouterr().err


def test_the_lock_pins_every_package_and_names_no_registry():
    project, lock = Clients(environment.ROOT).js_project
    pinned = json.loads(project.read_text())["dependencies"]
    packages = json.loads(lock.read_text())["packages"]
    assert packages[""]["dependencies"] == pinned
    assert all("integrity" in entry for name, entry in packages.items() if name)
    assert not any("resolved" in entry for entry in packages.values())
