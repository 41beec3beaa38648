"""Old and new folders for the tests of publishing, and ways to end a publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llama_export.bundle.publish import publish


def make_old(target: Path) -> None:
    target.mkdir(parents=True)
    (target / "manifest.json").write_text("old")
    (target / "weights").write_text("old")


def write_new(target: Path, *, force: bool = False) -> None:
    with publish(target, force=force) as folder:
        (folder / "manifest.json").write_text("new")


def publish_with(target: Path, block: Callable[[Path], object], *, force: bool = False) -> None:
    with publish(target, force=force) as folder:
        block(folder)


def failing_with(error: BaseException) -> Callable[[Path], None]:
    def block(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "half").write_text("half")
        raise error

    return block


def is_old(target: Path) -> bool:
    found = {path.name: path.read_text() for path in target.iterdir()}
    return found == {"manifest.json": "old", "weights": "old"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(tmp_path: Path, *pids: int) -> None:
    for pid in pids:
        (tmp_path / f".out.partial-{pid}").mkdir()
        (tmp_path / f".out.partial-{pid}" / "half").write_text("half")
