"""List the operators of a Llama in the order of computation, each checked on its own input.

Lookup, sums and the gate are here; `norms`, `products` and `attention` have the others. It knows
points and weights; it knows no runtime.

Shapes: S tokens, E hidden_size, F intermediate_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from llama_export.llama import intermediates
from llama_export.llama.config import LlamaConfig
from llama_export.llama.hadamard import hadamard
from llama_export.llama.intermediates import in_layer
from llama_export.llama.names import HEAD as HEAD_WEIGHT
from llama_export.llama.names import TABLE
from llama_export.llama.streamed import Weight, weight_rows
from llama_export.verification.locate.attention import Attention
from llama_export.verification.locate.evidence import (
    Deviation,
    Evidence,
    is_explained,
    relative_error,
)
from llama_export.verification.locate.norms import Norm
from llama_export.verification.locate.products import Beside, Product

LOOKUP_LIMIT = 1e-6  # one product of a code and its scale: exact
SUM_LIMIT = 1e-6  # one addition
ROTATION_LIMIT = 1e-5  # sums of all channels in another order: 1e-7 was measured
GATE_LIMIT = 1e-5  # an exponential by a polynomial: 2e-7 was measured
_FEW = 8
_TABLE_BLOCK = 8192


class Operator(Protocol):
    """An operator that can be checked on its own input."""

    @property
    def name(self) -> str:
        """Return the module path of Hugging Face."""

    @property
    def layer(self) -> int | None:
        """Return the index of the layer; None outside the layers."""

    @property
    def point(self) -> str:
        """Return the point of the result."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads, the result's included."""

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Compare the artifact's result with the reference's from the same input."""


def operators(config: LlamaConfig) -> Iterator[Operator]:
    """Yield every operator in order."""
    yield Lookup()
    before = intermediates.EMBEDDING
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, layer, before)
        before = in_layer(layer, intermediates.MLP_SUM)
    yield Norm(intermediates.FINAL_NORM, None, before, intermediates.FINAL_NORM)
    head = TABLE if config.tie_word_embeddings else HEAD_WEIGHT
    yield Product(intermediates.HEAD, None, head, intermediates.FINAL_NORM, intermediates.HEAD)


def _layer(config: LlamaConfig, layer: int, before: str) -> Iterator[Operator]:
    stem = f"model.layers.{layer}"

    def at(part: str) -> str:
        return in_layer(layer, part)

    def product(module: str, source: str, point: str, first: int, siblings: str) -> Product:
        others = tuple(f"{stem}.{name}.weight" for name in siblings.split())
        name = f"{stem}.{module}"
        weight, beside = f"{name}.weight", _beside(config, name)
        return Product(name, layer, weight, at(source), at(point), first, others, beside)

    query = config.num_attention_heads * config.head_dim
    shared = config.num_key_value_heads * config.head_dim
    q, k, v = (f"self_attn.{letter}_proj" for letter in "qkv")
    yield Norm(at(intermediates.INPUT_NORM), layer, before, at(intermediates.INPUT_NORM))
    yield product(q, intermediates.INPUT_NORM, intermediates.QKV, 0, f"{k} {v}")
    yield product(k, intermediates.INPUT_NORM, intermediates.QKV, query, f"{v} {q}")
    yield product(v, intermediates.INPUT_NORM, intermediates.QKV, query + shared, f"{k} {q}")
    yield Attention(layer)
    yield product(intermediates.OUTPUT, intermediates.MIXED, intermediates.OUTPUT, 0, "")
    yield Sum(
        f"{stem} (sum after self_attn)",
        layer,
        before,
        at(intermediates.OUTPUT),
        at(intermediates.ATTENTION_SUM),
    )
    yield Norm(
        at(intermediates.POST_NORM),
        layer,
        at(intermediates.ATTENTION_SUM),
        at(intermediates.POST_NORM),
    )
    yield product(
        intermediates.GATE, intermediates.POST_NORM, intermediates.GATE, 0, intermediates.UP
    )
    yield product(
        intermediates.UP, intermediates.POST_NORM, intermediates.UP, 0, intermediates.GATE
    )
    yield Gate(layer)
    activation = intermediates.ACTIVATION
    if config.down_proj_rotation:
        yield Rotation(layer)
        activation = intermediates.ROTATED
    yield product(intermediates.DOWN, activation, intermediates.DOWN, 0, "")
    yield Sum(
        f"{stem} (sum after mlp)",
        layer,
        at(intermediates.ATTENTION_SUM),
        at(intermediates.DOWN),
        at(intermediates.MLP_SUM),
    )


def _beside(config: LlamaConfig, module: str) -> Beside:
    has_bias = config.mlp_bias if ".mlp." in module else config.attention_bias
    sides = tuple(f"{module}.adaptor.{part}.weight" for part in "AB") if config.adaptor_rank else ()
    return Beside(f"{module}.bias" if has_bias else "", sides, config.adaptor_scale)


@dataclass(frozen=True)
class Lookup:
    """The lookup of the embedding's rows."""

    name: str = intermediates.EMBEDDING
    layer: int | None = None
    point: str = intermediates.EMBEDDING
    needs: tuple[str, ...] = (intermediates.EMBEDDING,)

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Compare each token's row with the table's."""
        ids, found, table = evidence.input_ids, evidence.rows(self.point), evidence.read(TABLE)
        expected = weight_rows(table, ids)
        error = relative_error(expected, found, _root_mean_square(expected))
        worst = float(error.max())
        if worst <= LOOKUP_LIMIT:
            return
        rows = {int(token): row for token, row in zip(ids, found, strict=True)}
        wrong = ids[error.amax(1) > LOOKUP_LIMIT].unique().tolist()
        named = ", ".join(map(str, wrong[:_FEW])) + (", ..." if len(wrong) > _FEW else "")
        where = f"the rows of {len(wrong)} of the {len(rows)} tokens read differ: {named}"

        def explain() -> str:
            held = find_row(table, rows[wrong[0]])
            if held is None or held == wrong[0]:
                return ""
            if held in rows and find_row(table, rows[held]) == wrong[0]:
                return f"the vocabulary's rows {wrong[0]} and {held} are swapped"
            return f"token {wrong[0]} gets the vocabulary's row {held}"

        yield Deviation(self.name, None, self.point, worst, LOOKUP_LIMIT, where, explain)


@dataclass(frozen=True)
class Sum:
    """A residual sum.

    Args:
        name: what it follows, as a module path with a remark.
        layer: index of its layer.
        left: point of the residual.
        right: point of the module's result.
        point: point of the sum.
    """

    name: str
    layer: int | None
    left: str
    right: str
    point: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads."""
        return self.left, self.right, self.point

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Add both sides, and compare."""
        left, right = evidence.rows(self.left), evidence.rows(self.right)
        found = evidence.rows(self.point)
        suspects = {"the residual is left out": right, "the module's result is left out": left}
        error = relative_error(left + right, found, left.abs() + right.abs())
        yield from _elementwise(self, error, found, SUM_LIMIT, suspects)


@dataclass(frozen=True)
class Gate:
    """The gate of the feed-forward layer: `silu(gate) * up`."""

    layer: int

    @property
    def name(self) -> str:
        """Return the path of the module, which here stands for the module without its products."""
        return f"model.layers.{self.layer}.mlp (silu and product)"

    @property
    def point(self) -> str:
        """Return the point of the result."""
        return in_layer(self.layer, intermediates.ACTIVATION)

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads."""
        parts = (intermediates.GATE, intermediates.UP, intermediates.ACTIVATION)
        return tuple(in_layer(self.layer, part) for part in parts)

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Compute the gate and the product, and compare."""
        gate, up, found = (evidence.rows(point).double() for point in self.needs)
        suspects = {
            "gate and up are exchanged": functional.silu(up) * gate,
            "it is a GELU": functional.gelu(gate) * up,
            "it is the quick GELU, of 1.702 times the gate": gate * (1.702 * gate).sigmoid() * up,
            "the gate goes through a sigmoid alone": gate.sigmoid() * up,
        }
        error = relative_error(functional.silu(gate) * up, found, (gate * up).abs())
        yield from _elementwise(self, error, found, GATE_LIMIT, suspects)


@dataclass(frozen=True)
class Rotation:
    """Hadamard's rotation before down_proj."""

    layer: int

    @property
    def name(self) -> str:
        """Return the path of the module with a remark: Hugging Face has no such module."""
        return f"model.layers.{self.layer}.mlp (rotation)"

    @property
    def point(self) -> str:
        """Return the point of the result."""
        return in_layer(self.layer, intermediates.ROTATED)

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads."""
        return in_layer(self.layer, intermediates.ACTIVATION), self.point

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Rotate by sums and differences, and compare."""
        given, found = (evidence.rows(point) for point in self.needs)
        size = given.norm(dim=-1, keepdim=True)
        error = relative_error(hadamard(given), found, size.expand_as(found))
        suspects = {
            "nothing is rotated": given,
            "it is not divided by the root of the width": hadamard(given) * given.shape[-1] ** 0.5,
        }
        yield from _elementwise(self, error, found, ROTATION_LIMIT, suspects)


def _elementwise(
    operator: Operator,
    error: Tensor,
    found: Tensor,
    limit: float,
    suspects: dict[str, Tensor],
) -> Iterator[Deviation]:
    worst = float(error.max())
    if worst <= limit:
        return
    token, channel = divmod(int(error.argmax()), error.shape[1])
    where = f"{int((error > limit).sum())} of {error.numel()} values differ, most at token {token}"

    def explain() -> str:
        fitting = (
            cause for cause, result in suspects.items() if is_explained(result, found, worst, limit)
        )
        return next(fitting, "")

    yield Deviation(
        operator.name,
        operator.layer,
        operator.point,
        worst,
        limit,
        f"{where}, channel {channel}",
        explain,
    )


def find_row(table: Weight, row: Tensor) -> int | None:
    """Return the index of a row `[E]` in a table `[V, E]`; None where the table lacks it."""
    for start in range(0, table.shape[0], _TABLE_BLOCK):
        block = weight_rows(table, slice(start, min(start + _TABLE_BLOCK, table.shape[0])))
        distance = (block - row).abs().amax(1)
        nearest = int(distance.argmin())
        if float(distance[nearest]) <= LOOKUP_LIMIT * float(row.abs().max()):
            return start + nearest
    return None


def _root_mean_square(x: Tensor) -> Tensor:
    return x.double().square().mean(-1, keepdim=True).sqrt()
