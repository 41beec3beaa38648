"""Weights packed as other programs pack them, by a plain inverse of what the reader does.

Each function takes a matrix `[N, K]` and returns the tensors of a module by the ends of their
names. Whether real programs write the same was tried once; see the README in
`tests/checkpoints/fixtures`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from artifacts.tiny import TINY, random_llama, write_byte_vocabulary
from safetensors.torch import save_file
from torch import Tensor

from llama_export.llama.config import LlamaConfig

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PLAIN_ORDER = tuple(range(8))
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Rounded:
    """A matrix rounded to a grid: `(codes - zeros) * scales`.

    Args:
        codes: whole numbers from 0 up, int32 `[N, K]`.
        scales: floats `[N, G]`.
        zeros: whole numbers from 0 up, int32 `[N, G]`.
        groups: group of each column, int64 `[K]`.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    groups: Tensor

    @property
    def weight(self) -> Tensor:
        """The numbers that it stands for, in the type of the scales."""
        whole = (self.codes - self.zeros[:, self.groups]).float()
        return (whole * self.scales.float()[:, self.groups]).to(self.scales.dtype)


def rounded(
    weight: Tensor,
    group: int,
    *,
    bits: int = 4,
    symmetric: bool = True,
    order: Tensor | None = None,
    dtype: torch.dtype = torch.float16,
) -> Rounded:
    """Round a matrix to nearest; `order` is a permutation by which columns fall into groups."""
    columns = weight.shape[1]
    groups = torch.arange(columns) // group
    if order is not None:
        groups = groups[torch.argsort(order)]
    top, count = 2**bits - 1, columns // group
    members = [weight[:, groups == g].float() for g in range(count)]
    if symmetric:
        spans = torch.stack([each.abs().amax(1) * 2 / top for each in members], 1)
        zeros = torch.full(spans.shape, 2 ** (bits - 1))
    else:
        lows = torch.stack([each.amin(1).clamp(max=0) for each in members], 1)
        spans = torch.stack([each.amax(1).clamp(min=0) for each in members], 1).sub(lows) / top
        zeros = (-lows / spans.clamp(min=1e-8)).round().clamp(0, top)
    scales = spans.clamp(min=2.0**-14).to(dtype)
    zeros = zeros.to(torch.int32)
    codes = (weight.float() / scales.float()[:, groups]).round() + zeros[:, groups]
    return Rounded(codes.clamp(0, top).to(torch.int32), scales, zeros, groups)


def words(values: Tensor, bits: int = 4, order: tuple[int, ...] = PLAIN_ORDER) -> Tensor:
    """Pack whole numbers `[R, C]` along the rows into int32 `[R, C * bits / 32]`.

    Args:
        values: whole numbers from 0 up.
        bits: width of each.
        order: column of a word that stands in each place of it, from the lowest bits.
    """
    per = 32 // bits
    grouped = values.to(torch.int64).unflatten(1, (-1, per))
    packed = sum(grouped[:, :, order[place]] << (bits * place) for place in range(per))
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def gptq(grid: Rounded, *, bits: int = 4, version: int = 1) -> Tensors:
    """Pack as GPTQ does: codes along the columns, zeros along the rows, less one in version 1."""
    zeros = words(grid.zeros.t(), bits).to(torch.int64)
    if version == 1:
        zeros = zeros - {4: 0x11111111, 8: 0x01010101}[bits]
    zeros = (zeros + 2**31) % 2**32 - 2**31
    return {
        "qweight": words(grid.codes, bits).t().contiguous(),
        "qzeros": zeros.to(torch.int32),
        "scales": grid.scales.t().contiguous(),
        "g_idx": grid.groups.to(torch.int32),
    }


def awq(grid: Rounded, order: tuple[int, ...] = AWQ_ORDER) -> Tensors:
    """Pack as AutoAWQ's `gemm` does: codes and zeros along the rows, in an order of its own."""
    return {
        "qweight": words(grid.codes.t().contiguous(), order=order),
        "qzeros": words(grid.zeros.t().contiguous(), order=order),
        "scales": grid.scales.t().contiguous(),
    }


def pack_quantized(grid: Rounded, *, bits: int = 4, symmetric: bool = True) -> Tensors:
    """Pack as compressed-tensors does: codes along the columns, zeros along the rows."""
    found = {
        "weight_packed": words(grid.codes, bits),
        "weight_scale": grid.scales,
        "weight_shape": torch.tensor(grid.codes.shape),
    }
    if not symmetric:
        found["weight_zero_point"] = words(grid.zeros.t().contiguous(), bits).t().contiguous()
    return found


def int_quantized(grid: Rounded, *, bits: int = 8) -> Tensors:
    """Store codes a byte each, as compressed-tensors' `int-quantized`."""
    codes = (grid.codes - 2 ** (bits - 1)).to(torch.int8)
    return {"weight": codes, "weight_scale": grid.scales}


def fp8(
    weight: Tensor, block: tuple[int, int] | None, scale_name: str, dtype: torch.dtype
) -> Tensors:
    """Store floats of 8 bits with a scale a block; None: one a row."""
    height, width = block or (1, weight.shape[1])
    tiles = weight.float().unflatten(1, (-1, width)).unflatten(0, (-1, height))
    scales = (tiles.abs().amax((1, 3)) / 448).clamp(min=1e-6).to(dtype)
    stretched = scales.float().repeat_interleave(height, 0).repeat_interleave(width, 1)
    codes = (weight.float() / stretched).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": codes, scale_name: scales}


_BELOW = (-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004)
_ABOVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
NF4 = torch.tensor((*_BELOW, 0.0, *_ABOVE))


def nf4(weight: Tensor, block: int = 64, *, nested: bool = False) -> Tensors:
    """Pack as bitsandbytes does: blocks of the flat weight, the first code in the high nibble."""
    flat = weight.float().flatten().unflatten(0, (-1, block))
    absmax = flat.abs().amax(1)
    state: dict[str, object] = {
        **{"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16"},
        "shape": list(weight.shape),
    }
    found: Tensors = {"weight.quant_map": NF4}
    if nested:
        offset = float(absmax.mean())
        top = (absmax - offset).unflatten(0, (-1, 16)).abs().amax(1)
        levels = torch.linspace(-1, 1, 256)
        ratio = (absmax - offset) / top.repeat_interleave(16)
        index = (ratio.unsqueeze(1) - levels).abs().argmin(1).to(torch.uint8)
        state |= {"nested_blocksize": 16, "nested_dtype": "float32", "nested_offset": offset}
        found |= {"weight.absmax": index, "weight.nested_absmax": top}
        found["weight.nested_quant_map"] = levels
        absmax = levels[index.long()] * top.repeat_interleave(16) + offset
    else:
        found["weight.absmax"] = absmax
    codes = (flat / absmax.unsqueeze(1)).unsqueeze(2).sub(NF4).abs().argmin(2)
    pairs = codes.flatten().unflatten(0, (-1, 2))
    found["weight"] = (pairs[:, 0] << 4 | pairs[:, 1]).to(torch.uint8).unsqueeze(1)
    raw = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return found | {"weight.quant_state.bitsandbytes__nf4": raw}


def torchao(grid: Rounded, *, bits: int = 4) -> Tensors:
    """Store codes a byte each, as torchao's IntxUnpackedToInt8Tensor."""
    return {
        "_weight_qdata": (grid.codes - 2 ** (bits - 1)).to(torch.int8),
        "_weight_scale": grid.scales,
        "_weight_zero_point": (grid.zeros - 2 ** (bits - 1)).to(torch.int8),
    }


def torchao_metadata(names: Iterable[str], block: list[int], bits: int = 4) -> dict[str, str]:
    """Describe such weights as torchao does in a file's header."""
    data = {
        "block_size": block,
        "target_dtype": {"_type": "torch.dtype", "_data": f"int{bits}"},
        "dtype": {"_type": "torch.dtype", "_data": "bfloat16"},
        "activation_quantization": None,
    }
    kind = {"_type": "IntxUnpackedToInt8Tensor", "_data": data}
    return {name: json.dumps(kind | {"_tensor_data_names": []}) for name in names}


Pack = Callable[[str, Tensor], Tensors]

ONE_LAYER = replace(TINY, num_hidden_layers=1)


@cache
def floats(config: LlamaConfig = ONE_LAYER) -> Tensors:
    """Return the weights before they are packed, bfloat16."""
    return random_llama(config).to(torch.bfloat16).state_dict()


def write_packed(
    folder: Path,
    settings: Mapping[str, object] | None,
    pack: Pack,
    config: LlamaConfig = ONE_LAYER,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a checkpoint whose linears are what `pack` returns for their modules' names."""
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(floats(config))
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    tensors: Tensors = {}
    for name, value in state.items():
        if "_proj." not in name:
            tensors[name] = value
            continue
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.{end}": each for end, each in pack(module, value).items()}
    tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata=dict(metadata or {}) or None)
    keys = config.to_hf() | ({} if settings is None else {"quantization_config": dict(settings)})
    (folder / "config.json").write_text(json.dumps(keys))
    write_byte_vocabulary(folder / "tokenizer.model")
    return folder
