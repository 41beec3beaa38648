"""A checkpoint of codes as floats, for a user who wants another form than the one that it came in.

Rows are dequantised while they are read. It knows no format of the checkpoint below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.laid_over import LaidOver

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor

REQUANTIZED = (
    "its codes are not kept, because another form was asked for: they are dequantised, with their "
    "scales as bfloat16"
)


@dataclass(frozen=True)
class DequantizedCheckpoint(LaidOver):
    """A checkpoint whose codes are read as the floats that they stand for."""

    @classmethod
    def of(cls, base: Checkpoint) -> DequantizedCheckpoint:
        """Lay floats over a checkpoint.

        Args:
            base: checkpoint with codes that would be kept.
        """
        return cls(base.config, base.shapes, base)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is still true of the checkpoint below, and that its codes are not kept."""
        given_up = self.base.kept_notes
        return (*(note for note in self.base.notes if note not in given_up), REQUANTIZED)

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """Nothing: no code is kept."""
        return ()

    def tensor(self, name: str) -> Tensor | LazyTensor:
        """Read a tensor; codes are dequantised row by row, in float32.

        Raises:
            CheckpointError: there is no tensor of that name, or the files are damaged.
        """
        self.require(name, self.folder)
        return _as_floats(self.base.tensor(name))


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
