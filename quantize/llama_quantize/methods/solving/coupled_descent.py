"""Coordinate descent over codes and scales with all rows of a weight coupled.

It lowers tr(O E H Eᵀ), E = target - codes x scales: H says what flows in, O what the model makes of
what comes out (YAQA, Tseng et al. 2025, rounds once for that objective). One column of one row
after the other would be exact, and too slow without a compiler. Here many rows take a step at once,
each, as far as they go, in another group of columns: two steps are coupled by the product of an
element of O and one of H, both off the diagonal, which is small. What the steps of a turn change
together is computed before they are taken. If it were a rise, they are taken one by one, without
those that raise it.

Shapes: N rows, K columns, g columns in a group, P groups in a panel, W = P g columns in it, B rows
in a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from llama_quantize.groupwise import storable
from llama_quantize.scheme import GroupedInt

# A panel's part of H fits a processor's second cache.
_PANEL_GROUPS = 16
_PANEL_COLUMNS = 512
_FEWEST_ROWS, _MOST_ROWS = 8, 64


@dataclass(frozen=True, eq=False)
class CoupledProblem:
    """What is lowered.

    Args:
        target: float32 `[N, K]`.
        gram: the inputs' damped Gram matrix H, float32 `[K, K]`.
        curvature: damped curvature O at the outputs, float32 `[N, N]`.
        scheme: storage form.
    """

    target: Tensor
    gram: Tensor
    curvature: Tensor
    scheme: GroupedInt


def descend_coupled(
    problem: CoupledProblem, codes: Tensor, scales: Tensor, sweeps: int
) -> list[float]:
    """Improve codes `[N, K]` and scales `[N, G]` in place, both float32.

    Args:
        problem: what is lowered.
        codes: codes to begin with.
        scales: scales to begin with, storable ones.
        sweeps: number of times that each column has its turn.

    Returns:
        By how much each sweep lowered the objective.
    """
    rows, columns = problem.target.shape
    group = columns // scales.shape[1]
    values = (codes.view(rows, -1, group) * scales.unsqueeze(2)).view(rows, columns)
    errors = problem.target - values
    at_once = _rows_at_once(problem.curvature)
    falls = []
    for _ in range(sweeps):
        fall = 0.0
        for part in _panels(scales.shape[1], group):
            covered = slice(part.start * group, part.stop * group)
            panel = _Panel(problem, errors, covered, group)
            for start in range(0, rows, at_once):
                block = slice(start, min(start + at_once, rows))
                fall += panel.improve(block, codes[block, covered], scales[block, part])
        falls.append(fall)
    return falls


def _rows_at_once(curvature: Tensor) -> int:
    """Choose the rows of a block: half as many as there are directions of outputs that matter.

    Steps of more rows than that are no longer independent of each other: each of them makes up for
    the same error.
    """
    spread = curvature.diagonal().rsqrt()
    correlations = curvature * spread * spread.unsqueeze(1)
    directions = len(curvature) ** 2 / float(correlations.square_().sum())
    return max(_FEWEST_ROWS, min(_MOST_ROWS, int(directions / 2)))


def _panels(groups: int, group: int) -> list[slice]:
    """Split the groups of a row into panels of about one size."""
    most = max(1, min(_PANEL_GROUPS, _PANEL_COLUMNS // group))
    count = -(-groups // most)
    bounds = [index * groups // count for index in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


class _Panel:
    """Some groups of columns, in which all rows have their turns.

    Args:
        problem: what is lowered.
        errors: E `[N, K]`; what the panel covers of it is kept true.
        covered: the panel's columns.
        group: g.
    """

    def __init__(self, problem: CoupledProblem, errors: Tensor, covered: slice, group: int) -> None:
        self._curvature = problem.curvature
        self._range = problem.scheme.code_range
        self._errors = errors[:, covered]
        self._gram = problem.gram[covered, covered].contiguous()
        self._pull = errors @ problem.gram[:, covered]  # E H `[N, W]`
        width = len(self._gram)
        self._groups, self._group = width // group, group
        self._by_group = self._gram.view(self._groups, group, width)
        every = torch.arange(self._groups)
        own = self._by_group.view(self._groups, group, self._groups, group)[every, :, every]
        self._own = own.permute(1, 2, 0).contiguous()  # `[g, g, P]`

    def improve(self, block: slice, codes: Tensor, scales: Tensor) -> float:
        """Let each group of a block of rows have its turn; returns the fall of the objective.

        Args:
            block: the rows.
            codes: their codes in the panel `[B, W]`, replaced.
            scales: their scales `[B, P]`, replaced.
        """
        coupling = self._curvature[block, block]
        pull = self._curvature[block] @ self._pull
        changes = torch.zeros_like(pull)
        rows = torch.arange(len(coupling))
        fall = 0.0
        for turn in range(self._groups):
            groups = (rows * self._groups // len(rows) + turn) % self._groups
            columns = groups.unsqueeze(1) * self._group + torch.arange(self._group)
            old, old_scales = codes.gather(1, columns), scales[rows, groups]
            wanted = pull.gather(1, columns)
            new, new_scales = _improved(
                (old, old_scales),
                wanted / coupling.diagonal().unsqueeze(1),
                self._own[:, :, groups],
                self._range,
            )
            change = new * new_scales.unsqueeze(1) - old * old_scales.unsqueeze(1)
            moved = coupling @ self._spread(change, groups)
            rise = float((change * (moved.gather(1, columns) - 2 * wanted)).sum())
            if rise >= 0.0:
                kept = self._falling(change, wanted, groups, coupling).unsqueeze(1)
                new = torch.where(kept, new, old)
                new_scales = torch.where(kept.squeeze(1), new_scales, old_scales)
                change = change * kept
                moved = coupling @ self._spread(change, groups)
                rise = float((change * (moved.gather(1, columns) - 2 * wanted)).sum())
            fall -= rise
            pull -= moved
            changes.scatter_add_(1, columns, change)
            codes.scatter_(1, columns, new)
            scales[rows, groups] = new_scales
        self._pull[block] -= changes @ self._gram
        self._errors[block] -= changes
        return fall

    def _spread(self, change: Tensor, groups: Tensor) -> Tensor:
        """Multiply each row's change `[B, g]` by its group's rows of H; `[B, W]`."""
        return torch.bmm(change.unsqueeze(1), self._by_group[groups]).squeeze(1)

    def _falling(self, change: Tensor, wanted: Tensor, groups: Tensor, coupling: Tensor) -> Tensor:
        """Take the changes `[B, g]` one by one, if they lower the objective; bool `[B]`."""
        spread = self._spread(change, groups).view(len(change), self._groups, self._group)
        pairs = coupling * (spread[:, groups] * change).sum(2)
        alone = pairs.diagonal() - 2 * (change * wanted).sum(1)
        kept = torch.zeros(len(change), dtype=torch.bool)
        for row in range(len(change)):
            kept[row] = alone[row] + 2 * pairs[row, kept].sum() < 0
        return kept


def _improved(
    before: tuple[Tensor, Tensor], pull: Tensor, gram: Tensor, code_range: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Improve one group of each row by itself.

    Args:
        before: codes `[B, g]` and scales `[B]`.
        pull: H E of each row's group, `[B, g]`.
        gram: each row's own part of H, `[g, g, B]`.
        code_range: smallest and largest code.

    Returns:
        Other codes and scales.
    """
    low, high = code_range
    codes, scales = before[0].t().clone(), before[1]
    left = pull.t().contiguous()
    per_step = (gram.diagonal().t() * scales).reciprocal_()
    for column, code in enumerate(codes):
        moved = torch.addcmul(code, left[column], per_step[column]).round_().clamp_(low, high)
        left.addcmul_(gram[column], (moved - code).mul_(scales), value=-1)
        code.copy_(moved)
    slope = (codes * left).sum(0)
    curve = (codes * (gram * codes.unsqueeze(1)).sum(0)).sum(0)
    fitted = storable(scales + slope / curve.clamp_min(torch.finfo(torch.float32).tiny))
    step = fitted - scales
    better = step * (step * curve - 2 * slope) < 0
    return codes.t(), torch.where(better, fitted, scales)
