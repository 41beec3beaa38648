"""tools/apps/swift_root.py: what a root is made by, when it is made again, how it is entered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import swift_root
from swift_root import MARKER, VARIABLE, command_inside, default_folder, find_lack, is_made, make

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="for Linux")


class Usage:
    """What is known of a disk."""

    def __init__(self, free: int) -> None:
        self.free = free


class Maker:
    """Stands for mmdebstrap: it fills the folder that it is given."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.made: list[Path] = []

    def __call__(self, command) -> int:
        folder = Path(command[-1])
        folder.mkdir()
        (folder / "number").write_text(str(len(self.made)))
        self.made.append(folder)
        return self.status


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "cache" / "swift-root"


def beside(root: Path) -> list[str]:
    return sorted(path.name for path in root.parent.iterdir())


def test_a_root_is_made_once_and_aside(root):
    maker = Maker()
    assert make(root, maker) == 0
    assert make(root, maker) == 0
    (aside,) = maker.made
    assert aside != root
    assert aside.parent == root.parent
    assert is_made(root)
    assert beside(root) == ["swift-root"]


def test_a_root_of_other_packages_is_made_anew(root, monkeypatch):
    maker = Maker()
    make(root, maker)
    monkeypatch.setattr(swift_root, "PACKAGES", ("swiftlang",))
    assert not is_made(root)
    assert make(root, maker) == 0
    assert (root / "number").read_text() == "1"
    assert beside(root) == ["swift-root"]


def test_what_could_not_be_made_leaves_nothing(root):
    assert make(root, Maker(status=25)) == 25
    assert not is_made(root)
    assert beside(root) == []


def test_what_is_there_stays_where_a_new_one_could_not_be_made(root, monkeypatch):
    make(root, Maker())
    monkeypatch.setattr(swift_root, "SUITE", "another")
    assert make(root, Maker(status=25)) == 25
    assert (root / "number").read_text() == "0"
    assert not is_made(root)


def test_what_a_killed_run_left_is_removed_and_that_of_a_running_one_stays(root):
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    ended, running = int(done.stdout), os.getppid()
    for process in (ended, running):
        (root.parent / f"swift-root.{process}").mkdir(parents=True)
    assert make(root, Maker()) == 0
    assert beside(root) == ["swift-root", f"swift-root.{running}"]


def test_half_a_root_is_none(root):
    root.mkdir(parents=True)
    (root / MARKER).write_text("mmdebstrap")
    assert not is_made(root)
    assert make(root, Maker()) == 0
    assert is_made(root)


def test_the_root_lies_outside_of_the_checkout_and_can_be_named(tmp_path):
    assert default_folder({VARIABLE: str(tmp_path)}) == tmp_path
    assert default_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/llama-export/swift-root")
    assert default_folder({}) == Path.home() / ".cache/llama-export/swift-root"


def can_enter() -> bool:
    return sys.platform == "linux" and find_lack(Path("/nowhere")) is None


@pytest.mark.skipif(not can_enter(), reason="entering a root wants root on Linux")
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 7", 7),
        ('[ "$A" = "b c" ]', 0),
        ('[ "$LLAMA_BUNDLE_SERVER" = 4711 ]', 0),
        ('[ -n "$OTHER" ]', 1),
        ("[ -f test_swift_root.py ]", 0),
    ],
)
def test_a_command_inside_has_its_own_status_place_and_environment(
    tmp_path, monkeypatch, script, status
):
    """This machine's own programs stand in for the root's."""
    monkeypatch.setenv("LLAMA_BUNDLE_SERVER", "4711")
    monkeypatch.setenv("OTHER", "1")
    for name in ("proc", "dev", "usr"):
        (tmp_path / name).mkdir()
    links = [path for path in Path("/").iterdir() if path.is_symlink() and path.name != "usr"]
    for path in links:
        (tmp_path / path.name).symlink_to(path.readlink())
    bind = f'mount --bind /usr "{tmp_path}/usr" && exec "$@"'
    inside = command_inside(tmp_path, Path(__file__).parent, ["sh", "-c", script], {"A": "b c"})
    command = ["unshare", "--mount", "sh", "-ec", bind, "sh", *inside]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert not list((tmp_path / "usr").iterdir())
    assert not list((tmp_path / "proc").iterdir())


@pytest.fixture
def able(monkeypatch) -> dict[str, str]:
    """A machine on which everything is there; remove programs from what is returned."""
    programs = {"unshare": "/bin/unshare", "mmdebstrap": "/bin/mmdebstrap"}
    monkeypatch.setattr(swift_root.shutil, "which", programs.get)
    monkeypatch.setattr(swift_root.os, "geteuid", lambda: 0)
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(swift_root.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(swift_root.shutil, "disk_usage", lambda _: Usage(3 * 2**30))
    return programs


def test_an_able_machine_lacks_nothing(able, root):
    assert find_lack(root) is None


def test_a_machine_that_lacks_something_says_what(able, root, monkeypatch):
    monkeypatch.setattr(swift_root.shutil, "disk_usage", lambda _: Usage(2**30))
    assert "has 1.0 GB left and Swift wants 2.0 GB" in find_lack(root)
    del able["mmdebstrap"]
    assert "apt install mmdebstrap" in find_lack(root)
    done = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(swift_root.subprocess, "run", lambda *_, **__: done)
    assert "allows no mount namespace" in find_lack(root)
    monkeypatch.setattr(swift_root.os, "geteuid", lambda: 1000)
    assert "only root may" in find_lack(root)
    del able["unshare"]
    assert "no program unshare" in find_lack(root)


def test_a_root_that_is_there_wants_neither_space_nor_mmdebstrap(able, root, monkeypatch):
    root.mkdir(parents=True)
    (root / MARKER).write_text(swift_root._recipe())
    monkeypatch.setattr(swift_root.shutil, "disk_usage", lambda _: Usage(0))
    del able["mmdebstrap"]
    assert find_lack(root) is None
