"""Checkpoints as Meta's SpinQuant and QLoRA write them: int8 codes, float32 scales, side branches.

Meta publishes no writer. Every linear of the blocks has codes -8..7 in groups, both tables are int8
with a scale a row, and the norms are floats; codes are chosen in the order of Meta's rows.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from artifacts.meta_layout import meta_params, meta_state, write_meta
from artifacts.tiny import UNTIED, random_llama, write_byte_vocabulary
from torch import Tensor

from llama_export.llama.config import LlamaConfig

CONFIG = replace(UNTIED, max_position_embeddings=131072)
SCHEME = "int4_weight_int8_dynamic_activation"
_LINEAR = re.compile(r"layers\.\d+\.(attention|feed_forward)\.w\w\.weight")


def quantised(state: dict[str, Tensor], group: int = 32) -> dict[str, Tensor]:
    """Replace weights by codes and scales."""
    found = {}
    for name, weight in state.items():
        if _LINEAR.fullmatch(name):
            groups = weight.float().unflatten(1, (-1, group))
            scales = groups.abs().amax(2) / 7
            codes = (groups / scales.unsqueeze(2)).round().clamp(-8, 7).flatten(1)
        elif name in ("tok_embeddings.weight", "output.weight"):
            scales = weight.float().abs().amax(1, keepdim=True) / 127
            codes = (weight.float() / scales).round()
        else:
            found[name] = weight
            continue
        found[name] = codes.to(torch.int8)
        found[name.replace(".weight", ".scales")] = scales
    return found


def side_branches(config: LlamaConfig, rank: int = 16, seed: int = 5) -> dict[str, Tensor]:
    """Make side branches for every linear of the blocks, in Meta's order of rows."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in meta_state(random_llama(config).state_dict(), config).items():
        if _LINEAR.fullmatch(name):
            stem = name.removesuffix(".weight")
            for part, shape in (("A", (rank, weight.shape[1])), ("B", (weight.shape[0], rank))):
                values = torch.randn(shape, generator=generator) * 0.05
                found[f"{stem}.adaptor.{part}.weight"] = values.to(torch.bfloat16)
    return found


def int4_state(config: LlamaConfig = CONFIG, group: int = 32) -> dict[str, Tensor]:
    """Return a random model's tensors, quantised."""
    weights = random_llama(config).to(torch.bfloat16).state_dict()
    return quantised(meta_state(weights, config), group)


def int4_params(
    config: LlamaConfig = CONFIG, group: int = 32, *, spinquant: bool = True, rank: int = 0
) -> dict[str, object]:
    """Return the keys of params.json."""
    args = {"scheme": SCHEME, "group_size": group}
    params = meta_params(
        config, quantization_args=args | ({"spinquant": True} if spinquant else {})
    )
    return params | ({"lora_args": {"rank": rank, "scale": 2.0}} if rank else {})


def write_spinquant(folder: Path, config: LlamaConfig = CONFIG, shards: int = 1) -> Path:
    """Write a checkpoint whose input of w2 is rotated."""
    return _write(folder, int4_state(config), int4_params(config), shards)


def write_qlora(folder: Path, config: LlamaConfig = CONFIG, shards: int = 1) -> Path:
    """Write a checkpoint with side branches of rank 16."""
    state = int4_state(config) | side_branches(config)
    return _write(folder, state, int4_params(config, spinquant=False, rank=16), shards)


def _write(folder: Path, state: dict, params: dict, shards: int) -> Path:
    folder.mkdir(parents=True)
    vocabulary = folder / "bytes"
    write_byte_vocabulary(vocabulary)
    return write_meta(folder, state, params, vocabulary, shards)
