"""docs/python.md: every example runs, and every public name is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle
from artifacts.folders import folders_in

import llama_export
from llama_export import errors, python_interface

__all__ = ["demo_bundle"]

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
# The section whose examples export; the others have a bundle made for all tests.
EXPORTING = "Export, verify, inspect"


def sections() -> dict[str, list[str]]:
    """Return the Python blocks of each section by its heading."""
    parts = re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)
    blocks = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    return {
        heading: blocks.findall(text)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def run(blocks: list[str], folder: Path, monkeypatch) -> None:
    """Run blocks one after another, as a reader would, in a folder."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)


@pytest.mark.onnx
@pytest.mark.slow
def test_a_bundle_is_made_verified_and_inspected(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    run(sections()[EXPORTING], tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "<ExportResult demo-out: onnx in" in printed
    assert "<VerifyReport of demo (onnx): passed," in printed
    assert "True\n['onnx', CoremlOptions(" in printed
    assert "int8\nHubModel(name='meta-llama/Llama-3.2-1B', revision='4e20" in printed
    assert re.search(r"^passed \d\d rows$", printed, flags=re.MULTILINE)
    assert "as written - 2048 positions\nweights\n" in printed
    assert folders_in(tmp_path / "demo-out") == ["onnx", "weights"]


@pytest.mark.onnx
def test_every_other_example_runs(demo_bundle, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    (tmp_path / "demo-out").mkdir()
    (tmp_path / "demo-out" / "onnx").symlink_to(demo_bundle)
    found = sections()
    del found[EXPORTING]
    run([block for blocks in found.values() for block in blocks], tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "the prompt is empty - give a text" in printed
    assert "['system', 'user', 'assistant']" in printed
    assert "interrupted" in printed
    assert "the context has 2048, which must hold the answer too - " in printed
    assert "unknown recipe 'int3'" in printed
    assert printed.endswith("the session is closed\n")
    assert (tmp_path / "talk.chat").is_file()


def test_the_page_has_examples_of_each_section():
    found = sections()
    assert next(iter(found)) == EXPORTING
    assert all(found.values()), "a section without an example"
    assert sum(map(len, found.values())) >= 12


@pytest.mark.parametrize("name", llama_export.__all__)
def test_a_public_name_is_there_and_on_the_page(name):
    assert getattr(llama_export, name) is not None
    assert re.search(rf"(?<!\w){name}(?!\w)", PAGE), f"{name} is not in docs/python.md"


def test_the_package_lists_its_names():
    assert dir(llama_export) == sorted(llama_export.__all__)
    assert len(set(llama_export.__all__)) == len(llama_export.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llama_export.nothing


def test_every_error_is_public():
    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.LlamaExportError)
    }
    assert ours <= set(llama_export.__all__)


@pytest.mark.parametrize("verb", ["export", "verify", "inspect", "load"])
def test_a_verb_is_a_function_whatever_was_imported(verb):
    """A submodule of the same name would take its place once it is imported."""
    import llama_export.cli.app
    import llama_export.exporting.pipeline
    import llama_export.verification.verify

    assert getattr(llama_export, verb) is getattr(python_interface, verb)
    parameters = inspect.signature(getattr(llama_export, verb)).parameters
    assert len(parameters) <= 7
    assert all(each.annotation is not inspect.Parameter.empty for each in parameters.values())
    described = inspect.getdoc(getattr(llama_export, verb))
    assert [name for name in parameters if f"{name}: " not in described] == []
