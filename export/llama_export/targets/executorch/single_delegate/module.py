"""A whole Llama as one PyTorch module with its real weights, for delegates that take it whole.

The module walks the plan: a lookup, then segments with an attention between each two. What
differs between delegates is a `Dialect`: how the position is used, how a weight is held, how a norm
and attention are written. It knows the plan and the weights; it does not know any delegate.

Shapes: S tokens, C cache capacity, E hidden_size, H query heads, K key/value heads, D head_dim,
V vocab_size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import SymInt, Tensor, nn
from torch.nn import functional

from llama_export.errors import LoweringError
from llama_export.llama.hadamard import sylvester
from llama_export.llama.names import is_adaptor
from llama_export.llama.rope import inverse_frequencies, rope_tables, rotate
from llama_export.targets.executorch.xnnpack.host_program import HostForm, cache_names
from llama_export.targets.executorch.xnnpack.plan import HIDDEN, MIXED, Plan, Segment, Step
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.tensor import QuantizedTensor

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Moment:
    """Where in the conversation a call stands.

    Args:
        start: position of the first token, as a number or as int64 `[1]`.
        cos: cosines of the call's positions, float32 `[S, 1, D/2]`.
        sin: sines of the call's positions, float32 `[S, 1, D/2]`.
        seen: slots that attention may look at, bool `[1, 1, 1, C]`; None: it is causal.
    """

    start: int | SymInt | Tensor
    cos: Tensor
    sin: Tensor
    seen: Tensor | None = None


class DialectProduct(nn.Module):
    """`x @ weight.T`; its weight's codes are the buffer `codes`."""

    # Whether its input is rounded before: once for all products of one input.
    rounds = False


class Dialect(Protocol):
    """How one delegate wants things written."""

    def product(self, name: str, tensor: QuantizedTensor) -> DialectProduct:
        """Return a product with a weight; `LoweringError`: the delegate has none for its form."""

    def table(self, name: str, tensor: QuantizedTensor) -> nn.Module:
        """Return a lookup that maps int64 `[1, S]` to `[1, S, E]`; `LoweringError`: as above."""

    def cache_shape(self, form: HostForm) -> tuple[int, int, int, int]:
        """Return the shape of a layer's keys, and of its values."""

    def moment(self, tokens: Tensor, input_pos: Tensor, cos: Tensor, sin: Tensor) -> Moment:
        """Take the rows of the rotary tables `[C, D/2]` that a call needs."""

    def round(self, x: Tensor) -> Tensor:
        """Round the input `[1, S, K]` of products that want it, as the delegate's kernels do."""

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Compute an RMS norm over the last axis."""

    def attend(
        self,
        query: Tensor,
        written: tuple[Tensor, Tensor],
        caches: tuple[Tensor, Tensor],
        moment: Moment,
    ) -> Tensor:
        """Write keys and values `[1, S, K, D]`, and mix for the query `[1, S, H, D]`."""


class SingleDelegateModule(nn.Module):
    """`forward(tokens, input_pos)`: the cache stays inside.

    Args:
        form: signature of the program.
        plan: segments to compute.
        weights: the quantised checkpoint, mapped.
        dialect: form in which the delegate takes each part.

    Raises:
        LoweringError: a weight is stored in a form that the delegate does not have.
    """

    cos: Tensor
    sin: Tensor
    left: Tensor
    right: Tensor

    def __init__(
        self, form: HostForm, plan: Plan, weights: QuantizedWeights, dialect: Dialect
    ) -> None:
        super().__init__()
        config = form.config
        self._form, self._plan, self._dialect = form, plan, dialect
        positions = torch.arange(form.max_context)
        tables = rope_tables(inverse_frequencies(config), positions, config.attention_factor)
        for name, table in zip(("cos", "sin"), tables, strict=True):
            self.register_buffer(name, table)
        self.table = dialect.table(plan.table, _quantised(weights, plan.table))
        self.products = nn.ModuleDict()
        for number, segment in enumerate(plan.segments):
            for slot, name in enumerate(segment.weights):
                self._add_weight(f"{number}_{slot}", name, weights)
        if config.down_proj_rotation:
            # A power of two goes with the first product, so that no sum is large in float16.
            left, right = config.rotation_orders
            self.register_buffer("right", sylvester(right) / left)
            self.register_buffer("left", sylvester(left) * (left / right) ** 0.5)
        for name in cache_names(config):
            self.register_buffer(name, torch.zeros(dialect.cache_shape(form)))

    def forward(self, tokens: Tensor, input_pos: Tensor) -> Tensor:
        """Map int64 `[1, S]` and `[1]` to the logits, `[1, V]` or `[1, S, V]`."""
        moment = self._dialect.moment(tokens, input_pos, self.cos, self.sin)
        values: Values = {HIDDEN: self.table(tokens)}
        for number, segment in enumerate(self._plan.segments):
            if segment.last_row:
                # Not before attention, as the XNNPACK file does: Vulkan writes all keys and mixes
                # in one operator, with one position for both.
                values = {name: value[:, -1:] for name, value in values.items()}
            outputs = self._segment(number, segment, values, moment)
            if len(outputs) == 1:
                break
            hidden = outputs[0] if len(outputs) == 4 else values[HIDDEN]
            query, key, value = outputs[-3:]
            names = cache_names(self._form.config)[2 * number : 2 * number + 2]
            caches = (getattr(self, names[0]), getattr(self, names[1]))
            mixed = self._dialect.attend(query, (key, value), caches, moment)
            values = {HIDDEN: hidden, MIXED: mixed}
        (logits,) = outputs
        return logits if self._form.options.all_logits else logits[:, 0]

    def _segment(
        self, number: int, segment: Segment, given: Mapping[str, Tensor], moment: Moment
    ) -> list[Tensor]:
        values = dict(given)
        config = self._form.config
        if MIXED in values:
            columns = config.num_attention_heads * config.head_dim
            values[MIXED] = values[MIXED].reshape(1, -1, columns)
        rounded: Values = {}
        for step in segment.steps:
            x = [values[name] for name in step.inputs]
            place = f"{number}_{step.weight}"
            if step.kind == "norm":
                weight = getattr(self, f"floats_{place}")
                values[step.output] = self._dialect.norm(x[0], weight, step.epsilon)
            elif step.weight is not None:
                product = self.products[place](self._input_of(place, step, x[0], rounded))
                product = self._with_beside(number, step, x[0], product)
                values[step.output] = self._shaped(step, product, moment)
            elif step.kind == "hadamard":
                values[step.output] = self._hadamard(x[0])
            else:
                values[step.output] = _elementwise(step, x)
        return [values[name] for name in segment.outputs]

    def _input_of(self, place: str, step: Step, x: Tensor, rounded: Values) -> Tensor:
        if not self.products[place].rounds:
            return x
        (source,) = step.inputs
        if source not in rounded:
            rounded[source] = self._dialect.round(x)
        return rounded[source]

    def _with_beside(self, number: int, step: Step, x: Tensor, product: Tensor) -> Tensor:
        """Add a bias and a side branch, which takes its input as it is."""
        if step.bias is not None:
            product = product + getattr(self, f"floats_{number}_{step.bias}")
        if step.side is not None:
            for slot in step.side:
                x = functional.linear(x, getattr(self, f"floats_{number}_{slot}"))
            product = product + x * self._form.config.adaptor_scale
        return product

    def _hadamard(self, x: Tensor) -> Tensor:
        """Rotate the last axis: of order a * b it is `A @ x.view(a, b) @ B`."""
        left, right = len(self.left), len(self.right)
        # Matrices and not blocks of them: Vulkan's pass over views fails at two in a row.
        half = functional.linear(x.view(-1, right), self.right).view(-1, left, right)
        turned = torch.permute_copy(half, (0, 2, 1)).view(-1, left)
        whole = functional.linear(turned, self.left).view(-1, right, left)
        return torch.permute_copy(whole, (0, 2, 1)).view(1, -1, x.shape[-1])

    def _shaped(self, step: Step, product: Tensor, moment: Moment) -> Tensor:
        """Leave a product as it is, or cut it into heads, rotated or not."""
        if step.kind == "linear":
            return product
        size = self._form.config.head_dim
        heads = product.view(1, -1, product.shape[-1] // size, size)
        return rotate(heads, moment.cos, moment.sin) if step.kind == "rotated" else heads

    def _add_weight(self, place: str, name: str, weights: QuantizedWeights) -> None:
        tensor = weights.get(name)
        if isinstance(tensor, Tensor) and (tensor.ndim == 1 or is_adaptor(name)):
            self.register_buffer(f"floats_{place}", tensor.float())
        else:
            self.products[place] = self._dialect.product(name, _quantised(weights, name))


def product_names(plan: Plan, module: SingleDelegateModule) -> dict[str, str]:
    """Return the checkpoint's name of each product, by the name of its codes in the module."""
    return {
        f"products.{number}_{slot}.codes": name
        for number, segment in enumerate(plan.segments)
        for slot, name in enumerate(segment.weights)
        if f"{number}_{slot}" in module.products
    }


def _elementwise(step: Step, x: list[Tensor]) -> Tensor:
    if step.kind == "silu":
        return functional.silu(x[0])
    if step.kind == "mul":
        return x[0] * x[1]
    if step.kind == "add":
        return x[0] + x[1]
    message = f"a segment has no step {step.kind!r}"
    raise LoweringError(message, "report it with the model's config.json")


def _quantised(weights: QuantizedWeights, name: str) -> QuantizedTensor:
    tensor = weights.get(name)
    if isinstance(tensor, QuantizedTensor):
        return tensor
    message = f"{name} is stored as {tensor.dtype}; ExecuTorch's products are int4 or int8"
    raise LoweringError(message, "export with --quantize int4 or int8")
