"""What one call of a function is about: which slots its tokens take, and what each of them may see.

Everything here is computed once a call, before the first layer. Causality is computed in the graph,
whatever mask a client sends, and masks are finite. Slot 0 is hidden while it is empty: stock Swift
clients count their first token as the second, and a cache that is an input cannot be of length 0.
Then positions are counted without the empty slot. It knows MIL; it knows no weights and no layers.

Shapes: q new tokens, e slots that attention looks at, m rows of the given mask, g query heads a
key/value head, L layers, K key/value heads, D head_dim, C max_context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.targets.coreml import signature
from llama_export.targets.coreml.lowering.weights import shared_const
from llama_export.targets.coreml.names import COS_TABLE, SIN_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coremltools.converters.mil.mil import Var

# Finite, so that a row that sees nothing gives no NaN. What a client hides is nearer than the
# future: where it hides all that is past, the future must not be seen instead.
HIDDEN_BY_CLIENT, HIDDEN = np.float16(-3e4), np.float16(-6e4)


@dataclass(frozen=True)
class Positions:
    """The slots of one call.

    Args:
        start: slot of the first new token, int32 `[1]`.
        end: slot after the last new token, int32 `[1]`.
        mask: what is added to the scores, float16 `[1, 1, g*q, e]`, or fewer rows that are alike.
        cos: cosines of the new tokens, float16 `[q, D]`.
        sin: sines of the new tokens, float16 `[q, D]`, the first half negated.
        whole: whether attention looks at the whole cache, or only at the slots before `end`.
    """

    start: Var
    end: Var
    mask: Var
    cos: Var
    sin: Var
    whole: bool


def flexible_positions(
    inputs: Mapping[str, Var], caches: tuple[Var, Var], config: LlamaConfig, max_context: int
) -> Positions:
    """Derive a call's slots from the length of its mask, or of the cache that it was given."""
    from coremltools.converters.mil.mil import Builder as mb

    count = _size(inputs[signature.INPUT_IDS], 1, "new_tokens")
    given = inputs.get(signature.CAUSAL_MASK)
    if given is None:
        start = _size(inputs[signature.KEY_CACHE], 3, "start")
        end = mb.add(x=start, y=count, name="end")
    else:
        end = _size(given, 3, "end")
        start = mb.sub(x=end, y=count, name="start")
    empty = _empty_slot(caches[0], start)
    scalars = [mb.squeeze(x=value, axes=[0]) for value in (start, end)]
    new = mb.range_1d(start=scalars[0], end=scalars[1], step=1, name="new_slots")
    slots = mb.range_1d(start=0, end=scalars[1], step=1, name="slots")
    visible = mb.logical_and(
        x=_causal(new, slots),
        y=mb.expand_dims(x=mb.greater_equal(x=slots, y=empty), axes=[0]),
        name="visible",
    )
    mask = _finite_mask(visible)
    if given is not None:
        mask = mb.minimum(x=mb.maximum(x=given, y=HIDDEN_BY_CLIENT), y=mask, name="combined_mask")
    groups = config.num_attention_heads // config.num_key_value_heads
    if groups > 1:
        mask = mb.tile(x=mask, reps=[1, 1, groups, 1], name="mask")
    counted = mb.sub(x=new, y=empty, name="positions")
    cos, sin = _rotary(counted, config, max_context)
    return Positions(start, end, mask, cos, sin, whole=False)


def fixed_positions(
    inputs: Mapping[str, Var], count: int, config: LlamaConfig, max_context: int
) -> Positions:
    """Derive a call's slots from its position; attention looks at the whole cache."""
    from coremltools.converters.mil.mil import Builder as mb

    start = inputs[signature.POSITION]
    end = mb.add(x=start, y=np.array([count], np.int32), name="end")
    new = mb.add(x=start, y=np.arange(count, dtype=np.int32), name="new_slots")
    slots = shared_const("slots", np.arange(max_context, dtype=np.int32))
    mask = _finite_mask(_causal(new, slots))
    groups = config.num_attention_heads // config.num_key_value_heads
    if groups > 1 and count > 1:
        mask = mb.tile(x=mask, reps=[1, 1, groups, 1], name="mask")
    cos, sin = _rotary(new, config, max_context)
    return Positions(start, end, mask, cos, sin, whole=True)


def _size(value: Var, axis: int, name: str) -> Var:
    from coremltools.converters.mil.mil import Builder as mb

    shape = mb.shape(x=value, name=f"{name}_shape")
    return mb.slice_by_index(x=shape, begin=[axis], end=[axis + 1], name=name)


def _empty_slot(keys: Var, start: Var) -> Var:
    """Return 1 while slot 0 holds nothing although tokens came before, else 0: int32 `[1]`."""
    from coremltools.converters.mil.mil import Builder as mb

    heads, size = keys.shape[2], keys.shape[4]
    first = mb.slice_by_index(
        x=keys, begin=[0, 0, 0, 0, 0], end=[1, 1, heads, 1, size], name="first_slot"
    )
    largest = mb.reduce_max(x=mb.abs(x=first), axes=[0, 1, 2, 3, 4], keep_dims=False)
    unwritten = mb.cast(x=mb.equal(x=largest, y=np.float16(0)), dtype="int32")
    later = mb.cast(x=mb.greater(x=start, y=0), dtype="int32")
    return mb.mul(x=later, y=unwritten, name="empty_slots")


def _causal(new: Var, slots: Var) -> Var:
    """Return which slot each new token may see: bool `[q, e]`."""
    from coremltools.converters.mil.mil import Builder as mb

    columns, rows = mb.expand_dims(x=slots, axes=[0]), mb.expand_dims(x=new, axes=[1])
    return mb.less_equal(x=columns, y=rows, name="causal")


def _finite_mask(visible: Var) -> Var:
    """Turn bool `[q, e]` into 0 and a large negative number, `[1, 1, q, e]`.

    In arithmetic: coremltools gives `select` between two scalars the wrong shape.
    """
    from coremltools.converters.mil.mil import Builder as mb

    shown = mb.cast(x=visible, dtype="fp16")
    hidden = mb.mul(x=mb.sub(x=np.float16(1), y=shown), y=HIDDEN)
    return mb.expand_dims(x=hidden, axes=[0, 1], name="causal_mask")


def _rotary(positions: Var, config: LlamaConfig, max_context: int) -> tuple[Var, Var]:
    """Look the positions' angles up: float16 `[q, D]` each.

    The tables are float32: looked up and rounded is the same as rounded and looked up, and one can
    see that only rounding sets the package apart.
    """
    import torch
    from coremltools.converters.mil.mil import Builder as mb

    all_positions = torch.arange(max_context)
    tables = rope_tables(inverse_frequencies(config), all_positions, config.attention_factor)
    names = (COS_TABLE, SIN_TABLE)
    cos, sin = (
        mb.cast(
            x=mb.gather(x=shared_const(name, table.numpy()), indices=positions, axis=0),
            dtype="fp16",
            name=f"{name}__rows",
        )
        for name, table in zip(names, tables, strict=True)
    )
    negated = mb.mul(x=sin, y=np.float16(-1))
    return (
        mb.concat(values=[cos, cos], axis=-1, name="cos"),
        mb.concat(values=[negated, sin], axis=-1, name="sin"),
    )
