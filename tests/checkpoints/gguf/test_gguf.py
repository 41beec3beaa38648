"""A Llama in GGUF: config and tensors equal to the model's that was written, or a named refusal."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from artifacts.gguf_files import (
    SMALL,
    quantized,
    raw_gguf,
    rope_freqs,
    split_gguf,
    stored_state,
    write_gguf,
)
from artifacts.tiny import random_tokens

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.checkpoints.formats import find_format, is_checkpoint, open_checkpoint
from llama_export.checkpoints.gguf.format import GgufCheckpoint, GgufFormat
from llama_export.checkpoints.gguf.header import read_header
from llama_export.errors import (
    CheckpointError,
    ConfigError,
    LlamaExportError,
    UnsupportedModelError,
)
from llama_export.llama.config import RopeScaling
from llama_export.llama.names import expected_shapes
from llama_export.llama.streamed import reference_logits, whole
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe
from llama_quantize.tensor import QuantizedTensor

UNTIED = replace(SMALL, tie_word_embeddings=False, rope_scaling=None, rope_theta=10000.0)


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("floats") / "small.gguf")


@pytest.mark.parametrize("config", [SMALL, UNTIED], ids=["tied and scaled", "untied"])
def test_the_config_is_the_one_that_was_written(tmp_path, config):
    path = write_gguf(tmp_path / "m.gguf", config)
    assert GgufFormat().read_config(path) == config
    assert find_format(path).open(path).config.rms_norm_eps == 1e-5, "as float32's shortest decimal"


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
def test_floats_come_back_bit_for_bit_in_hugging_faces_order(tmp_path, form):
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", forms=form))
    state = stored_state(SMALL)
    assert list(checkpoint.names) == list(expected_shapes(SMALL)), "in model order"
    assert checkpoint.shapes == {name: tuple(value.shape) for name, value in state.items()}
    for name, value in state.items():
        # A bfloat16 value may be too small for float16.
        stored = value.half().float() if form == "F16" and value.ndim == 2 else value
        assert torch.equal(whole(checkpoint.tensor(name)), stored), name
    assert checkpoint.recipe is None
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    "form",
    ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q2_K"],
)
def test_blocks_are_dequantised_row_by_row_as_the_package_does_it_whole(tmp_path, form):
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    name = "model.layers.1.mlp.down_proj.weight"
    query = "model.layers.1.self_attn.q_proj.weight"
    path = write_gguf(tmp_path / "m.gguf", forms={name: form, query: form})
    checkpoint = open_checkpoint(path, options=ReadOptions(accept_loss=True))
    state = stored_state(SMALL)
    expected = dequantize(quantized(state[name], form), GGMLQuantizationType[form])
    if form == "Q8_0":  # beside float linears it is kept; see below
        assert isinstance(checkpoint.tensor(name), QuantizedTensor)
        return
    lazy = checkpoint.tensor(name)
    assert np.array_equal(whole(lazy).numpy(), expected)
    rows = torch.tensor([7, 3, 255])
    assert np.array_equal(lazy[rows].numpy(), expected[[7, 3, 255]])
    assert np.array_equal(lazy[slice(5, 9)].numpy(), expected[5:9])
    assert checkpoint.notes[0].startswith(f"its weights are {form}, ")
    heads = whole(checkpoint.tensor(query))
    assert torch.equal(whole(checkpoint.tensor(query))[4:9], heads[4:9])
    assert torch.equal(checkpoint.tensor(query)[torch.tensor([200])], heads[200:201])


def test_rows_of_q_and_k_that_stay_in_order_are_another_model(floats, monkeypatch):
    ids = torch.tensor([random_tokens(SMALL, 64)])
    state = stored_state(SMALL)
    expected = reference_logits(SMALL, state.__getitem__, ids)
    checkpoint = open_checkpoint(floats)
    assert torch.equal(reference_logits(SMALL, checkpoint.tensor, ids), expected)
    monkeypatch.setattr(GgufCheckpoint, "_heads", lambda self, name: None)
    twin = reference_logits(SMALL, open_checkpoint(floats).tensor, ids)
    assert (twin - expected).abs().max() > 0.1


def test_divisors_that_are_ignored_are_another_model(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", without=("rope_freqs.weight",))
    config = GgufFormat().read_config(path)
    assert config == replace(SMALL, rope_scaling=None)
    ids = torch.tensor([random_tokens(SMALL, 256)])
    read = stored_state(SMALL).__getitem__
    twin = reference_logits(config, read, ids)
    assert (twin - reference_logits(SMALL, read, ids)).abs().max() > 0.1


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_factor_is_found_in_the_divisors(tmp_path, factor):
    config = replace(SMALL, head_dim=128, rope_scaling=RopeScaling(factor=factor))
    path = write_gguf(tmp_path / "m.gguf", config)
    assert GgufFormat().read_config(path) == config


def test_divisors_of_no_known_scaling_are_refused(tmp_path):
    other = RopeScaling(factor=8.0, high_freq_factor=8.0)
    path = write_gguf(tmp_path / "m.gguf", replace(SMALL, rope_scaling=other))
    with pytest.raises(UnsupportedModelError, match=r"not as Llama 3\.1 does"):
        GgufFormat().read_config(path)
    assert not np.array_equal(rope_freqs(SMALL), rope_freqs(replace(SMALL, rope_scaling=other)))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        ({"llama.rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"llama.rope.scaling.type": "none"}, None),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 16.0,
                "llama.rope.scaling.original_context_length": 1024,
            },
            {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 1024},
        ),
    ],
)
def test_other_scalings_are_in_keys(tmp_path, keys, expected):
    path = write_gguf(tmp_path / "m.gguf", UNTIED, keys=keys)
    found = GgufFormat().read_config(path).to_hf()["rope_scaling"]
    assert (found or None) == expected or expected.items() <= found.items()


def test_q8_0_keeps_its_codes_on_the_way_to_the_store(tmp_path):
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    path = write_gguf(tmp_path / "m.gguf", forms="Q8_0")
    checkpoint = open_checkpoint(path)
    assert checkpoint.recipe is not None
    assert "codes of its linear layers are kept" in checkpoint.notes[0]
    assert "one scale a row" in checkpoint.notes[1]
    quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe)
    weights = QuantizedWeights.open(tmp_path / "weights")
    state = stored_state(SMALL)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj"):
        full = f"model.layers.1.{name}.weight"
        kept = weights.get(full)
        assert kept.scheme.label == "int8 g32"
        raw = quantized(state[full], "Q8_0").reshape(len(state[full]), -1, 34)
        codes = raw[..., 2:].reshape(state[full].shape).view(np.int8)
        assert np.array_equal(kept.codes.numpy(), codes), full
        scales = torch.from_numpy(raw[..., :2].copy().view(np.float16)[..., 0])
        assert torch.equal(kept.scales, scales.to(torch.bfloat16)), full
        exact = dequantize(raw.reshape(len(state[full]), -1), GGMLQuantizationType.Q8_0)
        assert np.abs(kept.dequantize().numpy() - exact).max() < 0.01
    assert weights.get("model.embed_tokens.weight").scheme.label == "int8 row"


def test_q8_0_beside_smaller_forms_is_floats_like_them(tmp_path):
    def form(name):
        return "Q4_0" if "down_proj" in name else "Q8_0"

    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", forms=form))
    assert checkpoint.recipe is None
    assert "17.5" not in checkpoint.notes[0]
    assert "19.0 dB from Q4_0" in checkpoint.notes[0]
    quantize_to(tmp_path / "weights", checkpoint, recipe("int4"))


def test_biases_are_read_with_the_rows_of_q_and_k(tmp_path):
    config = replace(UNTIED, attention_bias=True, mlp_bias=True)
    path = write_gguf(tmp_path / "m.gguf", config)
    checkpoint = open_checkpoint(path)
    assert checkpoint.config == config
    state = stored_state(config)
    assert any(name.endswith("q_proj.bias") for name in state)
    for name, value in state.items():
        assert torch.equal(whole(checkpoint.tensor(name)), value), name


def test_any_part_opens_all_of_them(floats, tmp_path):
    whole_file = tmp_path / "whole.gguf"
    shutil.copy(floats, whole_file)
    parts = split_gguf(whole_file)
    whole_file.unlink()
    state = stored_state(SMALL)
    for path in (*parts, tmp_path):
        checkpoint = open_checkpoint(path)
        assert GgufFormat().is_complete(path)
        assert checkpoint.config == SMALL
        for name, value in state.items():
            assert torch.equal(whole(checkpoint.tensor(name)), value), name
    parts[1].rename(tmp_path / "elsewhere")
    assert not GgufFormat().is_complete(parts[0])
    with pytest.raises(CheckpointError, match=r"lacks 1 of the 3 parts: m-00002-of"):
        open_checkpoint(parts[2])
    shutil.copy(parts[2], parts[1])
    with pytest.raises(CheckpointError, match="says that it is part 2 of 3"):
        open_checkpoint(parts[0])


def test_a_folder_stands_for_its_one_model(floats, tmp_path):
    shutil.copy(floats, tmp_path / "a.gguf")
    (tmp_path / "mmproj-a.gguf").write_bytes(b"GGUF")
    assert open_checkpoint(tmp_path).config == SMALL
    shutil.copy(floats, tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match=r"2 models in GGUF, .*: a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path)
    assert not GgufFormat().is_complete(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not GgufFormat().recognises(tmp_path), "the model in Hugging Face's form is meant"


def test_the_first_bytes_decide_not_the_name(floats, tmp_path):
    other = tmp_path / "model.bin"
    shutil.copy(floats, other)
    assert open_checkpoint(other).config == SMALL
    named = tmp_path / "x.gguf"
    named.write_bytes(b"lmgg" + bytes(60))
    assert not is_checkpoint(named)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["README.md"], None),
        (["a.Q4_0.gguf", "a.Q8_0.gguf"], "holds 2 models in GGUF"),
        (["m-00001-of-00002.gguf"], "lacks m-00002-of-00002.gguf"),
        (["a.gguf", "model.safetensors"], None),
        (["a.gguf", "mmproj-a.gguf", "LICENSE"], ("a.gguf",)),
        (
            ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "LICENSE"],
            ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"),
        ),
    ],
)
def test_one_model_of_a_repository_is_wanted(files, expected):
    found = GgufFormat().wanted(files)
    if isinstance(expected, str):
        assert expected in found.text
    else:
        assert (found if found is None else found.weights) == expected
        assert found is None or (found.small, found.last) == (("LICENSE",), files[0])
        assert found is None or found.opened == files[0]


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"general.architecture": "qwen2"}, UnsupportedModelError, "architecture 'qwen2'"),
        ({"general.type": "adapter"}, UnsupportedModelError, "general.type is 'adapter'"),
        ({"llama.expert_count": 8}, UnsupportedModelError, "llama.expert_count = 8"),
        ({"llama.attention.sliding_window": 4096}, UnsupportedModelError, "sliding_window = 4096"),
        ({"llama.no_such_key": 1}, UnsupportedModelError, "llama.no_such_key = 1"),
        ({"llama.rope.dimension_count": 32}, UnsupportedModelError, "rope.dimension_count is 32"),
        ({"llama.attention.value_length": 32}, UnsupportedModelError, "value_length is 32"),
        ({"llama.rope.scaling.type": "longrope"}, UnsupportedModelError, "'longrope'"),
        ({"general.quantization_version": 1}, UnsupportedModelError, "quantization_version is 1"),
        ({"llama.block_count": None}, ConfigError, "llama.block_count is missing"),
        ({"llama.block_count": "two"}, ConfigError, "block_count must be a whole number"),
        ({"llama.block_count": [2, 2]}, ConfigError, "block_count must be .*found a list"),
        ({"llama.rope.freq_base": -1.0}, ConfigError, "freq_base must be a positive"),
        ({"llama.rope.freq_base": float("nan")}, ConfigError, "freq_base must be a finite number"),
        ({"llama.block_count": 3}, CheckpointError, r"layers.2.input_layernorm.weight is missing"),
        ({"llama.block_count": 1}, CheckpointError, r"blk.1.* is not part of a Llama"),
        (
            {"llama.feed_forward_length": 256},
            CheckpointError,
            r"gate_proj.weight must be \[256, 256\] by the metadata, found \[512, 256\]",
        ),
    ],
)
def test_what_is_no_llama_or_not_whole_is_refused_by_name(tmp_path, keys, error, message):
    path = write_gguf(tmp_path / "m.gguf", replace(SMALL, rope_scaling=None), keys=keys)
    with pytest.raises(error, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize("value", ["expert_count", "attention.sliding_window"])
def test_what_changes_nothing_is_passed_over(tmp_path, value):
    path = write_gguf(tmp_path / "m.gguf", UNTIED, keys={f"llama.{value}": 0})
    assert GgufFormat().read_config(path) == UNTIED


@pytest.mark.parametrize("form", ["IQ2_XXS", "IQ1_S", "TQ1_0", "MXFP4", "Q2_K", "Q3_K"])
def test_forms_that_lost_too_much_are_refused_by_name(tmp_path, form):
    name = "model.layers.1.mlp.down_proj.weight"
    path = write_gguf(tmp_path / "m.gguf", forms={name: form})
    with pytest.raises(CheckpointError, match=f"{name} is {form}, "):
        open_checkpoint(path)
    options = ReadOptions(accept_loss=True)
    if form in ("Q2_K", "Q3_K"):
        assert f"from {form}" in open_checkpoint(path, options=options).notes[0]
    else:
        with pytest.raises(CheckpointError, match="which is not read"):
            open_checkpoint(path, options=options)


def patched(path, name, at, value):
    """Overwrite bytes of a tensor."""
    stored = read_header(path).tensors[name]
    content = bytearray(path.read_bytes())
    content[stored.start + at : stored.start + at + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("form", "at", "value", "message"),
    [
        ("Q8_0", 34, np.float16(np.nan).tobytes(), "scale nan of group 1 in row 0"),
        ("Q8_0", 0, np.float16(-1).tobytes(), "scale -1.0 of group 0 in row 0"),
        ("Q8_0", 2, b"\x80", "a code of row 0 of a Q8_0 tensor is -128"),
        ("Q4_0", 0, np.float16(np.nan).tobytes(), r"v_proj.weight: value nan at \[0, 0\]"),
        ("F32", 4, np.float32(np.inf).tobytes(), r"v_proj.weight: value inf at \[0, 1\]"),
    ],
)
def test_values_that_are_no_weights_are_refused_with_their_place(
    tmp_path, form, at, value, message
):
    path = write_gguf(tmp_path / "m.gguf", forms=form)
    patched(path, "blk.0.attn_v.weight", at, value)
    checkpoint = open_checkpoint(path)
    with pytest.raises((QuantizationError, CheckpointError), match=message):
        quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe or recipe("int4"))


def test_a_truncated_file_is_refused(floats, tmp_path):
    content = floats.read_bytes()
    for size in (9, 100, len(content) // 2, len(content) - 64):
        path = tmp_path / "cut.gguf"
        path.write_bytes(content[:size])
        with pytest.raises(LlamaExportError, match="truncated"):
            open_checkpoint(path)


def test_a_file_of_no_tensors_lists_what_is_missing(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(raw_gguf())
    with pytest.raises(UnsupportedModelError, match="of the architecture"):
        open_checkpoint(path)
