"""Inspect: parts of a real artifact, its inputs and outputs, its files, and damaged folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.opened import footprint_of
from artifacts.small_bundle import export_small
from artifacts.tiny import TINY

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import TensorSpec
from llama_export.errors import BundleError
from llama_export.examine.inspection import (
    RECORD_FILE,
    TensorGroup,
    group_tensors,
    inspect_bundle,
    inspect_folder,
    inspect_weights,
)
from llama_export.targets.footprint import Footprint, Part, merge
from llama_quantize.checkpoint import store
from llama_quantize.errors import QuantizationError

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export_small(tmp_path_factory.mktemp("inspection"), max_context=300)


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    shutil.copytree(exported, tmp_path / "out")
    return tmp_path / "out"


def sizes(parts) -> dict[str, int]:
    return {part.kind: part.size_bytes for part in parts}


def test_the_parts_are_the_weights_of_the_model(exported):
    bundle = Bundle.open(exported / "onnx")
    found = footprint_of(bundle)
    linears = 2 * (128 * 64 * (4 + 4 + 2 + 2) + 3 * 128 * 256)
    table = TINY.vocab_size * 128
    by_kind = sizes(found.parts)
    assert by_kind["int4 codes"] == linears // 2
    assert by_kind["int8 table"] == table
    assert by_kind["scales"] == 2 * (linears // 32 + table // 128)
    assert by_kind["norms"] == 4 * 128 * 5
    assert by_kind["rotary tables"] == 2 * 300 * 32 * 4
    on_disk = {name: bundle.path(name).stat().st_size for name in found.counted}
    assert found.size_bytes == sum(on_disk.values())
    assert set(on_disk) == {"model.onnx", "model.onnx_data"}


def test_decoding_reads_the_weights_once_and_the_cache(exported):
    found = footprint_of(Bundle.open(exported / "onnx"))
    by_kind = sizes(found.parts)
    whole = ("int4 codes", "int8 table", "scales", "norms")
    expected = sum(by_kind[kind] for kind in whole) + 2 * 32 * 4
    assert found.read_bytes_per_token(0) == expected
    assert found.kv_bytes_per_token == 2 * 2 * 2 * 64 * 4
    assert found.read_bytes_per_token(10) - expected == 10 * found.kv_bytes_per_token


def test_an_untied_lookup_reads_one_row(tmp_path):
    untied = replace(TINY, tie_word_embeddings=False)
    found = footprint_of(Bundle.open(export_small(tmp_path, untied, max_context=300) / "onnx"))
    (table,) = (part for part in found.parts if part.kind == "int8 table")
    assert table.size_bytes == 2 * TINY.vocab_size * 128
    assert table.read_bytes == TINY.vocab_size * 128 + 128


def test_parts_of_a_kind_are_added_up():
    parts = merge([Part("a", 1, 1), Part("b", 5, 0), Part("a", 2, 2)])
    assert parts == (Part("b", 5, 0), Part("a", 3, 3))
    assert Footprint(parts, 10).read_bytes_per_token(2) == 23


def test_layers_are_collapsed():
    shape = ("batch_size", 2, "past_sequence_length", 64)
    specs = [TensorSpec("input_ids", "int64", ("batch_size",))]
    specs += [TensorSpec(f"past.{layer}.key", "float32", shape) for layer in range(12)]
    specs += [TensorSpec("past.12.key", "float16", shape)]
    assert group_tensors(specs) == (
        TensorGroup("input_ids", 1, "int64", ("batch_size",)),
        TensorGroup("past.{0-11}.key", 12, "float32", shape),
        TensorGroup("past.{12-12}.key", 1, "float16", shape),
    )


def test_an_inspection_accounts_for_every_byte(exported):
    found = inspect_bundle(Bundle.open(exported / "onnx"), check_hashes=True)
    on_disk = {path.name: path.stat().st_size for path in (exported / "onnx").iterdir()}
    assert {file.name: file.size_bytes for file in found.files} == on_disk
    assert sum(part.size_bytes for part in found.parts) == sum(on_disk.values())
    assert found.size_bytes == sum(on_disk.values())
    assert all("not the export's own" not in file.purpose for file in found.files)
    assert (found.hashes, found.unlisted) == ("as written", ())
    assert found.tokenizer["stop_token_ids"] == [257, 264, 265]
    names = ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]
    assert found.tokenizer["stop_token_names"] == names
    assert found.created_with["llama-export"]
    json.dumps(found.to_json(), allow_nan=False)


def test_the_signature_is_that_of_the_graph(exported):
    import onnx

    graph = onnx.load(exported / "onnx" / "model.onnx", load_external_data=False).graph
    found = inspect_bundle(Bundle.open(exported / "onnx"))
    assert sum(group.count for group in found.inputs) == len(graph.input)
    assert sum(group.count for group in found.outputs) == len(graph.output)
    assert [group.names for group in found.outputs] == [
        "logits",
        "present.{0-1}.key",
        "present.{0-1}.value",
    ]


def test_weights_are_inspected_too(exported):
    found = inspect_weights(exported / "weights", check_hashes=True)
    on_disk = sum(path.stat().st_size for path in (exported / "weights").iterdir())
    assert sum(part.size_bytes for part in found.parts) == found.size_bytes == on_disk
    assert {"int4 g32", "int8 row", "bfloat16"} <= set(sizes(found.parts))
    assert found.kind == "weights"
    assert (found.quantization["recipe"], found.hashes) == ("int4", "as written")


def test_the_command_says_it_in_80_columns_and_60_rows(command, exported):
    code, out, _ = command("inspect", exported / "onnx")
    assert code == 0
    for words in (
        "int4 codes",
        "past_key_values.{0-1}.key",
        "257 <|end_of_text|>,",
        "265 <|eot_id|>",
        "not checked",
    ):
        assert words in out
    # Shapes begin with a bracket, which is markup to rich.
    assert "[batch_size, sequence_length]" in out
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= 75
    code, out, _ = command("inspect", exported / "weights")
    assert code == 0
    assert "int8 row" in out


def test_the_command_gives_json(command, exported):
    code, out, _ = command("inspect", exported / "onnx", "--json", "--hashes")
    found = json.loads(out)
    assert (code, found["kind"], found["hashes"]) == (0, "bundle", "as written")
    assert found["graph"]["kv_bytes_per_token"] == 2 * 2 * 2 * 64 * 4


def test_a_folder_is_a_bundle_or_weights(exported):
    assert RECORD_FILE == store.RECORD_FILE
    told: list[tuple[int, int]] = []
    found = inspect_folder(
        exported / "onnx", check_hashes=True, progress=lambda *done: told.append(done)
    )
    size = Bundle.open(exported / "onnx").size_bytes
    assert (found.kind, found.hashes, told[-1]) == ("bundle", "as written", (size, size))
    assert told == sorted(told)
    assert inspect_folder(exported / "weights").kind == "weights"


def test_hashes_show_a_changed_file(command, copied):
    data = copied / "onnx" / "model.onnx_data"
    content = bytearray(data.read_bytes())
    content[5000] ^= 1
    data.write_bytes(bytes(content))
    assert command("inspect", copied / "onnx")[0] == 0
    code, out, err = command("inspect", copied / "onnx", "--hashes")
    assert (code, out) == (8, "")
    assert "model.onnx_data is changed" in err
    weights = copied / "weights" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    inspect_weights(copied / "weights")
    with pytest.raises(QuantizationError, match="was changed"):
        inspect_weights(copied / "weights", check_hashes=True)


def test_unlisted_files_are_named(command, copied):
    (copied / "onnx" / "diary.txt").write_text("mine")
    code, out, _ = command("inspect", copied / "onnx", "--hashes")
    assert code == 0
    assert "diary.txt" in out


@pytest.mark.parametrize("verb", ["inspect", "bench"])
def test_a_newer_format_is_refused_by_name(command, copied, verb):
    manifest = copied / "onnx" / "manifest.json"
    raw = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(raw | {"format_version": raw["format_version"] + 1}))
    code, out, err = command(verb, copied / "onnx")
    assert (code, out) == (8, "")
    assert "format" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", ["inspect", "bench"])
def test_no_bundle_is_refused(command, tmp_path, verb):
    for place in (tmp_path / "nothing", tmp_path):
        code, out, err = command(verb, place)
        assert (code, out) == (8, "")
        assert "what to do" in err


def test_a_stop_token_that_is_not_special_has_its_number_alone(command, copied):
    manifest = copied / "onnx" / "manifest.json"
    raw = json.loads(manifest.read_text())
    raw["tokenizer"]["stop_token_ids"] = [65, 265]
    manifest.write_text(json.dumps(raw))
    code, out, _ = command("inspect", copied / "onnx")
    assert code == 0
    assert "65, 265 <|eot_id|>" in out


def test_inspecting_imports_no_torch(exported):
    code = (
        "import sys; from pathlib import Path\n"
        "from llama_export.bundle.bundle import Bundle\n"
        "from llama_export.examine.inspection import inspect_bundle\n"
        "found = inspect_bundle(Bundle.open(Path(sys.argv[1])))\n"
        "assert found.tokenizer['stop_token_names']\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(str(root / name) for name in ("export", "quantize"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported / "onnx")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_graph_that_is_none(copied):
    (copied / "onnx" / "model.onnx").write_bytes(
        b"\xff" * (copied / "onnx" / "model.onnx").stat().st_size
    )
    with pytest.raises(BundleError, match="no ONNX graph"):
        footprint_of(Bundle.open(copied / "onnx"))


def test_a_weight_outside_the_data_file(copied):
    bundle = Bundle.open(copied / "onnx")
    data = copied / "onnx" / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(BundleError, match="a weight ends at byte"):
        footprint_of(bundle)


@pytest.mark.parametrize("verb", ["inspect", "generate", "--help"])
def test_a_reader_that_has_gone_is_no_failed_verification(exported, verb):
    """As of `| head`: no message, and the exit code that a shell gives SIGPIPE."""
    arguments = {
        "inspect": [verb, str(exported / "onnx")],
        "generate": [verb, str(exported / "onnx"), "--prompt", "the king", "--max-tokens", "2"],
        "--help": [verb],
    }[verb]
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(str(root / name) for name in ("export", "quantize"))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llama_export", *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_verbose_says_what_it_does_to_a_verification(command):
    _, out, _ = command("verify", "--help", columns=200)
    assert "List every check" in out
    assert "List every check" not in command("inspect", "--help", columns=200)[1]
