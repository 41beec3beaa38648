"""A segment of the plan as a PyTorch module, in the forms that XNNPACK runs whole.

Every step is an operator that its partitioner takes, so that a segment becomes one delegate call.
Two of them are not how one would write them otherwise:

- The mean of a norm is a product with a row of 1/E; XNNPACK's own mean wants images.
- Rotation needs the halves of each head apart, and XNNPACK cannot slice what has a dynamic length.
  So the rows of q_proj and k_proj are taken apart instead: two products give the two halves.

It knows no weights' bytes and no runtime.

Shapes: S tokens, E hidden_size, N rows of a weight, H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.errors import LoweringError
from llama_export.llama.hadamard import sylvester
from llama_export.targets.executorch.xnnpack.placeholders import Product, rounded
from llama_export.targets.executorch.xnnpack.plan import MIXED, Segment, Step
from llama_export.targets.executorch.xnnpack.product_form import ProductForm

# Which rows of a weight a product has. A head's halves stand together: `[heads, 2, D/2]` rows.
WHOLE, FIRST_HALVES, SECOND_HALVES = "whole", "first halves", "second halves"


@dataclass(frozen=True)
class ProductPart:
    """One product of a segment: all rows of a weight, or a half of each head's.

    Args:
        slot: index among the segment's weights.
        rows: which rows it has: `WHOLE`, `FIRST_HALVES` or `SECOND_HALVES`.
        form: form of these rows.
        bias: index among the segment's weights of the bias; None: it has none.
    """

    slot: int
    rows: str
    form: ProductForm
    bias: int | None = None


@dataclass(frozen=True)
class SegmentKind:
    """Everything that decides how a segment is lowered, and so what layers have in common.

    Args:
        segment: the segment without the names of its weights.
        forms: form of each matrix; None for a norm's weight or a bias.
        hidden_size: E, width of the residual stream.
        head_dim: D, columns of a head.
    """

    segment: Segment
    forms: tuple[ProductForm | None, ...]
    hidden_size: int
    head_dim: int

    def products(self) -> tuple[ProductPart, ...]:
        """Return the products in the order of their numbers, which begin at 1."""
        parts = []
        for step in self.segment.steps:
            if step.weight is None or _is_norm(step):
                continue
            cuts = (FIRST_HALVES, SECOND_HALVES) if step.kind == "rotated" else (WHOLE,)
            parts += [self._part(step.weight, rows, step.bias) for rows in cuts]
            if step.side is not None:
                a, b = step.side
                parts += [self._part(a, WHOLE), *(self._part(b, rows) for rows in cuts)]
        return tuple(parts)

    def _part(self, slot: int, rows: str, bias: int | None = None) -> ProductPart:
        form = self.forms[slot]
        if form is None:
            message = f"weight {slot} of a segment is no matrix"
            raise LoweringError(message, "report it with the model's config.json")
        count = form.rows if rows == WHOLE else form.rows // 2
        return ProductPart(slot, rows, replace(form, rows=count, has_bias=bias is not None), bias)

    def norms(self) -> tuple[int, ...]:
        """Return the slots of the norms' weights, which are inputs of the delegate."""
        return tuple(_slot(step) for step in self.segment.steps if _is_norm(step))

    @property
    def mixed_columns(self) -> int:
        """H * D, the columns of the product that takes attention's result; 0 when there is none."""
        for step in self.segment.steps:
            form = None if step.weight is None else self.forms[step.weight]
            if MIXED in step.inputs and form is not None:
                return form.columns
        return 0

    @property
    def adapts(self) -> bool:
        """Whether there are side branches, whose factor is an input."""
        return any(step.side is not None for step in self.segment.steps)

    @property
    def hadamard_width(self) -> int:
        """Width of the rotation before down_proj; 0 when there is none."""
        return max(step.width for step in self.segment.steps)

    @property
    def rotates(self) -> bool:
        """Whether the rotary tables are inputs."""
        return any(step.kind == "rotated" for step in self.segment.steps)


def kind_of(
    segment: Segment, forms: Sequence[ProductForm | None], hidden_size: int, head_dim: int
) -> SegmentKind:
    """Return a segment's kind: equal for segments that differ in their weights alone."""
    return SegmentKind(replace(segment, weights=()), tuple(forms), hidden_size, head_dim)


class SegmentModule(nn.Module):
    """A segment with placeholders for its products' weights.

    Its inputs are the segment's own, then the norms' weights `[E]`, then one epsilon `[1]`, then
    the side branches' factor `[1]` if it has any, then the rotary tables, cosines and sines
    `[S, 1, D/2]` each, if it rotates.

    Args:
        kind: kind of segment to compute.
    """

    def __init__(self, kind: SegmentKind) -> None:
        super().__init__()
        self._kind = kind
        self.products = nn.ModuleList(
            Product(part.form, number) for number, part in enumerate(kind.products(), start=1)
        )
        self.mean: Tensor
        self.register_buffer("mean", torch.full((1, kind.hidden_size), 1 / kind.hidden_size))
        if kind.hadamard_width:
            left, right = orders(kind.hadamard_width)
            self.left: Tensor
            self.right: Tensor
            self.register_buffer("left", sylvester(left) * kind.hadamard_width**-0.5)
            self.register_buffer("right", sylvester(right))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the segment's outputs."""
        kind = self._kind
        given = iter(inputs)
        values = {name: next(given) for name in kind.segment.inputs}
        norms = {slot: next(given) for slot in kind.norms()}
        epsilon = next(given)
        self._scale = next(given) if kind.adapts else epsilon
        self._tables = tuple(given)
        self._remaining = iter(self.products)
        self._rounded: dict[str, Tensor] = {}
        if MIXED in values:
            values[MIXED] = values[MIXED].view(1, -1, kind.mixed_columns)
        for step in kind.segment.steps:
            x = [values[name] for name in step.inputs]
            if _is_norm(step):
                values[step.output] = self._norm(x[0], norms[_slot(step)], epsilon)
            else:
                values[step.output] = self._computed(step, x)
        return tuple(values[name] for name in kind.segment.outputs)

    def _norm(self, x: Tensor, weight: Tensor, epsilon: Tensor) -> Tensor:
        mean = functional.linear(x * x, self.mean)
        return x * torch.rsqrt(mean + epsilon) * weight

    def _computed(self, step: Step, x: Sequence[Tensor]) -> Tensor:
        if step.weight is not None:
            return self._projected(step, x[0])
        if step.kind == "hadamard":
            return self._hadamard(x[0])
        if step.kind == "silu":
            return x[0] * torch.sigmoid(x[0])
        if step.kind == "mul":
            return x[0] * x[1]
        if step.kind == "add":
            return x[0] + x[1]
        message = f"a segment has no step {step.kind!r}"
        raise LoweringError(message, "report it with the model's config.json")

    def _projected(self, step: Step, x: Tensor) -> Tensor:
        """Multiply, add the side branch, and cut into heads where attention takes it."""
        rounded_x, count = self._round(step, x), 2 if step.kind == "rotated" else 1
        # One after the other, as far as it goes: the order is the delegate's.
        parts: Iterable[Tensor] = (self._product(rounded_x) for _ in range(count))
        if step.side is not None:
            parts = self._with_side(list(parts), x)
        if step.kind == "linear":
            return next(iter(parts))
        heads = [self._in_heads(part, count) for part in parts]
        return heads[0] if count == 1 else self._turned(*heads)

    def _with_side(self, parts: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        down = self._product(x)
        return [part + self._product(down) * self._scale for part in parts]

    def _hadamard(self, x: Tensor) -> Tensor:
        """Rotate the last axis: of order a * b it is `A @ x.view(a, b) @ B`."""
        blocks = x.view(1, -1, len(self.left), len(self.right))
        half = torch.permute_copy(functional.linear(blocks, self.right), (0, 1, 3, 2))
        whole = torch.permute_copy(functional.linear(half, self.left), (0, 1, 3, 2))
        return whole.view(1, -1, x.shape[-1])

    def _turned(self, first: Tensor, second: Tensor) -> Tensor:
        """Rotate heads whose halves `[1, S, H, D/2]` are apart."""
        cos, sin = self._tables
        turned = (first * cos - second * sin, second * cos + first * sin)
        return torch.cat(turned, dim=-1)

    def _in_heads(self, x: Tensor, parts: int) -> Tensor:
        size = self._kind.head_dim // parts
        return x.view(1, -1, x.shape[-1] // size, size)

    def _round(self, step: Step, x: Tensor) -> Tensor:
        """Round a product's input, once for all products that it goes into."""
        name = step.inputs[0]
        if name not in self._rounded:
            self._rounded[name] = rounded(x)
        return self._rounded[name]

    def _product(self, x: Tensor) -> Tensor:
        """Multiply by the next weight: the products are used in the order of their numbers."""
        result: Tensor = next(self._remaining)(x)
        return result


def orders(width: int) -> tuple[int, int]:
    """Split the order of the rotation into two whose matrices are small."""
    bits = width.bit_length() - 1
    return 1 << bits // 2, 1 << (bits - bits // 2)


def _is_norm(step: Step) -> bool:
    return step.kind == "norm"


def _slot(step: Step) -> int:
    if step.weight is None:
        message = f"the step {step.output} has no weight"
        raise LoweringError(message, "report it with the model's config.json")
    return step.weight
