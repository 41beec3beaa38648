"""Choose codes and scales: the arithmetic of group-wise quantisation, and nothing else.

Symmetric, no zero point. A scale is a positive bf16 value in [2**-17, 65280], hence exact in bf16,
fp16 and fp32; every error is measured with that rounded scale. This module knows no names, no
files and no packing.

The scale search tries few candidates: 19 scales over the range where the best one can lie, then a
least-squares refit given the winner's codes, then the two bf16 neighbours. A search of every bf16
scale gains 0.002 dB more on Gaussian weights and less on heavy tails (the tests ask for 0.01).

Layout and determinism: a chunk is held as `[group, n]` and sums over a group fold its lower half
onto the upper one, an elementwise addition each time. Every group is then added in one fixed order,
so codes do not depend on vector width, chunk, or threads (`torch.sum` depends on the first two).

Shapes: N rows, K columns, G groups in a row, n groups in a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from llama_quantize.errors import QuantizationError
from llama_quantize.scheme import GroupedInt
from llama_quantize.workers import worker_pool

MIN_SCALE = 2.0**-17
MAX_SCALE = 65280.0  # the largest bf16 value that fp16 also holds
CHUNK_WEIGHTS = 3 << 15  # three float32 buffers of it about fill a 1 MB L2 cache
BLOCK_WEIGHTS = 1 << 20  # what one thread takes at a time
_GRID = 18
_ROUNDING = 1e-6  # float32 sums of squares that differ by less are equal
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def row_blocks(rows: int, columns: int, weights: int) -> Iterator[slice]:
    """Split `rows` into slices of at most `weights` weights each, one row at least."""
    step = max(1, weights // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def quantize_groups(weight: Tensor, scheme: GroupedInt) -> tuple[Tensor, Tensor]:
    """Quantise a matrix group by group, rows in parallel on the threads that torch may use.

    Args:
        weight: float32, bfloat16 or float16 `[N, K]`.
        scheme: bits, group size, and whether to search the scales.

    Returns:
        Codes int8 `[N, K]` and scales bfloat16 `[N, G]`.

    Raises:
        QuantizationError: not a float matrix, a group that does not divide K, a value that is NaN
            or infinite (its row and column are named) or too large for a scale.
    """
    if weight.ndim != 2 or weight.dtype not in _FLOATS:
        message = f"cannot quantise {weight.dtype} {list(weight.shape)}: expected a float matrix"
        raise QuantizationError(message)
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, scheme.groups(columns), dtype=torch.bfloat16)

    def block(part: slice) -> None:
        try:
            _quantize_block(weight[part], scheme, codes[part], scales[part])
        except QuantizationError:
            # Locate the value in the whole matrix, not in the block.
            check_range(weight, scheme)
            raise

    parts = list(row_blocks(rows, columns, BLOCK_WEIGHTS))
    if len(parts) == 1:
        block(parts[0])
    else:
        with worker_pool() as pool:
            list(pool.map(block, parts))
    return codes, scales


def dequantize_groups(codes: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Multiply int8 codes `[N, K]` by their scales `[N, G]`; exact in float32.

    Raises:
        QuantizationError: the shapes do not belong together.
    """
    fits = codes.ndim == scales.ndim == 2 and codes.shape[0] == scales.shape[0]
    if not fits or not scales.shape[1] or codes.shape[1] % scales.shape[1]:
        message = f"codes {list(codes.shape)} and scales {list(scales.shape)} do not match"
        raise QuantizationError(message)
    rows, columns = codes.shape
    groups = scales.shape[1]
    values = codes.to(torch.float32).view(rows, groups, columns // groups)
    values *= scales.to(torch.float32).unsqueeze(2)
    return values.view(rows, columns).to(dtype)


def check_range(weight: Tensor, scheme: GroupedInt) -> None:
    """Refuse the first value `[row, column]` that no code and scale can stand for.

    Raises:
        QuantizationError: a NaN, an infinity, or a value beyond the largest scale.
    """
    limit = MAX_SCALE * scheme.code_range[1]
    rows, columns = weight.shape
    for part in row_blocks(rows, columns, CHUNK_WEIGHTS):
        bad = (weight[part].float().abs() <= limit).logical_not_()
        if bad.any():
            row, column = (int(index) for index in bad.nonzero()[0])
            value = float(weight[part][row, column])
            expected = f"finite and at most {limit:.0f}"
            message = f"value {value} at [{part.start + row}, {column}]: expected {expected}"
            raise QuantizationError(message, "the weights are damaged; fetch or convert them again")


class _Workspace:
    """Buffers for one chunk, allocated once per block."""

    def __init__(self, size: int) -> None:
        self.weight = torch.empty(size)
        self.scaled = torch.empty(size)
        self.rounded = torch.empty(size)
        self.codes = torch.empty(size, dtype=torch.int8)


def _quantize_block(weight: Tensor, scheme: GroupedInt, codes: Tensor, scales: Tensor) -> None:
    """Fill `codes [N, K]` and `scales [N, G]` on this thread, chunk by chunk."""
    group = weight.shape[1] // scales.shape[1]
    step = max(1, CHUNK_WEIGHTS // group)
    groups = weight.reshape(-1, group)
    flat_codes, flat_scales = codes.view(-1, group), scales.view(-1)
    work = _Workspace(min(step, max(1, len(groups))) * group)
    fill = _searched if scheme.clip_search else _rounded_to_nearest
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        fill(groups[part], scheme, work, flat_codes[part], flat_scales[part])


def _require_range(peak: Tensor, scheme: GroupedInt) -> None:
    # Written so that a NaN, for which every comparison is false, is refused as well.
    if not bool((peak <= MAX_SCALE * scheme.code_range[1]).all()):
        message = "a value is not finite, or too large for a scale"
        raise QuantizationError(message)


def _storable(scales: Tensor) -> Tensor:
    """Round to bf16 values in the range that every target holds exactly; float32."""
    return scales.to(torch.bfloat16).float().clamp_(MIN_SCALE, MAX_SCALE)


def _rounded_to_nearest(
    groups: Tensor, scheme: GroupedInt, work: _Workspace, codes: Tensor, scales: Tensor
) -> None:
    """Take each scale from the peak of its group `[n, group]`: no sums, so no layout to mind."""
    low, high = scheme.code_range
    scaled = work.scaled[: groups.numel()].view(groups.shape)
    rounded = work.rounded[: groups.numel()].view(groups.shape)
    scaled.copy_(groups)
    peak = torch.abs(scaled, out=rounded).amax(1)
    _require_range(peak, scheme)
    best = _storable(peak / high)
    scales.copy_(best)
    codes.copy_(scaled.mul_(best.reciprocal_().unsqueeze(1)).round_().clamp_(low, high))


def _searched(
    groups: Tensor, scheme: GroupedInt, work: _Workspace, codes: Tensor, scales: Tensor
) -> None:
    """Choose each scale for the least squared error of its group `[n, group]`."""
    shape = (groups.shape[1], groups.shape[0])
    weight = work.weight[: groups.numel()].view(shape)
    weight.copy_(groups.t())
    peak = torch.abs(weight, out=work.scaled[: groups.numel()].view(shape)).amax(0)
    _require_range(peak, scheme)
    search = _Search(weight, scheme, work)
    best, noise = search.best_of(peak / _ratios(scheme, shape[0]).unsqueeze(1))
    best, noise = search.better(best, noise, search.refit(best).unsqueeze(0))
    best, _ = search.better(best, noise, _neighbours(best))
    scales.copy_(best)
    _, rounded = search.encode(best.reciprocal_())
    narrow = work.codes[: groups.numel()].view(shape).copy_(rounded)
    codes.copy_(narrow.t())


def _ratios(scheme: GroupedInt, group: int) -> Tensor:
    """Give peak/scale for each candidate; the first is plain rounding, so nothing is worse.

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
    """Give the bf16 values just below and just above each scale, `[2, n]`."""
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

    def __init__(self, weight: Tensor, scheme: GroupedInt, work: _Workspace) -> None:
        self.weight = weight
        self.low, self.high = scheme.code_range
        self.scaled = work.scaled[: weight.numel()].view(weight.shape)
        self.rounded = work.rounded[: weight.numel()].view(weight.shape)
        self.scaled_folds = _folds(self.scaled)
        self.rounded_folds = _folds(self.rounded)

    def encode(self, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Give weight/scale and its codes, both float32 `[group, n]` in shared buffers."""
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
        """Give the best scale of `[C, n]` per group, and its squared error; ties: the largest."""
        scales = _storable(candidates)
        noise = self.noise(scales)
        least = noise.amin(0)
        return scales.masked_fill_(noise > least, 0.0).amax(0), least

    def better(self, best: Tensor, noise: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Replace a scale where one of `candidates [C, n]` has an error smaller beyond rounding."""
        challenger, challenger_noise = self.best_of(candidates)
        wins = challenger_noise < noise * (1 - _ROUNDING)
        return torch.where(wins, challenger, best), torch.where(wins, challenger_noise, noise)

    def refit(self, scales: Tensor) -> Tensor:
        """Give the least-squares scale for the codes that `scales [n]` lead to."""
        scaled, rounded = self.encode(scales.reciprocal())
        scaled.mul_(rounded)
        rounded.mul_(rounded)
        projection, energy = _folded(self.scaled_folds), _folded(self.rounded_folds)
        return torch.where(energy > 0, scales * projection / energy, scales)
