"""What a few bytes of a checkpoint may cost: counts, headers and names of any size."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts.tiny import write_checkpoint

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.checkpoints.hugging_face_files import INDEX_FILE, SINGLE_FILE, read_index
from llama_export.checkpoints.safetensors_header import MAX_HEADER_BYTES, read_header
from llama_export.errors import CheckpointError, ConfigError, LlamaExportError
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.llama.config import LlamaConfig
from llama_export.sources.source import describe

# Twice what the slowest case takes on a busy machine; what these cases cost before was minutes.
MOST_S = 1.0
MOST_CHARACTERS = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("bounds") / "model")


@pytest.fixture
def changed(folder):
    """Changes config.json, and puts it back."""
    path = folder / "config.json"
    text = path.read_text()

    def change(**keys: object) -> Path:
        path.write_text(json.dumps({**json.loads(text), **keys}))
        return folder

    yield change
    path.write_text(text)


def refusal(action: Callable[[], object], error: type[LlamaExportError]) -> str:
    """Require a named error at once, in a message that can be read; return it."""
    begun = time.process_time()
    with pytest.raises(error) as caught:
        action()
    assert time.process_time() - begun < MOST_S
    assert len(caught.value.message) <= MOST_CHARACTERS
    assert "\x1b" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("layers", [1001, 10**5, 10**6, 2**31, 2**40, 10**39])
def test_layers_that_no_llama_has_are_refused_before_they_are_listed(changed, tmp_path, layers):
    model = changed(num_hidden_layers=layers)
    message = refusal(lambda: HfCheckpoint.open(model), ConfigError)
    assert "num_hidden_layers" in message
    request = ExportRequest(str(model), ("onnx",), tmp_path / "out")
    refusal(lambda: plan_export(request), ConfigError)
    refusal(lambda: plan_export(request, to_show=True), ConfigError)


@pytest.mark.parametrize(("layers", "found"), [(1000, 2), (3, 2)])
def test_layers_that_the_files_do_not_hold_are_counted_first(changed, layers, found):
    model = changed(num_hidden_layers=layers)
    message = refusal(lambda: HfCheckpoint.open(model), CheckpointError)
    assert message.splitlines()[1].strip() == (
        f"config.json says {layers} layers, and the files hold tensors of {found}"
    )


HUGE = {
    "vocab_size": 2**24 + 1,
    "hidden_size": 2**20 + 2,
    "intermediate_size": 2**30,
    "num_attention_heads": 2**15,
    "num_key_value_heads": 2**15,
    "head_dim": 2**16,
    "max_position_embeddings": 2**31,
    "rms_norm_eps": 1e300,
    "rope_theta": 1e13,
}


@pytest.mark.parametrize("key", HUGE)
@pytest.mark.parametrize("end", ["high", "low"])
def test_every_number_of_a_shape_is_bounded_at_both_ends(changed, key, end):
    low = 1e-300 if isinstance(HUGE[key], float) else 0
    model = changed(**{key: HUGE[key] if end == "high" else low})
    assert f"{key} must be between" in refusal(lambda: describe(model), ConfigError)


def test_a_product_of_dimensions_is_bounded_too(changed):
    model = changed(hidden_size=2**20, intermediate_size=2**20, num_hidden_layers=500)
    assert "parameters" in refusal(lambda: describe(model), ConfigError)


@pytest.mark.parametrize("key", ["factor", "low_freq_factor", "high_freq_factor"])
@pytest.mark.parametrize("value", [1e-300, 1e300, -1.0, [], {"a": 1}, True, "8"])
def test_factors_of_the_rope_are_bounded(folder, changed, key, value):
    scaling = json.loads((folder / "config.json").read_text())["rope_scaling"]
    model = changed(rope_scaling={**scaling, key: value})
    assert key in refusal(lambda: describe(model), ConfigError)


FOREIGN = ([], {}, [[]], {"a": {}}, "text", "\x1b[31m\u202e", True, 1.5, -1, "x" * 500_000)


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: f"{value!r:.12}")
def test_values_of_foreign_types_are_named_in_any_key(folder, changed, value):
    config = json.loads((folder / "config.json").read_text())
    harmless = {"architectures", "torch_dtype", "attention_bias", "mlp_bias"}
    for key in set(config) - harmless:
        if (key, value) in (("tie_word_embeddings", True), ("eos_token_id", [])):
            continue  # these are what the key may be
        if value == -1 and key.endswith("_token_id"):
            continue  # no token
        if key == "rope_scaling" and isinstance(value, dict):
            continue  # without a type it is none, and what it holds is passed over
        if key in ("rms_norm_eps", "rope_theta") and value == 1.5 and value is not True:
            continue
        assert key in refusal(lambda: describe(changed(**{key: value})), LlamaExportError)  # noqa: B023


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"rope_theta": 1.0, "rope_theta": 2.0}', "'rope_theta' is given twice"),
        ('{"rope_theta": NaN}', "NaN is not a JSON number"),
        ('{"rope_theta": 1e999}', "too large"),
        ('{"vocab_size": %s}' % ("9" * 5000), "5000 digits"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested"),
        ('{"x": "%s"}' % ("y" * 2**20), "longer than"),
    ],
)
def test_json_that_readers_disagree_about_is_refused(folder, changed, text, match):
    changed()
    (folder / "config.json").write_text(text)
    assert match in refusal(lambda: LlamaConfig.read(folder / "config.json"), ConfigError)


def test_an_unknown_key_of_a_million_letters_gives_a_short_message(changed):
    model = changed(**{"A\x1b" * 100_000: 1, "logit_scale": 2})
    message = refusal(lambda: describe(model), LlamaExportError)
    assert len(message) < 600
    assert "logit_scale" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["config.json", SINGLE_FILE, INDEX_FILE])
def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting(tmp_path, name):
    folder = write_checkpoint(tmp_path / "model")
    (folder / SINGLE_FILE if name == INDEX_FILE else folder / name).unlink()
    os.mkfifo(folder / name)
    refusal(lambda: describe(folder), LlamaExportError)


# Headers.


def header_of(tmp_path: Path, body: bytes) -> Path:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(body).to_bytes(8, "little") + body)
    return path


@pytest.mark.parametrize("where", [0, 40_000, 79_999])
def test_a_key_given_twice_is_found_in_linear_time(tmp_path, where):
    """A search for it among all names took 15 s for a header of 260 kB."""
    keys = [f'"k{index:07}":0' for index in range(80_000)] + [f'"k{where:07}":0']
    path = header_of(tmp_path, ("{" + ",".join(keys) + "}").encode())
    assert f"'k{where:07}' is given twice" in refusal(lambda: read_header(path), CheckpointError)


def test_a_header_larger_than_any_llamas_is_not_read(tmp_path):
    path = header_of(tmp_path, b"{" + b" " * MAX_HEADER_BYTES + b"}")
    assert "at most" in refusal(lambda: read_header(path), CheckpointError)


LONG = "\x1b[31m" + "n" * 1_000_000


@pytest.mark.parametrize(
    "header",
    [
        {LONG: 1},
        {LONG: {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, LONG: {}},
        {LONG: {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {LONG: {"dtype": LONG, "shape": [], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [10**39] * 8, "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1e3], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2**70], "data_offsets": [0, 2**72]}},
    ],
)
def test_names_and_counts_of_a_header_cannot_fill_a_message(folder, tmp_path, header):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    header_of(tmp_path, json.dumps(header).encode()).rename(tmp_path / SINGLE_FILE)
    message = refusal(lambda: HfCheckpoint.open(tmp_path), CheckpointError)
    assert len(message) < 1500


@pytest.mark.parametrize(
    "shard",
    [
        "n" * 5000 + ".safetensors",
        "a\x1b[31m.safetensors",
        "a\n.safetensors",
        "a\ud800.safetensors",
        "a\u202e.safetensors",
        1e3,
        {},
    ],
)
def test_names_of_shards_that_no_file_has_are_refused(tmp_path, shard):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": shard}}))
    message = refusal(lambda: read_index(tmp_path / INDEX_FILE), CheckpointError)
    assert "inside the folder" in message


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "'a' is given twice"),
        ('{"metadata": {"total_size": NaN}, "weight_map": {"a": "x.safetensors"}}', "NaN"),
        ('{"weight_map": ' + "[" * 100_000 + "}", "nested"),
    ],
)
def test_an_index_that_readers_disagree_about_is_refused(tmp_path, text, match):
    (tmp_path / INDEX_FILE).write_text(text)
    assert match in refusal(lambda: read_index(tmp_path / INDEX_FILE), CheckpointError)
