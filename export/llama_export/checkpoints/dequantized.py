"""A checkpoint of codes as floats, for a user who wants another form than the one that it came in.

Rows are dequantised while they are read. It knows no format of the checkpoint below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from llama_export.llama.config import LlamaConfig
    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor


@dataclass(frozen=True)
class DequantizedCheckpoint:
    """A checkpoint whose codes are read as the floats that they stand for.

    Args:
        base: checkpoint below.
    """

    base: Checkpoint

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.base.folder

    @property
    def config(self) -> LlamaConfig:
        """Shape of the model."""
        return self.base.config

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors in model order."""
        return self.base.names

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each of them."""
        return self.base.shapes

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that mean another tensor."""
        return self.base.tied

    @property
    def size_bytes(self) -> int:
        """Size of the tensors in the files."""
        return self.base.size_bytes

    @property
    def recipe(self) -> None:
        """Nothing: every tensor is floats."""

    @property
    def weights_folder(self) -> None:
        """Nothing: the tensors are in another form."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the checkpoint below says, and that its codes are not kept."""
        return (*self.base.notes, REQUANTIZED)

    def tensor(self, name: str) -> Tensor | LazyTensor:
        """Read a tensor; codes are dequantised row by row, in float32."""
        found = self.base.tensor(name)
        return _as_floats(found)

    def release(self) -> None:
        """Return mapped pages to the system."""
        self.base.release()


REQUANTIZED = "its codes are dequantised, and quantised again, because another form was asked for"


def _as_floats(found: Tensor | LazyTensor | QuantizedTensor) -> Tensor | LazyTensor:
    import torch

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor

    if not isinstance(found, QuantizedTensor):
        return found
    codes, scales, shape, scheme = found.codes, found.scales, found.shape, found.scheme

    def read(rows: slice | Tensor) -> Tensor:
        part = codes[rows], scales[rows]
        return QuantizedTensor(scheme, (len(part[0]), shape[1]), *part).dequantize()

    return LazyTensor(shape, torch.float32, codes[:1].nbytes + scales[:1].nbytes, read)
