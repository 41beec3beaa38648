"""Check one product with a weight on the artifact's own input, and name the likely fault.

The difference is measured against the root of the sum of squares of the products' terms: rounding
grows with that, whatever cancels in the sum, and one wrong scale of one group stands far above it.

Shapes: S tokens, K columns, N rows of the weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.llama import intermediates
from llama_export.llama.streamed import Weight, weight_rows, whole
from llama_export.verification.locate.evidence import (
    Deviation,
    Evidence,
    is_explained,
    relative_error,
)
from llama_quantize.tensor import QuantizedTensor

# Times the square root of the terms: float32 sums in another order walk away like that. A third of
# it was measured, at 1B and below; a scale of 32 weights in 8192 that is 1 % off gives 15 times it.
_ROUNDING = 8 * torch.finfo(torch.float32).eps

# 1024 rows of 8192 columns are 32 MB in float32.
_BLOCK_ROWS = 1024
_FEW = 8
# How closely one scale alone must explain a row's differences.
_FIT = 0.05
_GROUPS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Beside:
    """What is added to a product with a weight.

    Args:
        bias: name of its bias; empty: it has none.
        sides: names of its side branch's A and B; empty: it has none.
        scale: factor of the side branch.
    """

    bias: str = ""
    sides: tuple[str, ...] = ()
    scale: float = 0.0

    def added(
        self, evidence: Evidence, x: Tensor, product: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add to a product `[S, N]` and to the root of the squares of its terms."""
        if self.bias:
            bias = whole(evidence.read(self.bias))
            product, scale = product + bias, torch.hypot(scale, bias.expand_as(scale))
        if self.sides:
            down, up = (evidence.read(name) for name in self.sides)
            side, terms = multiply(multiply(x, down)[0], up)
            product = product + self.scale * side
            scale = torch.hypot(scale, self.scale * terms)
        return product, scale


@dataclass(frozen=True)
class Product:
    """A product with a weight.

    Args:
        name: module path.
        layer: index of its layer; None for the head.
        weight: name of its weight.
        source: point of its input.
        point: point of its result.
        first: column at which it begins in the result.
        siblings: names of weights with the same input, with one of which it may have been mixed up.
        beside: what is added to the product.
    """

    name: str
    layer: int | None
    weight: str
    source: str
    point: str
    first: int = 0
    siblings: tuple[str, ...] = ()
    beside: Beside = Beside()

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads."""
        return self.source, self.point

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Compute the product from the artifact's input, and compare."""
        x, weight = self._input(evidence), evidence.read(self.weight)
        rows = weight.shape[0]
        found = evidence.rows(self.point)[:, self.first : self.first + rows]
        expected, scale = self.beside.added(evidence, x, *multiply(x, weight))
        error = relative_error(expected, found, scale)
        worst, limit = float(error.max()), _ROUNDING * weight.shape[1] ** 0.5
        if worst <= limit:
            return
        by_row = error.amax(0)
        row, wrong = int(by_row.argmax()), (by_row > limit).nonzero().flatten().tolist()
        token = int(error[:, row].argmax())
        where = (
            f"{len(wrong)} of {rows} output rows differ, most row {row} at token {token}: "
            f"{float(found[token, row]):.6g} instead of {float(expected[token, row]):.6g}"
        )
        suspect = _Suspect(self, x, weight, expected, found, worst, limit, tuple(wrong), row)

        def explain() -> str:
            return next(_causes(evidence, suspect), "")

        few = tuple(wrong[: 2 * _FEW])
        yield Deviation(self.name, self.layer, self.point, worst, limit, where, explain, few)

    def _input(self, evidence: Evidence) -> Tensor:
        return (
            evidence.head_rows() if self.point == intermediates.HEAD else evidence.rows(self.source)
        )


def multiply(x: Tensor, weight: Weight) -> tuple[Tensor, Tensor]:
    """Multiply by a weight's transpose, a block of its rows at a time.

    Args:
        x: input, float32 `[S, K]`.
        weight: matrix `[N, K]`, of any float type or quantised.

    Returns:
        The result and the root of the sum of its terms' squares, float32 `[S, N]` each.
    """
    results, scales, squared = [], [], x.square()
    for start in range(0, weight.shape[0], _BLOCK_ROWS):
        block = weight_rows(weight, slice(start, min(start + _BLOCK_ROWS, weight.shape[0])))
        results.append(functional.linear(x, block))
        scales.append(functional.linear(squared, block.square()).sqrt())
    return torch.cat(results, 1), torch.cat(scales, 1)


@dataclass(frozen=True)
class _Suspect:
    """A product that is wrong: its input `[S, K]`, and both results `[S, N]`."""

    product: Product
    x: Tensor
    weight: Weight
    expected: Tensor
    found: Tensor
    error: float
    limit: float
    wrong: tuple[int, ...]
    row: int

    def is_explained_by(self, result: Tensor) -> bool:
        return is_explained(result, self.found, self.error, self.limit)


def _causes(evidence: Evidence, suspect: _Suspect) -> Iterator[str]:
    """Yield every cause that fits the pattern, the most certain first."""
    product = suspect.product
    for sibling in product.siblings:
        other = evidence.read(sibling)
        same = other.shape == suspect.weight.shape
        if same and suspect.is_explained_by(multiply(suspect.x, other)[0]):
            yield f"it is the product with {sibling}: the two are swapped"
    yield from _nibbles(suspect)
    yield from _moved_rows(suspect)
    yield from _one_scale(suspect)
    most = len(suspect.wrong) > suspect.weight.shape[0] // 2
    if most and product.point == intermediates.HEAD and evidence.config.tie_word_embeddings:
        yield "the head is not the embedding's table, although the model ties them"


def _nibbles(suspect: _Suspect) -> Iterator[str]:
    weight = suspect.weight
    if isinstance(weight, QuantizedTensor) and weight.scheme.bits == 4:
        # Even and odd columns exchanged: one half of x meets the other half's codes.
        groups = suspect.x.reshape(len(suspect.x), -1, 2).flip(-1).flatten(1)
        if suspect.is_explained_by(multiply(groups, weight)[0]):
            yield "the two 4-bit codes of every byte are swapped"


def _moved_rows(suspect: _Suspect) -> Iterator[str]:
    """Check whether the worst row is another row of the same weight."""
    row, expected, found = suspect.row, suspect.expected, suspect.found
    distance = (expected - found[:, row : row + 1]).abs().amax(0)
    other = int(distance.argmin())
    if other == row or not _same(expected[:, other], found[:, row]):
        return
    what = "the vocabulary's rows" if suspect.product.point == intermediates.HEAD else "rows"
    if _same(expected[:, row], found[:, other]):
        low, high = sorted((row, other))
        yield f"{what} {low} and {high} are swapped"
    else:
        yield f"row {row} holds what row {other} should"


def _one_scale(suspect: _Suspect) -> Iterator[str]:
    """Check whether one scale of the only wrong row is off."""
    if len(suspect.wrong) != 1:
        return
    row = suspect.row
    terms = suspect.x.double() * weight_rows(suspect.weight, slice(row, row + 1)).double()
    difference = (suspect.found[:, row] - suspect.expected[:, row]).double()
    columns = terms.shape[1]
    for size in sorted({*_group_sizes(suspect.weight), *_GROUPS, columns}):
        if columns % size:
            continue
        parts = terms.reshape(len(terms), -1, size).sum(-1)
        excess = (parts * difference[:, None]).sum(0) / parts.square().sum(0).clamp_min(1e-30)
        left = (difference[:, None] - parts * excess).norm(dim=0) / difference.norm()
        group = int(left.argmin())
        if float(left[group]) < _FIT:
            start = group * size
            yield (
                f"the scale of row {row}, columns {start} to {start + size - 1}, "
                f"is {1 + float(excess[group]):.4f} times the weight's"
            )
            return


def _group_sizes(weight: Weight) -> tuple[int, ...]:
    if isinstance(weight, QuantizedTensor):
        return (weight.shape[1] // weight.scales.shape[1],)
    return ()


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(one.abs().max()))
