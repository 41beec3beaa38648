"""Each method of packing: codes that are kept are the file's, and floats the program's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from artifacts import packed_weights as packed
from artifacts.tiny import TINY
from safetensors.torch import load_file

from llama_export.checkpoints.formats import open_checkpoint
from llama_export.checkpoints.packed import checkpoint as packed_checkpoint
from llama_export.checkpoints.packed import packing
from llama_export.checkpoints.packed.checkpoint import PackedCheckpoint
from llama_quantize.checkpoint import store
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.lazy import LazyTensor
from llama_quantize.recipe import recipe
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import QuantizedTensor

QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
ROWS = TINY.num_attention_heads * TINY.head_dim, TINY.hidden_size


def gptq_settings(group, version=1, **keys):
    kind = {"checkpoint_format": "gptq_v2"} if version == 2 else {}
    return {"quant_method": "gptq", "bits": 4, "group_size": group, **kind, **keys}


def opened(tmp_path, settings, pack, **rest) -> PackedCheckpoint:
    found = open_checkpoint(packed.write_packed(tmp_path / "model", settings, pack, **rest))
    assert isinstance(found, PackedCheckpoint)
    return found


def source(name):
    return packed.floats()[name]


def require_kept(checkpoint, grid, name=QUERY, scheme=None, offset=8):
    tensor = checkpoint.tensor(name)
    assert isinstance(tensor, QuantizedTensor)
    assert scheme in (None, tensor.scheme)
    assert torch.equal(tensor.unpacked().int(), grid.codes - offset)
    assert torch.equal(tensor.scales, grid.scales.to(torch.bfloat16).reshape(tensor.scales.shape))


def require_floats(checkpoint, weight, name=QUERY):
    tensor = checkpoint.tensor(name)
    assert isinstance(tensor, LazyTensor)
    assert tensor.dtype == weight.dtype
    assert torch.equal(tensor.whole(), weight)
    rows = torch.tensor([5, 2, 5, 127])
    assert torch.equal(tensor[rows], weight[rows])
    assert torch.equal(tensor[3:9], weight[3:9])


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("version", [1, 2])
def test_gptq_keeps_symmetric_codes(tmp_path, group, version):
    def pack(module, weight):
        return packed.gptq(packed.rounded(weight, group), version=version)

    # The flags are not believed: act-order is what g_idx says.
    checkpoint = opened(tmp_path, gptq_settings(group, version, desc_act=True, sym=False), pack)
    require_kept(checkpoint, packed.rounded(source(QUERY), group), scheme=GroupedInt(4, group))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["asymmetric", "act-order", "both", "8 bits"])
def test_gptq_of_other_forms_is_read_as_floats(tmp_path, kind, version):
    bits = 8 if kind == "8 bits" else 4

    def grid(weight):
        order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1))
        return packed.rounded(
            weight,
            64,
            bits=bits,
            symmetric=kind not in ("asymmetric", "both"),
            order=order if kind in ("act-order", "both") else None,
        )

    def pack(module, weight):
        return packed.gptq(grid(weight), version=version, bits=bits)

    checkpoint = opened(tmp_path, gptq_settings(64, version, bits=bits), pack)
    assert checkpoint.recipe is None
    require_floats(checkpoint, grid(source(QUERY)).weight)
    require_floats(checkpoint, grid(source(DOWN)).weight, DOWN)


def test_awq_is_read_as_floats(tmp_path):
    def grid(weight):
        return packed.rounded(weight, 64, symmetric=False)

    settings = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}
    checkpoint = opened(tmp_path, settings, lambda module, weight: packed.awq(grid(weight)))
    assert checkpoint.recipe is None
    require_floats(checkpoint, grid(source(QUERY)).weight)


def ct_settings(kind, **weights):
    given = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"} | weights
    groups = {"group_0": {"targets": ["Linear"], "weights": given, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


@pytest.mark.parametrize("group", [32, 64, 128])
def test_packed_codes_of_compressed_tensors_are_kept(tmp_path, group):
    def grid(weight):
        return packed.rounded(weight, group, dtype=torch.bfloat16)

    settings = ct_settings("pack-quantized", group_size=group)
    checkpoint = opened(
        tmp_path, settings, lambda module, weight: packed.pack_quantized(grid(weight))
    )
    require_kept(checkpoint, grid(source(QUERY)), scheme=GroupedInt(4, group))
    require_kept(checkpoint, grid(source(DOWN)), DOWN)


def test_int8_rows_of_compressed_tensors_are_kept(tmp_path):
    def grid(weight):
        return packed.rounded(weight, weight.shape[1], bits=8)

    settings = ct_settings("int-quantized", num_bits=8, strategy="channel")
    checkpoint = opened(
        tmp_path, settings, lambda module, weight: packed.int_quantized(grid(weight))
    )
    require_kept(checkpoint, grid(source(QUERY)), scheme=GroupedInt(8, None), offset=128)


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_of_compressed_tensors_are_read_as_floats(tmp_path, bits):
    def grid(weight):
        return packed.rounded(weight, 64, bits=bits, symmetric=False)

    settings = ct_settings("pack-quantized", group_size=64, num_bits=bits, symmetric=False)
    checkpoint = opened(
        tmp_path,
        settings,
        lambda module, weight: packed.pack_quantized(grid(weight), bits=bits, symmetric=False),
    )
    require_floats(checkpoint, grid(source(QUERY)).weight)


FP8_KINDS = {
    "fbgemm": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, None, "weight_scale"),
    "blocks": (
        {"quant_method": "fp8", "weight_block_size": [64, 32]},
        (64, 32),
        "weight_scale_inv",
    ),
    "vllm": ({"quant_method": "fp8", "activation_scheme": "static"}, None, "weight_scale"),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, None, "weight_scale"),
    "channel": (
        ct_settings("float-quantized", num_bits=8, type="float", strategy="channel"),
        None,
        "weight_scale",
    ),
}


@pytest.mark.parametrize("kind", FP8_KINDS)
def test_fp8_is_read_as_floats(tmp_path, kind):
    settings, block, name = FP8_KINDS[kind]

    def pack(module, weight):
        return packed.fp8(weight, block, name, torch.float32)

    checkpoint = opened(tmp_path, settings, pack)
    found = pack("", source(QUERY))
    height, width = block or (1, ROWS[1])
    scales = found[name].repeat_interleave(height, 0).repeat_interleave(width, 1)
    expected = found["weight"].float() * scales
    dtype = torch.float32 if kind == "channel" else torch.bfloat16
    require_floats(checkpoint, expected.to(dtype))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("block", [64, 256])
def test_nf4_is_read_as_floats(tmp_path, nested, block):
    def pack(module, weight):
        return packed.nf4(weight, block, nested=nested)

    checkpoint = opened(tmp_path, {"quant_method": "bitsandbytes", "load_in_4bit": True}, pack)
    found = pack("", source(QUERY))
    octets = found["weight"].flatten()
    codes = torch.stack((octets >> 4, octets & 15), 1).flatten().long()
    absmax = found["weight.absmax"]
    if nested:
        levels = found["weight.nested_quant_map"][absmax.long()]
        top = found["weight.nested_absmax"].repeat_interleave(16)
        state = bytes(found["weight.quant_state.bitsandbytes__nf4"].tolist())
        absmax = levels * top + json.loads(state)["nested_offset"]
    values = packed.NF4[codes] * absmax.repeat_interleave(block)
    require_floats(checkpoint, values.view(ROWS).to(torch.bfloat16))


def test_int8_of_bitsandbytes_is_kept(tmp_path):
    def pack(module, weight):
        top = weight.float().abs().amax(1)
        codes = (weight.float() * 127 / top.unsqueeze(1)).round().to(torch.int8)
        return {"weight": codes, "SCB": top, "weight_format": torch.tensor(0, dtype=torch.uint8)}

    checkpoint = opened(tmp_path, {"quant_method": "bitsandbytes", "load_in_8bit": True}, pack)
    found, tensor = pack("", source(QUERY)), checkpoint.tensor(QUERY)
    assert tensor.scheme == GroupedInt(8, None)
    assert torch.equal(tensor.codes, found["weight"])
    assert torch.equal(tensor.scales[:, 0], (found["SCB"] * (1 / 127)).to(torch.bfloat16))


def test_floats_of_bitsandbytes_are_floats(tmp_path):
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    checkpoint = opened(tmp_path, settings, lambda module, weight: {"weight": weight})
    assert checkpoint.recipe is None
    assert torch.equal(checkpoint.tensor(QUERY), source(QUERY))


@pytest.mark.parametrize("bits", [4, 8])
def test_open_codes_of_torchao_are_kept(tmp_path, bits):
    group = 32 if bits == 4 else TINY.hidden_size

    def grid(weight):
        return packed.rounded(weight, group, bits=bits, dtype=torch.bfloat16)

    names = [name for name in packed.floats() if "_proj." in name]
    checkpoint = opened(
        tmp_path,
        {"quant_method": "torchao"},
        lambda module, weight: packed.torchao(grid(weight), bits=bits),
        metadata=packed.torchao_metadata(names, [1, group], bits),
    )
    scheme = GroupedInt(4, 32) if bits == 4 else GroupedInt(8, None)
    require_kept(checkpoint, grid(source(QUERY)), scheme=scheme, offset=2 ** (bits - 1))


# How it is read.


def packed_gptq(tmp_path, dtype=torch.float16):
    def pack(module, weight):
        return packed.gptq(packed.rounded(weight, 32, dtype=dtype))

    return packed.write_packed(tmp_path / "model", gptq_settings(32), pack)


def test_the_note_says_what_was_done_to_the_scales(tmp_path):
    found = [open_checkpoint(packed_gptq(tmp_path / "half")).notes]
    found.append(open_checkpoint(packed_gptq(tmp_path / "bf16", torch.bfloat16)).notes)
    expected = "GPTQ: the codes of 7 weights are kept as they are, int4 g32; "
    scales = packed.rounded(source(QUERY), 32).scales.float()
    noise = (scales - scales.to(torch.bfloat16).float()).norm() / scales.norm()
    ratio_db = -20 * math.log10(float(noise))
    rounded = f"their scales are rounded from F16 to bfloat16, {ratio_db:.0f} dB below the weights"
    assert found == [(expected + rounded,), (expected + "so are their scales",)]


def test_it_is_opened_without_torch(tmp_path):
    folder = packed_gptq(tmp_path)
    code = (
        "import sys; from pathlib import Path;"
        "from llama_export.checkpoints.formats import open_checkpoint;"
        f"found = open_checkpoint(Path({str(folder)!r})); assert found.recipe and found.notes;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pickled_files_and_bare_names_are_read_too(tmp_path):
    folder = packed_gptq(tmp_path)
    expected = open_checkpoint(folder).tensor(QUERY)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    bare = {name.removeprefix("model."): value for name, value in tensors.items()}
    torch.save(bare, folder / "pytorch_model.bin")
    found = open_checkpoint(folder).tensor(QUERY)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)


def test_one_block_of_rows_is_read_at_a_time(tmp_path, monkeypatch):
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32}
    checkpoint = opened(
        tmp_path,
        settings,
        lambda module, weight: packed.awq(packed.rounded(weight, 32, symmetric=False)),
    )
    asked = []
    monkeypatch.setattr(store, "BLOCK_WEIGHTS", 64 * TINY.hidden_size)
    compute = packing.dequantise

    def counted(how, read, rows):
        asked.append(rows)
        return compute(how, read, rows)

    monkeypatch.setattr(packed_checkpoint, "dequantise", counted)
    quantize_to(tmp_path / "weights", checkpoint, recipe("int4"))
    assert max(each.stop - each.start for each in asked) == 64
