"""Old and new folders for the tests of publishing, and ways to end a publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.sample_bundle import DRAFT

from llama_export.bundle.bundle import seal
from llama_export.bundle.publish import Publication, publish

FILES = ("deep/c", "deep/weights", "model.onnx", "tokenizer.model")


def write_folder(folder: Path, word: str) -> None:
    """Write a bundle whose files all say a word."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(word)
    seal(folder, DRAFT)


def word_of(folder: Path) -> str:
    """Return the word that all files of a folder say; what else it may be, when they do not."""
    if not folder.exists():
        return "absent"
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    found.pop("manifest.json", None)
    words = {path.read_text() for path in found.values()}
    return words.pop() if sorted(found) == list(FILES) and len(words) == 1 else f"broken {found}"


def folders_in(output: Path) -> list[str]:
    """Return the names of folders, and of hidden files; other files belong to the repository."""
    found = (p for p in output.iterdir() if p.is_dir() or p.name.startswith("."))
    return sorted(path.name for path in found)


@contextmanager
def publish_one(target: Path, *, force: bool = False, keep_extra: bool = False) -> Iterator[Path]:
    """Publish a single folder."""
    one = Publication(target.parent, (target.name,), force=force, keep_extra=keep_extra)
    with publish(one) as work:
        yield work / target.name


def make_old(target: Path) -> None:
    target.mkdir(parents=True)
    write_folder(target, "old")


def write_new(target: Path, *, force: bool = False, keep_extra: bool = False) -> None:
    with publish_one(target, force=force, keep_extra=keep_extra) as folder:
        write_folder(folder, "new")


def publish_with(target: Path, block: Callable[[Path], object], *, force: bool = False) -> None:
    with publish_one(target, force=force) as folder:
        block(folder)


def failing_with(error: BaseException) -> Callable[[Path], None]:
    def block(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "half").write_text("half")
        raise error

    return block


def is_old(target: Path) -> bool:
    return word_of(target) == "old"


def is_new(target: Path) -> bool:
    return word_of(target) == "new"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(tmp_path: Path, *pids: int) -> None:
    for pid in pids:
        (tmp_path / f".llama-export-{pid}" / "out").mkdir(parents=True)
        (tmp_path / f".llama-export-{pid}" / "out" / "half").write_text("half")
