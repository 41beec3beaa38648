"""The files at an output's root: put in place with the bundles, and never over a person's."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from artifacts.folders import make_old, names, word_of, write_folder

from llama_export.bundle import journal, swap
from llama_export.bundle.publish import Publication, publish
from llama_export.bundle.root_files import RECORD_NAME, lay_out, read_record
from llama_export.bundle.swap import exchange
from llama_export.errors import OutputError

OURS = {"README.md": b"card", "config.json": b"{}", "LICENSE": b"free"}


def put(output: Path, contents: dict[str, bytes]) -> tuple[str, ...]:
    with publish(Publication(output, ("onnx",), force=True)) as work:
        write_folder(work / "onnx", "new")
        return lay_out(output, work, contents)


def put_and_stop(output: Path) -> None:
    with publish(Publication(output, ("onnx",), force=True)) as work:
        lay_out(output, work, {"README.md": b"other"})
        raise KeyboardInterrupt


def strike(
    output: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, renames: int = 0
) -> None:
    """Export, and be killed in the pass after so many renames."""
    left = renames
    exchanges = swap.exchange is exchange

    def killed(real):
        def call(source, target):
            nonlocal left
            if source.name.startswith(journal.JOURNAL_NAME):
                return real(source, target)
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(source, target)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed(Path.rename))
        if exchanges:
            patched.setattr(swap, "exchange", killed(swap.exchange))
        patched.setattr(journal, "_undo", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            put(output, contents)


def save_by_rename(path: Path, content: bytes) -> None:
    """Write a file as most editors do."""
    draft = path.with_name("draft")
    draft.write_bytes(content)
    draft.rename(path)


def unforced(output: Path) -> Publication:
    """Return what only finishes an interrupted export into the output."""
    return Publication(output, ("onnx",))


def standing(output: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    files.pop(RECORD_NAME, None)
    return files


def test_they_appear_with_the_bundle(tmp_path):
    output = tmp_path / "out"
    with publish(Publication(output, ("onnx",))) as work:
        write_folder(work / "onnx", "new")
        assert lay_out(output, work, OURS) == ()
        assert standing(output) == {".llama-export.lock": b""}
    assert standing(output) == OURS
    assert names(output) == ["LICENSE", "README.md", "config.json", "onnx", "repository.json"]
    assert set(read_record(output)) == set(OURS)


def test_a_failed_export_leaves_the_old_ones(tmp_path):
    output = tmp_path / "out"
    put(output, OURS)
    before = standing(output)
    with pytest.raises(KeyboardInterrupt):
        put_and_stop(output)
    assert standing(output) == before


def test_the_next_export_replaces_ours_and_removes_what_is_made_no_more(tmp_path):
    output = tmp_path / "out"
    put(output, OURS)
    assert put(output, {"README.md": b"other", "config.json": b"{}"}) == ()
    assert standing(output) == {"README.md": b"other", "config.json": b"{}"}


@pytest.mark.parametrize("name", ["README.md", "LICENSE"])
@pytest.mark.parametrize("written_first", [True, False])
def test_a_persons_card_or_licence_stays_and_is_named(tmp_path, name, written_first):
    output = tmp_path / "out"
    output.mkdir()
    if written_first:
        put(output, OURS)
    (output / name).write_bytes(b"in my own words")
    for _ in range(2):
        (note,) = put(output, OURS)
        assert f"{output / name} stays as it is" in note
        assert standing(output) == {**OURS, name: b"in my own words"}
    put(output, {"config.json": b"{}"})
    assert standing(output) == {"config.json": b"{}", name: b"in my own words"}


def test_among_a_persons_own_files_nothing_is_put(tmp_path):
    """A checkpoint's folder, say, which another tokenizer or config would make another model."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.json").write_bytes(b'{"mine": true}')
    (note,) = put(output, OURS)
    assert str(output / "config.json") in note
    assert "not written by llama-export" in note
    assert standing(output) == {"config.json": b'{"mine": true}'}
    assert names(output) == ["config.json", "onnx"]


def test_a_link_or_a_folder_in_a_files_place_is_a_persons(tmp_path):
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    output.mkdir()
    elsewhere.write_bytes(b"precious")
    (output / "README.md").symlink_to(elsewhere)
    (output / "LICENSE").mkdir()
    assert len(put(output, OURS)) == 2
    assert elsewhere.read_bytes() == b"precious"
    assert (output / "README.md").is_symlink()
    assert (output / "LICENSE").is_dir()


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"format_version": 2, "files": {}}', '{"format_version": 1, "files": 3}']
)
def test_a_damaged_record_makes_nothing_ours(tmp_path, damage):
    output = tmp_path / "out"
    put(output, OURS)
    (output / RECORD_NAME).write_text(damage)
    (note,) = put(output, {**OURS, "config.json": b"[]"})
    assert RECORD_NAME in note
    assert standing(output) == OURS


def test_a_record_cannot_name_a_file_elsewhere(tmp_path):
    output = tmp_path / "out"
    put(output, OURS)
    raw = json.loads((output / RECORD_NAME).read_text())
    (tmp_path / "precious").write_bytes(b"card")
    raw["files"]["../precious"] = raw["files"]["README.md"]
    (output / RECORD_NAME).write_text(json.dumps(raw))
    assert read_record(output) is None
    put(output, {"config.json": b"{}"})
    assert (tmp_path / "precious").read_bytes() == b"card"


def test_the_same_files_have_the_same_record(tmp_path):
    put(tmp_path / "one", OURS)
    put(tmp_path / "two", dict(reversed(OURS.items())))
    one, two = (tmp_path / name / RECORD_NAME for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


NEXT = {"README.md": b"next", "config.json": b"[]"}


@pytest.mark.parametrize("renames", range(5))
def test_what_an_editor_saved_after_an_interruption_stays(tmp_path, monkeypatch, caplog, renames):
    """Another file at the place blocks no later export, whatever had been moved by then."""
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    output = tmp_path / "out"
    put(output, OURS)
    strike(output, NEXT, monkeypatch, renames)
    save_by_rename(output / "README.md", b"in my own words")
    (note,) = put(output, NEXT)
    assert f"{output / 'README.md'} stays as it is" in note
    assert f"changed since, so it stays as it is: {output / 'README.md'}" in caplog.text
    assert standing(output) == {**NEXT, "README.md": b"in my own words"}
    assert names(output) == ["README.md", "config.json", "onnx", "repository.json"]


@pytest.mark.parametrize("renames", range(13))
def test_so_it_does_where_the_system_cannot_exchange(tmp_path, monkeypatch, renames):
    """Whatever was set aside does not stay beside it."""
    monkeypatch.setattr(swap, "exchange", lambda *_: False)
    output = tmp_path / "out"
    put(output, OURS)
    strike(output, NEXT, monkeypatch, renames)
    save_by_rename(output / "README.md", b"in my own words")
    put(output, NEXT)
    assert standing(output) == {**NEXT, "README.md": b"in my own words"}
    assert names(output) == ["README.md", "config.json", "onnx", "repository.json"]


def test_a_folder_in_a_bundles_place_still_blocks(tmp_path, monkeypatch):
    output = tmp_path / "out"
    put(output, OURS)
    strike(output, NEXT, monkeypatch)
    (output / "onnx").rename(tmp_path / "mine")
    make_old(output / "onnx")
    with pytest.raises(OutputError, match="neither finished nor undone"):
        put(output, NEXT)
    assert word_of(output / "onnx") == "old"


@pytest.mark.parametrize("renames", range(5))
@pytest.mark.parametrize("name", ["README.md", "config.json", "LICENSE"])
def test_what_was_saved_in_place_after_an_interruption_stays(
    tmp_path, monkeypatch, caplog, name, renames
):
    """An editor may keep the inode; `LICENSE` was to be removed."""
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    output = tmp_path / "out"
    put(output, OURS)
    strike(output, NEXT, monkeypatch, renames)
    before = (output / name).read_bytes()
    (output / name).write_bytes(b"in my own words")
    with pytest.raises(OutputError, match="already exists"), publish(unforced(output)):
        pass
    assert standing(output) == {**NEXT, name: b"in my own words"}
    if before == OURS[name]:
        assert f"changed since, so it stays as it is: {output / name}" in caplog.text
    assert names(output) == sorted({*NEXT, name, "onnx", "repository.json"})


def test_a_record_that_was_damaged_after_an_interruption_lets_nothing_go(tmp_path, monkeypatch):
    output = tmp_path / "out"
    put(output, OURS)
    strike(output, NEXT, monkeypatch)
    (output / RECORD_NAME).write_bytes(b"[]")
    with pytest.raises(OutputError, match="already exists"), publish(unforced(output)):
        pass
    assert standing(output) == OURS
    assert (output / RECORD_NAME).read_bytes() == b"[]"


@pytest.mark.parametrize("save", [Path.write_bytes, save_by_rename])
@pytest.mark.parametrize("written_first", [True, False])
def test_a_card_written_while_bundles_are_stays(tmp_path, caplog, monkeypatch, written_first, save):
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    output = tmp_path / "out"
    if written_first:
        put(output, OURS)
    with publish(Publication(output, ("onnx",), force=True)) as work:
        write_folder(work / "onnx", "new")
        assert lay_out(output, work, NEXT) == ()
        save(output / "README.md", b"in my own words")
    assert standing(output) == {**NEXT, "README.md": b"in my own words"}
    assert f"{output / 'README.md'} stays as it is" in caplog.text
    assert set(read_record(output)) == {"config.json"}


@pytest.mark.parametrize("name", ["config.json", RECORD_NAME])
def test_among_files_written_while_bundles_are_nothing_is_put(tmp_path, caplog, monkeypatch, name):
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    output = tmp_path / "out"
    with publish(Publication(output, ("onnx",))) as work:
        write_folder(work / "onnx", "new")
        assert lay_out(output, work, NEXT) == ()
        (output / name).write_bytes(b"mine")
    assert (output / name).read_bytes() == b"mine"
    assert names(output) == sorted([name, "onnx"])
    assert "no files for the hub are put" in caplog.text


@pytest.mark.parametrize("late", [True, False])
def test_no_other_models_files_stay_among_a_persons(tmp_path, late):
    """A client at the root must not load one model with the tokenizer of another."""
    output = tmp_path / "out"
    put(output, {**OURS, "tokenizer.json": b"A", "tokenizer.model": b"A"})
    notes = ()
    if not late:
        (output / "config.json").write_bytes(b"mine")
    with publish(Publication(output, ("onnx",), force=True)) as work:
        write_folder(work / "onnx", "new")
        notes = lay_out(output, work, {**NEXT, "LICENSE": b"free", "tokenizer.json": b"B"})
        (output / "config.json").write_bytes(b"mine")
    # The licence is the same.
    assert standing(output) == {"config.json": b"mine", "LICENSE": b"free"}
    assert set(read_record(output)) == {"LICENSE"}
    assert late or "README.md, tokenizer.json, tokenizer.model" in notes[0]


def test_where_none_of_ours_is_left_the_record_goes_too(tmp_path):
    output = tmp_path / "out"
    put(output, OURS)
    (output / "config.json").write_bytes(b"mine")
    put(output, {"README.md": b"next", "config.json": b"[]", "LICENSE": b"other"})
    assert names(output) == ["config.json", "onnx"]
