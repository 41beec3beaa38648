"""Checkpoints whose tokenizer is not Llama 3's: described, exported, proved, and run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.json_tokenizers import CONTROL, KINDS, json_bytes
from artifacts.sentencepieces import trained
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

import llama_export
from llama_export.errors import TokenizerError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.sources.catalogue import shape_of
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import describe, open_source
from llama_export.tokenizer.tokenizer import load_tokenizer

SMOLLM2 = {"bos_token": CONTROL[1], "eos_token": {"content": CONTROL[2]}, "pad_token": CONTROL[2]}
SLOW = pytest.mark.slow
CONFIG = replace(TINY, bos_token_id=1, eos_token_id=(2,))


def checkpoint(folder: Path, name: str, config=CONFIG) -> Path:
    """Write a checkpoint whose tokenizer is of a kind."""
    keys: dict[str, object] = {}
    if name == "no beginning":
        config, keys = replace(config, bos_token_id=None), {"eos_token": CONTROL[2]}
    elif name == "smollm2":
        keys = dict(SMOLLM2)
    write_checkpoint(folder, config)
    (folder / "tokenizer.model").unlink()
    if name == "llama2":
        (folder / "tokenizer.model").write_bytes(trained())
    else:
        (folder / "tokenizer.json").write_bytes(json_bytes("smollm2"))
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    return folder


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param("smollm2", "onnx", marks=pytest.mark.onnx),
        pytest.param("llama2", "onnx", marks=[pytest.mark.onnx, SLOW]),
        pytest.param("no beginning", "onnx", marks=[pytest.mark.onnx, SLOW]),
        pytest.param("no beginning", "executorch", marks=[pytest.mark.executorch, SLOW]),
        pytest.param("no beginning", "coreml", marks=[pytest.mark.coreml, SLOW]),
    ],
)
def test_a_bundle_is_exported_proved_and_run(tmp_path, name, target):
    model = checkpoint(tmp_path / "model", name)
    request = ExportRequest(str(model), (target,), tmp_path / "out", max_context=64)
    made = export_bundle(request, Silent()).bundles[0]
    assert made.report.passed, made.report.failures
    bundle, source = made.bundle, load_tokenizer(model)
    recorded = bundle.manifest.tokenizer
    assert recorded["bos_token_id"] == {"no beginning": None}.get(name, 1)
    assert recorded.get("prefix_token_ids", [1]) == list(source.prefix_ids)
    assert 2 in recorded["stop_token_ids"]
    for file, content in source.files().items():
        assert bundle.path(file).read_bytes() == content
    with llama_export.load(bundle.folder) as session:
        ids = session.encode("the king")
        assert ids == [*source.prefix_ids, *source.encode("the king")]
        written = session.generate("the king", max_tokens=8)
        continued = source.decode([*source.encode("the king"), *written.token_ids])
        assert continued.startswith("the king" + written.text.rstrip("\ufffd"))


def test_weights_that_were_kept_give_the_same_tokenizer_files(tmp_path):
    model = checkpoint(tmp_path / "model", "llama2")
    request = ExportRequest(str(model), ("onnx",), tmp_path / "one", max_context=64, verify=False)
    first = export_bundle(request, Silent())
    again = replace(request, model=str(first.output / "weights"), output=tmp_path / "two")
    second = export_bundle(again, Silent())
    for name in ("tokenizer.model", "tokenizer.json"):
        one, two = (made.bundles[0].bundle.path(name) for made in (first, second))
        assert one.read_bytes() == two.read_bytes()
    fields = [made.bundles[0].bundle.manifest.tokenizer for made in (first, second)]
    assert fields[0] == fields[1]


def added(*tokens: tuple[int, str]) -> bytes:
    """Return a tokenizer.json with more tokens."""
    document = KINDS["smollm2"]()
    flags = document["added_tokens"][0]
    document["added_tokens"] += [{**flags, "id": each, "content": name} for each, name in tokens]
    return json.dumps(document).encode()


def test_a_token_to_pad_with_beyond_the_table_is_noted(tmp_path):
    size = load_tokenizer(checkpoint(tmp_path / "a", "smollm2")).vocab_size
    model = checkpoint(tmp_path / "b", "smollm2", replace(CONFIG, vocab_size=size))
    (model / "tokenizer.json").write_bytes(added((size, "[PAD]")))
    source = open_source(resolve_model(str(model)))
    (note,) = source.info.notes
    assert f"1 added token beyond the model's table of {size}" in note
    assert "[PAD]" in note
    # A dry run says it before the export does.
    assert shape_of(str(model)).notes == (note,)


OTHERS = {
    "text beyond the table": (replace(CONFIG, vocab_size=400), None, "go up to id 413"),
    "far more tokens": (
        replace(CONFIG, vocab_size=414),
        added(*((414 + each, f"<{each}>") for each in range(1100))),
        "it has 1514 tokens, and the table 414",
    ),
    "a beginning beyond the table": (
        replace(CONFIG, vocab_size=414),
        added((414, "<s>")),
        "begins a text with 414, and the table has 414",
    ),
    "another beginning": (
        replace(CONFIG, bos_token_id=300),
        None,
        "begins a text with 1, and config.json with 300, a token of text",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_tokenizer_of_another_model_is_refused(tmp_path, name):
    config, data, match = OTHERS[name]
    model = checkpoint(tmp_path / "model", "smollm2", config)
    if data is not None:
        (model / "tokenizer.json").write_bytes(data)
    if name == "a beginning beyond the table":
        (model / "tokenizer_config.json").write_text(json.dumps(SMOLLM2 | {"bos_token": "<s>"}))
    with pytest.raises(TokenizerError, match="belongs to another model") as caught:
        describe(model)
    assert match in caught.value.message


def test_many_added_tokens_may_be_beyond_the_table(tmp_path):
    model = checkpoint(tmp_path / "model", "smollm2", replace(CONFIG, vocab_size=414))
    (model / "tokenizer.json").write_bytes(added(*((414 + n, f"<{n}>") for n in range(256))))
    assert describe(model).tokenizer.vocab_size == 414 + 256


def test_a_beginning_that_transformers_wrote_by_default_does_not_count(tmp_path):
    """A config made for a tokenizer of one's own keeps Llama 2's ids unless they are set."""
    document = KINDS["smollm2"]()
    flags = document["added_tokens"][0]
    document["added_tokens"] = [{**flags, "id": 414, "content": "<eot>"}]
    model = checkpoint(tmp_path / "model", "smollm2", CONFIG)
    (model / "tokenizer.json").write_text(json.dumps(document))
    keys = {"bos_token": "<eot>", "eos_token": "<eot>"}
    (model / "tokenizer_config.json").write_text(json.dumps(keys))
    found = describe(model)
    assert found.tokenizer.token_name(1) is None
    assert found.config.bos_token_id == 414


def test_a_beginning_that_was_renamed_is_the_tokenizers(tmp_path):
    model = checkpoint(tmp_path / "model", "smollm2", replace(CONFIG, bos_token_id=0))
    assert describe(model).config.bos_token_id == 1
