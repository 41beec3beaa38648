"""A source of tensors that are in memory, floats or quantised."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from llama_quantize import QuantizedTensor


class FakeSource:
    """Tensors by name, in model order; `read` gives them where they should not be held.

    `shapes` may say something else than the tensors are.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor | QuantizedTensor],
        tied: Mapping[str, str] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        read: Callable[[str], torch.Tensor | QuantizedTensor] | None = None,
    ) -> None:
        self.shapes = shapes or {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.names = tuple(self.shapes)
        self.tensors, self.tied = tensors, tied or {}
        self._read = read or tensors.__getitem__
        self.asked: list[str] = []

    def tensor(self, name: str) -> torch.Tensor | QuantizedTensor:
        self.asked.append(name)
        return self._read(name)
