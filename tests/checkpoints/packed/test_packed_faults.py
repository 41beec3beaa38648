"""Packed checkpoints that are damaged, contradict themselves or are of no method: named errors."""

from __future__ import annotations

import json

import pytest
import torch
from artifacts import packed_weights as packed
from artifacts.tiny import UNTIED
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from llama_export.checkpoints.formats import find_format, open_checkpoint
from llama_export.errors import CheckpointError, ConfigError, UnsupportedModelError
from llama_export.llama.config import LlamaConfig
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe

MODULE = "model.layers.0.self_attn.q_proj"
NAMES = [name for name in packed.floats() if "_proj." in name]


def compressed(kind, **weights):
    given = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"} | weights
    groups = {"group_0": {"targets": ["Linear"], "weights": given}}
    return {"quant_method": "compressed-tensors", "format": kind, "config_groups": groups}


def int8_rows(weight):
    top = weight.float().abs().amax(1)
    codes = (weight.float() * 127 / top.unsqueeze(1)).round().to(torch.int8)
    return {"weight": codes, "SCB": top}


METHODS = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        lambda weight: packed.gptq(packed.rounded(weight, 32)),
        None,
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 32},
        lambda weight: packed.awq(packed.rounded(weight, 32, symmetric=False)),
        None,
    ),
    "packed": (
        compressed("pack-quantized", group_size=32),
        lambda weight: packed.pack_quantized(packed.rounded(weight, 32)),
        None,
    ),
    "int8": (
        compressed("int-quantized", num_bits=8, strategy="channel"),
        lambda weight: packed.int_quantized(packed.rounded(weight, weight.shape[1], bits=8)),
        None,
    ),
    "fp8": (
        {"quant_method": "fp8", "weight_block_size": [64, 64]},
        lambda weight: packed.fp8(weight, (64, 64), "weight_scale_inv", torch.float32),
        None,
    ),
    "nf4": ({"quant_method": "bitsandbytes"}, packed.nf4, None),
    "nf4 double": (
        {"quant_method": "bitsandbytes"},
        lambda weight: packed.nf4(weight, nested=True),
        None,
    ),
    "bnb int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, int8_rows, None),
    "torchao": (
        {"quant_method": "torchao"},
        lambda weight: packed.torchao(packed.rounded(weight, 32)),
        packed.torchao_metadata(NAMES, [1, 32]),
    ),
}
# Without these a weight is still whole.
OPTIONAL = {"g_idx"}
PARTS = [
    (method, end)
    for method, (_, pack, _) in METHODS.items()
    for end in pack(packed.floats()[f"{MODULE}.weight"])
    if end not in OPTIONAL
]
SCALES = {
    "gptq": "scales",
    "awq": "scales",
    "packed": "weight_scale",
    "int8": "weight_scale",
    "fp8": "weight_scale_inv",
    "nf4": "weight.absmax",
    "nf4 double": "weight.nested_absmax",
    "bnb int8": "SCB",
    "torchao": "_weight_scale",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One whole checkpoint of each method, and none is changed."""
    place = tmp_path_factory.mktemp("packed")
    for method, (settings, pack, metadata) in METHODS.items():
        packed.write_packed(
            place / method, settings, lambda _, weight, pack=pack: pack(weight), metadata=metadata
        )
    return place


def changed(folders, tmp_path, method, change, **keys):
    """Copy a checkpoint with other tensors, and other keys of quantization_config."""
    whole, folder = folders / method, tmp_path / "model"
    folder.mkdir()
    tensors = load_file(whole / "model.safetensors")
    change(tensors)
    with safe_open(whole / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, folder / "model.safetensors", metadata=metadata)
    config = json.loads((whole / "config.json").read_text())
    config["quantization_config"] |= keys
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fault(folder, error=CheckpointError):
    with pytest.raises(error) as caught:
        open_checkpoint(folder)
    return f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("dtype", ["x", "F4"])
def test_a_type_that_no_reader_knows_is_named(folders, tmp_path, dtype):
    """Also where the header's own words are read, as for torchao."""
    content = (folders / "torchao" / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    norm = header["model.norm.weight"]
    start_byte, end_byte = norm["data_offsets"]
    # As many elements of four bits as its bytes hold, so that the type alone is strange.
    norm |= {"dtype": dtype, "shape": [2 * (end_byte - start_byte)]}
    raw = json.dumps(header).encode()
    folder = changed(folders, tmp_path, "torchao", lambda tensors: None)
    whole = len(raw).to_bytes(8, "little") + raw + content[start:]
    (folder / "model.safetensors").write_bytes(whole)
    assert "model.norm.weight" in fault(folder)
    header["__metadata__"] = {"format": 5}
    raw = json.dumps(header).encode()
    whole = len(raw).to_bytes(8, "little") + raw + content[start:]
    (folder / "model.safetensors").write_bytes(whole)
    assert "expected a string" in fault(folder)


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_one_opens_and_is_quantised(folders, tmp_path, method):
    checkpoint = open_checkpoint(folders / method)
    quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe or recipe("int4"))
    assert any(
        word in note for note in checkpoint.notes for word in ("kept as they are", "dequantised")
    )


@pytest.mark.parametrize(("method", "end"), PARTS)
def test_a_missing_tensor_is_named(folders, tmp_path, method, end):
    folder = changed(folders, tmp_path, method, lambda tensors: tensors.pop(f"{MODULE}.{end}"))
    assert f"{MODULE}.{end} is missing" in fault(folder)


@pytest.mark.parametrize(("method", "end"), PARTS)
def test_a_wrong_shape_is_named(folders, tmp_path, method, end):
    def change(tensors):
        old = tensors[f"{MODULE}.{end}"]
        tensors[f"{MODULE}.{end}"] = old.flatten()[:-1].clone()

    expected = "cannot be read" if "quant_state" in end else "must be"
    assert f"{MODULE}.{end} {expected}" in fault(changed(folders, tmp_path, method, change))


@pytest.mark.parametrize(("method", "end"), PARTS)
def test_a_wrong_type_is_named(folders, tmp_path, method, end):
    def change(tensors):
        old = tensors[f"{MODULE}.{end}"]
        tensors[f"{MODULE}.{end}"] = torch.zeros(old.shape, dtype=torch.int16)

    assert f"{MODULE}.{end} must be" in fault(changed(folders, tmp_path, method, change))


@pytest.mark.parametrize("method", METHODS)
def test_a_truncated_file_is_refused(folders, tmp_path, method):
    folder = changed(folders, tmp_path, method, lambda tensors: None)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "is truncated" in fault(folder)


BAD_SCALES = [(method, bad) for method in SCALES for bad in (float("nan"), float("inf"))]
# Floats have a sign; codes that are kept have a scale above zero.
BAD_SCALES += [(method, -1.0) for method in ("gptq", "packed", "int8", "bnb int8", "torchao")]


@pytest.mark.parametrize(("method", "bad"), BAD_SCALES)
def test_a_bad_scale_is_named(folders, tmp_path, method, bad):
    def change(tensors):
        tensors[f"{MODULE}.{SCALES[method]}"].flatten()[0] = bad

    checkpoint = open_checkpoint(changed(folders, tmp_path, method, change))
    with pytest.raises((CheckpointError, QuantizationError), match=MODULE.replace(".", r"\.")):
        quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe or recipe("int4"))


@pytest.mark.parametrize("method", METHODS)
def test_a_float_weight_beside_a_packed_one_is_named(folders, tmp_path, method):
    weight = packed.floats()[f"{MODULE}.weight"]

    def change(tensors):
        tensors[f"{MODULE}.weight"] = weight.clone()

    assert f"{MODULE}.weight" in fault(changed(folders, tmp_path, method, change))


@pytest.mark.parametrize("method", ["gptq", "awq", "packed", "int8", "fp8", "torchao"])
def test_floats_where_the_config_says_packed_are_named(tmp_path, method):
    folder = packed.write_packed(
        tmp_path / "model", METHODS[method][0], lambda _, weight: {"weight": weight}
    )
    assert "no weight is packed so" in fault(folder)


@pytest.mark.parametrize("method", METHODS)
def test_packed_weights_without_the_key_are_named(folders, tmp_path, method):
    folder = changed(folders, tmp_path, method, lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    message = fault(folder)
    assert "quantised weights" in message or "found I8" in message


def test_floats_between_packed_weights_get_the_same_form(folders, tmp_path):
    def change(tensors):
        for end in ("qweight", "qzeros", "scales", "g_idx"):
            del tensors[f"{MODULE}.{end}"]
        tensors[f"{MODULE}.weight"] = packed.floats()[f"{MODULE}.weight"].clone()

    checkpoint = open_checkpoint(changed(folders, tmp_path, "gptq", change))
    schemes = checkpoint.recipe.resolve(checkpoint.shapes).schemes
    assert schemes[f"{MODULE}.weight"].label == "int4 g32"
    assert checkpoint.tensor(f"{MODULE}.weight").dtype == torch.bfloat16


def test_scales_of_activations_are_passed_over_with_a_note(folders, tmp_path):
    def change(tensors):
        tensors[f"{MODULE}.input_scale"] = torch.ones(1)
        tensors["model.layers.0.self_attn.k_scale"] = torch.ones(1)

    checkpoint = open_checkpoint(changed(folders, tmp_path, "packed", change))
    assert any("2 scales of activations are not read" in note for note in checkpoint.notes)


def test_a_strange_tensor_of_a_module_is_named(folders, tmp_path):
    def change(tensors):
        tensors[f"{MODULE}.weight_sign"] = torch.ones(1)

    assert f"{MODULE}.weight_sign" in fault(changed(folders, tmp_path, "packed", change))


@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_biases_do_no_harm_while_they_are_zero(folders, tmp_path, bad):
    def change(tensors):
        tensors[f"{MODULE}.bias"] = torch.full((256,), bad)

    folder = changed(folders, tmp_path, "gptq", change)
    if bad:
        assert f"{MODULE}.bias is not zero" in fault(folder)
    else:
        assert open_checkpoint(folder).recipe is not None


# What contradicts itself.


def test_words_that_contradict_the_format_are_named(folders, tmp_path):
    folder = changed(folders, tmp_path, "gptq", lambda t: None, checkpoint_format="gptq_v2")
    message = fault(folder)
    assert "0x77777777, which is how gptq writes" in message
    assert "set checkpoint_format to gptq" in message


def test_an_order_beyond_the_groups_is_named(folders, tmp_path):
    def change(tensors):
        tensors[f"{MODULE}.g_idx"][3] = 4

    message = fault(changed(folders, tmp_path, "gptq", change))
    assert f"{MODULE}.g_idx names groups beyond 0 to 3" in message


def test_a_shape_that_differs_is_named(folders, tmp_path):
    def change(tensors):
        tensors[f"{MODULE}.weight_shape"] = torch.tensor([128, 256])

    message = fault(changed(folders, tmp_path, "packed", change))
    assert f"{MODULE}.weight_shape is [128, 256], expected [256, 128]" in message


def test_codes_out_of_range_are_named(folders, tmp_path):
    def change(tensors):
        tensors[f"{MODULE}._weight_qdata"][7, 9] = 8

    checkpoint = open_checkpoint(changed(folders, tmp_path, "torchao", change))
    with pytest.raises(CheckpointError, match=r"code 8 at \[7, 9\]: expected -8 to 7"):
        checkpoint.tensor(f"{MODULE}.weight")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"{", "cannot be read"),
        (b'{"quant_type": "fp4", "blocksize": 64, "dtype": "float16", "shape": [256, 128]}', "fit"),
        (b'{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [128, 256]}', "fit"),
        (b'{"quant_type": "nf4", "blocksize": 0, "dtype": "float16", "shape": [256, 128]}', "fit"),
        (b'{"quant_type": "nf4", "blocksize": 64, "dtype": "int8", "shape": [256, 128]}', "fit"),
    ],
)
def test_a_state_that_does_not_fit_is_named(folders, tmp_path, text, error):
    name = f"{MODULE}.weight.quant_state.bitsandbytes__nf4"

    def change(tensors):
        tensors[name] = torch.tensor(list(text), dtype=torch.uint8)

    message = fault(changed(folders, tmp_path, "nf4", change))
    assert name in message
    assert error in message


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "is not in the file's metadata"),
        ("[", "is not valid JSON"),
        (
            '{"_type": "Int4TilePackedTo4dTensor", "_data": {}}',
            "Int4TilePackedTo4dTensor of torchao",
        ),
        ('{"_type": "Int8Tensor", "_data": {"block_size": [3, 5]}}', "is packed in a way"),
    ],
)
def test_metadata_of_torchao_that_cannot_be_used_is_named(tmp_path, value, error):
    settings, pack, metadata = METHODS["torchao"]
    name = f"{MODULE}.weight"
    changed_metadata = {key: each for key, each in metadata.items() if key != name}
    if value is not None:
        changed_metadata[name] = value
    folder = packed.write_packed(
        tmp_path / "model", settings, lambda _, weight: pack(weight), metadata=changed_metadata
    )
    message = fault(folder)
    assert name in message
    assert error in message


def test_a_packed_head_of_a_tied_model_is_refused(folders, tmp_path):
    def change(tensors):
        grid = packed.rounded(packed.floats()["model.embed_tokens.weight"], 32)
        for end, value in packed.pack_quantized(grid).items():
            tensors[f"lm_head.{end}"] = value

    message = fault(changed(folders, tmp_path, "packed", change))
    assert "ties lm_head.weight to model.embed_tokens.weight" in message
    assert "set tie_word_embeddings to false" in message


def test_a_packed_head_is_dequantised_and_has_one_scale_a_row(tmp_path):
    settings, pack, _ = METHODS["packed"]
    config: LlamaConfig = UNTIED
    folder = packed.write_packed(tmp_path / "model", settings, lambda _, w: pack(w), config)
    tensors = load_file(folder / "model.safetensors")
    head = packed.rounded(tensors.pop("lm_head.weight"), 32)
    tensors |= {f"lm_head.{end}": value for end, value in packed.pack_quantized(head).items()}
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    schemes = checkpoint.recipe.resolve(checkpoint.shapes).schemes
    assert schemes["lm_head.weight"].label == "int8 row"
    assert torch.equal(checkpoint.tensor("lm_head.weight").whole(), head.weight)
    assert any("a table has one scale a row" in note for note in checkpoint.notes)


# What is not read, by name, before a weight is looked for.

UNREAD = [
    ({"quant_method": name}, f"weights of quant_method '{name}' are not read")
    for name in ("aqlm", "hqq", "quip", "eetq", "vptq", "quanto", "gguf", "mxfp4", "nvfp4", "higgs")
]
UNREAD += [
    ({"quant_method": "gptq", "bits": 3, "group_size": 32}, "bits is 3"),
    ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*": {"bits": 8}}}, "dynamic"),
    ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "'marlin' is not read"),
    ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv' is not read"),
    (compressed("nvfp4-pack-quantized"), "'nvfp4-pack-quantized' is not read"),
    (compressed("mxfp4-pack-quantized"), "'mxfp4-pack-quantized' is not read"),
    (compressed("pack-quantized", num_bits=3, group_size=32), "num_bits is 3"),
    (
        compressed("pack-quantized", group_size=32) | {"transform_config": {"config_groups": {}}},
        "transform_config",
    ),
    (
        compressed("pack-quantized", group_size=32)
        | {"sparsity_config": {"format": "sparse-24-bitmask"}},
        "'sparse-24-bitmask' is not read",
    ),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "'NVFP4' is not read"),
    ({"bits": 4, "group_size": 64}, "what MLX writes"),
]
WRONG = [
    ({"quant_method": 4}, "quant_method must be a string"),
    ({"bits": 4, "sym": True}, "quant_method is missing"),
    ({"quant_method": "gptq"}, "bits must be a whole number"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size must be"),
    ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size must be"),
    (
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        "config_groups is missing",
    ),
    (compressed("pack-quantized"), "contradict each other"),
    (compressed("float-quantized", num_bits=8, type="float", strategy="block"), "block_structure"),
]


@pytest.mark.parametrize(
    ("settings", "error", "kind"),
    [
        *((settings, error, UnsupportedModelError) for settings, error in UNREAD),
        *((settings, error, ConfigError) for settings, error in WRONG),
    ],
)
def test_what_is_not_read_is_named_by_the_config_alone(tmp_path, settings, error, kind):
    (tmp_path / "config.json").write_text(
        json.dumps(packed.ONE_LAYER.to_hf() | {"quantization_config": settings})
    )
    with pytest.raises(kind) as caught:
        find_format(tmp_path).read_config(tmp_path)
    assert error in caught.value.message
    assert caught.value.hint
