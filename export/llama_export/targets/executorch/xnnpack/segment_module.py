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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.errors import LoweringError
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
    """

    slot: int
    rows: str
    form: ProductForm


@dataclass(frozen=True)
class SegmentKind:
    """Everything that decides how a segment is lowered, and so what layers have in common.

    Args:
        segment: the segment without the names of its weights.
        forms: form of each quantised weight; None for a norm's.
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
            form = None if step.weight is None else self.forms[step.weight]
            if form is None or step.weight is None:
                continue
            if step.kind == "rotated":
                half = replace(form, rows=form.rows // 2)
                parts += [
                    ProductPart(step.weight, rows, half) for rows in (FIRST_HALVES, SECOND_HALVES)
                ]
            else:
                parts.append(ProductPart(step.weight, WHOLE, form))
        return tuple(parts)

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
    the rotary tables, cosines and sines `[S, 1, D/2]` each, if it rotates.

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

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the segment's outputs."""
        kind = self._kind
        given = iter(inputs)
        values = {name: next(given) for name in kind.segment.inputs}
        norms = {slot: next(given) for slot in kind.norms()}
        epsilon = next(given)
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
        if step.kind == "linear":
            return self._product(self._round(step, x[0]))
        if step.kind == "heads":
            return self._in_heads(self._product(self._round(step, x[0])), 1)
        if step.kind == "rotated":
            return self._rotated(step, self._round(step, x[0]))
        if step.kind == "silu":
            return x[0] * torch.sigmoid(x[0])
        if step.kind == "mul":
            return x[0] * x[1]
        if step.kind == "add":
            return x[0] + x[1]
        message = f"a segment has no step {step.kind!r}"
        raise LoweringError(message, "report it with the model's config.json")

    def _rotated(self, step: Step, x: Tensor) -> Tensor:
        cos, sin = self._tables
        first = self._in_heads(self._product(x), 2)
        second = self._in_heads(self._product(x), 2)
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


def _is_norm(step: Step) -> bool:
    return step.kind == "norm"


def _slot(step: Step) -> int:
    if step.weight is None:
        message = f"the step {step.output} has no weight"
        raise LoweringError(message, "report it with the model's config.json")
    return step.weight
