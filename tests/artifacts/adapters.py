"""Tiny LoRA adapters in peft's layout, written by hand, and the weights that they should give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE, expected_shapes

PREFIX = "base_model.model."
LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


def modules_of(config: LlamaConfig, linears: tuple[str, ...] = LINEARS) -> list[str]:
    """List linear layers of every block."""
    layers = range(config.num_hidden_layers)
    return [f"model.layers.{layer}.{linear}" for layer in layers for linear in linears]


def low_rank(config: LlamaConfig, modules: list[str], rank: int = 4, seed: int = 0) -> dict:
    """Return A and B of some modules by peft's names; B is not zero, as it is before a training."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {**expected_shapes(config), HEAD: (config.vocab_size, config.hidden_size)}
    found = {}
    for module in modules:
        rows, columns = shapes[f"{module}.weight"]
        a, b = (rank, columns), (rows, rank)
        names = "lora_A.weight", "lora_B.weight"
        if f"{module}.weight" == TABLE:
            a, b, names = (rank, rows), (columns, rank), ("lora_embedding_A", "lora_embedding_B")
        for name, shape in zip(names, (a, b), strict=True):
            value = torch.randn(shape, generator=generator) * 0.1
            found[f"{PREFIX}{module}.{name}"] = value
    return found


def write_adapter(
    folder: Path, tensors: Mapping[str, Tensor], base: Path | str | None = None, **keys: object
) -> Path:
    """Write adapter_config.json and adapter_model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"}
    config |= {"r": 4, "lora_alpha": 8, **keys}
    config.setdefault("base_model_name_or_path", None if base is None else str(base))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def merged(weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor], scale: float) -> dict:
    """Return W + s B A of every weight that has one."""
    found = dict(weights)
    for key, a in tensors.items():
        if key.endswith("lora_A.weight"):
            name = key.removeprefix(PREFIX).replace("lora_A.weight", "weight")
            found[name] = found[name] + scale * (tensors[key.replace("lora_A", "lora_B")] @ a)
        elif key.endswith("lora_embedding_A"):
            b = tensors[key.replace("lora_embedding_A", "lora_embedding_B")]
            found[TABLE] = found[TABLE] + scale * (b @ a).T
    return found
