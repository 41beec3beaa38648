"""Round to nearest: each scale follows from the largest magnitude of its group.

It is the yardstick that every other method is measured against. It asks nothing of a weight's
inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from llama_quantize.calibration import InputStatistics, Needs
from llama_quantize.groupwise import Workspace, quantize_in_chunks, require_range, storable
from llama_quantize.scheme import GroupedInt


class Nearest:
    """The method `nearest`; see the module."""

    name = "nearest"
    needs = Needs.NOTHING
    settings: Mapping[str, str] = MappingProxyType({})

    def quantize(
        self, weight: Tensor, scheme: GroupedInt, inputs: InputStatistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantise a matrix `[N, K]`, as `Method.quantize` says."""
        return quantize_in_chunks(weight, scheme, _quantize_chunk)


def _quantize_chunk(
    groups: Tensor, scheme: GroupedInt, work: Workspace, codes: Tensor, scales: Tensor
) -> None:
    """Take each scale from the peak of its group `[n, group]`: no sums, so no layout to mind."""
    low, high = scheme.code_range
    scaled = work.scaled[: groups.numel()].view(groups.shape)
    rounded = work.rounded[: groups.numel()].view(groups.shape)
    scaled.copy_(groups)
    peak = torch.abs(scaled, out=rounded).amax(1)
    require_range(peak, scheme)
    best = storable(peak / high)
    scales.copy_(best)
    codes.copy_(scaled.mul_(best.reciprocal_().unsqueeze(1)).round_().clamp_(low, high))
