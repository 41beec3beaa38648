"""A checkpoint whose tensors are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from fakes.source import FakeSource

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import expected_shapes, tied_names


class FakeCheckpoint(FakeSource):
    """Tensors of a model by Hugging Face's names; random bf16 values where none are given."""

    recipe = weights_folder = None
    notes = kept_notes = ()
    folder = Path("fake")

    def __init__(
        self, config: LlamaConfig, tensors: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        self.config = config
        tensors = random_tensors(config) if tensors is None else tensors
        super().__init__(tensors, tied_names(config))
        self.size_bytes = sum(tensor.nbytes for tensor in tensors.values())

    def release(self) -> None:
        """Keep everything."""


def random_tensors(config: LlamaConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return bf16 values as float32: matrices of deviation 0.1, and norms about 1."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in expected_shapes(config).items():
        values = torch.randn(shape, generator=generator) * 0.1
        is_norm = name.endswith("norm.weight")
        found[name] = ((values + 1) if is_norm else values).to(torch.bfloat16).float()
    return found
