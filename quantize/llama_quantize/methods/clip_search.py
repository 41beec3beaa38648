"""Search each scale for the least squared error of its group: some of the peak may be clipped.

The search tries few candidates: 19 scales over the range where the best one can lie, then a
least-squares refit given the winner's codes, then the two bf16 neighbours. A search of every bf16
scale gains 0.002 dB more on Gaussian weights and less on heavy tails (the tests ask for 0.01).

Layout and determinism: a chunk is held as `[group, n]` and sums over a group fold its lower half
onto the upper one, an elementwise addition each time. Every group is then added in one fixed order,
so codes do not depend on vector width, chunk, or threads (`torch.sum` depends on the first two).

It asks nothing of a weight's inputs.

Shapes: n groups in a chunk, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from llama_quantize.calibration import InputStatistics, Needs
from llama_quantize.groupwise import Workspace, quantize_in_chunks, require_range, storable
from llama_quantize.scheme import GroupedInt

_GRID = 18
_ROUNDING = 1e-6  # float32 sums of squares that differ by less are equal


class ClipSearch:
    """The method `clip_search`; see the module."""

    name = "clip_search"
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
    """Choose each scale for the least squared error of its group `[n, group]`."""
    shape = (groups.shape[1], groups.shape[0])
    weight = work.weight[: groups.numel()].view(shape)
    weight.copy_(groups.t())
    peak = torch.abs(weight, out=work.scaled[: groups.numel()].view(shape)).amax(0)
    require_range(peak, scheme)
    search = _Search(weight, scheme, work)
    best, noise = search.best_of(peak / _ratios(scheme, shape[0]).unsqueeze(1))
    best, noise = search.better(best, noise, search.refit(best).unsqueeze(0))
    best, _ = search.better(best, noise, _neighbours(best))
    scales.copy_(best)
    _, rounded = search.encode(best.reciprocal_())
    narrow = work.codes[: groups.numel()].view(shape).copy_(rounded)
    codes.copy_(narrow.t())


def _ratios(scheme: GroupedInt, group: int) -> Tensor:
    """Return peak/scale for each candidate; the first is plain rounding, so nothing is worse.

    The best ratio grows with the group, because the peak of more values lies further out. Bounds
    are about the 0.5 % and 99.5 % points of exhaustive searches on Gaussian and Student-t weights.
    """
    high = scheme.code_range[1]
    octaves = math.log2(max(group, 32) / 32)
    if scheme.bits == 4:
        lowest, highest = 5.9 + 0.5 * octaves, 9.0 + 0.75 * octaves
    else:
        lowest, highest = 104.0 + 5 * octaves, 128.0
    return torch.cat([torch.tensor([float(high)]), torch.linspace(lowest, highest, _GRID)])


def _neighbours(scales: Tensor) -> Tensor:
    """Return the bf16 values just below and just above each scale, `[2, n]`."""
    bits = scales.to(torch.bfloat16).view(torch.int16)
    return torch.stack([bits - 1, bits + 1]).view(torch.bfloat16).float()


def _folds(values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """List the halves of `[group, n]`, of its upper half, and so on, for `_folded`."""
    folds = []
    height = values.shape[0]
    while height > 1:
        half = height // 2
        folds.append((values[:half], values[height - half : height]))
        height -= half
    return folds or [(values, torch.zeros_like(values))]


def _folded(folds: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Add up the rows in place; the sum `[n]` is left in the first row."""
    for upper, lower in folds:
        upper.add_(lower)
    return folds[-1][0][0]


class _Search:
    """Squared errors of candidate scales for the columns of one chunk `[group, n]`."""

    def __init__(self, weight: Tensor, scheme: GroupedInt, work: Workspace) -> None:
        self.weight = weight
        self.low, self.high = scheme.code_range
        self.scaled = work.scaled[: weight.numel()].view(weight.shape)
        self.rounded = work.rounded[: weight.numel()].view(weight.shape)
        self.scaled_folds = _folds(self.scaled)
        self.rounded_folds = _folds(self.rounded)

    def encode(self, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight/scale and its codes, both float32 `[group, n]` in shared buffers."""
        torch.mul(self.weight, inverse, out=self.scaled)
        torch.round(self.scaled, out=self.rounded)
        return self.scaled, self.rounded.clamp_(self.low, self.high)

    def noise(self, scales: Tensor) -> Tensor:
        """Sum the squared errors of each group under each of `scales [C, n]`."""
        noise = torch.empty_like(scales)
        for inverse, row in zip(scales.reciprocal(), noise, strict=True):
            scaled, rounded = self.encode(inverse)
            scaled.sub_(rounded)
            scaled.mul_(scaled)
            row.copy_(_folded(self.scaled_folds))
        return noise.mul_(scales).mul_(scales)

    def best_of(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best scale of `[C, n]` per group, and its squared error; ties: the largest."""
        scales = storable(candidates)
        noise = self.noise(scales)
        least = noise.amin(0)
        return scales.masked_fill_(noise > least, 0.0).amax(0), least

    def better(self, best: Tensor, noise: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Replace a scale where one of `candidates [C, n]` has an error smaller beyond rounding."""
        challenger, challenger_noise = self.best_of(candidates)
        wins = challenger_noise < noise * (1 - _ROUNDING)
        return torch.where(wins, challenger, best), torch.where(wins, challenger_noise, noise)

    def refit(self, scales: Tensor) -> Tensor:
        """Return the least-squares scale for the codes that `scales [n]` lead to."""
        scaled, rounded = self.encode(scales.reciprocal())
        scaled.mul_(rounded)
        rounded.mul_(rounded)
        projection, energy = _folded(self.scaled_folds), _folded(self.rounded_folds)
        return torch.where(energy > 0, scales * projection / energy, scales)
