"""What says where the tokens of a call stand, as expressions: slots, masks, positions.

They are written down here apart from the lowering, in the forms of flexible and of fixed calls. An
expression is an operator's kind with its operands by parameter; two that are equal compute the
same. It knows MIL's operators for this; it knows no weights and no layers.

Shapes: q tokens of a call, C max_context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from llama_export.llama.config import LlamaConfig
from llama_export.targets.coreml.reading.operations import Expression
from llama_export.targets.coreml.signature import CAUSAL_MASK, INPUT_IDS, KEY_CACHE, POSITION

# What hides a slot, and what a client may hide one with.
_HIDDEN, _HIDDEN_BY_CLIENT = -60_000.0, -30_000.0
_ZEROS = (0.0,) * 5


@dataclass(frozen=True)
class Expected:
    """What a call's slots should be computed as.

    Args:
        start: slot of the first new token.
        end: slot after the last one.
        mask: what is added to the scores.
        positions: rows of the rotary tables.
    """

    start: Expression
    end: Expression
    mask: Expression
    positions: Expression

    def slots(self, layer: int, config: LlamaConfig) -> tuple[Expression, Expression]:
        """Return the first slot of a layer's new rows, and the one after the last."""
        heads, size = float(config.num_key_value_heads), float(config.head_dim)
        begin = ((float(layer),), (0.0,), (0.0,), self.start, (0.0,))
        end = ((layer + 1.0,), (1.0,), (heads,), self.end, (size,))
        return _joined(begin), _joined(end)


def _joined(parts: tuple[Expression, ...]) -> Expression:
    return ("concat", (("axis", ((0.0,),)), ("values", parts)))


def flexible(config: LlamaConfig, *, masked: bool, kv_io: bool) -> Expected:
    """Return the expressions of a call of any number of tokens.

    Args:
        config: shape of the model.
        masked: whether a client gives a mask.
        kv_io: whether the caches are inputs.
    """
    count = _size(INPUT_IDS, 1)
    if masked:
        end = _size(CAUSAL_MASK, 3)
        start = _of("sub", {"x": end, "y": count})
    else:
        start = _size(KEY_CACHE, 3)
        end = _of("add", {"x": start, "y": count})
    keys = KEY_CACHE if kv_io else _of("read_state", {"input": KEY_CACHE})
    empty = _empty_slot(keys, start, config)
    first, last = (_of("squeeze", {"x": each, "axes": (0.0,)}) for each in (start, end))
    new = _of("range_1d", {"start": first, "end": last, "step": (1.0,)})
    slots = _of("range_1d", {"start": (0.0,), "end": last, "step": (1.0,)})
    written = _of("greater_equal", {"x": slots, "y": empty})
    visible = _of("logical_and", {"x": _causal(new, slots), "y": _wider(written, 0)})
    mask = _finite(visible)
    if masked:
        given = _of("maximum", {"x": CAUSAL_MASK, "y": (_HIDDEN_BY_CLIENT,)})
        mask = _of("minimum", {"x": given, "y": mask})
    positions = _of("sub", {"x": new, "y": empty})
    return Expected(start, end, _for_groups(mask, config), positions)


def fixed(config: LlamaConfig, tokens: int, max_context: int) -> Expected:
    """Return the expressions of a call of a fixed number of tokens.

    Args:
        config: shape of the model.
        tokens: q, the number.
        max_context: C, slots of the cache.
    """
    end = _of("add", {"x": POSITION, "y": (float(tokens),)})
    new = _of("add", {"x": POSITION, "y": tuple(map(float, range(tokens)))})
    mask = _finite(_causal(new, tuple(map(float, range(max_context)))))
    if tokens > 1:
        mask = _for_groups(mask, config)
    return Expected(POSITION, end, mask, new)


def _of(kind: str, operands: Mapping[str, Expression]) -> Expression:
    return (kind, tuple(sorted((name, (value,)) for name, value in operands.items())))


def _size(value: str, axis: int) -> Expression:
    begin, end = (float(axis),), (axis + 1.0,)
    return _of("slice_by_index", {"x": _of("shape", {"x": value}), "begin": begin, "end": end})


def _wider(value: Expression, *axes: float) -> Expression:
    return _of("expand_dims", {"x": value, "axes": tuple(map(float, axes))})


def _empty_slot(keys: Expression, start: Expression, config: LlamaConfig) -> Expression:
    """Return 1 while slot 0 holds nothing although tokens came before, else 0."""
    corner = (1.0, 1.0, float(config.num_key_value_heads), 1.0, float(config.head_dim))
    first = _of("slice_by_index", {"x": keys, "begin": _ZEROS, "end": corner})
    axes = tuple(map(float, range(5)))
    sizes = _of("abs", {"x": first})
    largest = _of("reduce_max", {"x": sizes, "axes": axes, "keep_dims": (0.0,)})
    unwritten = _of("equal", {"x": largest, "y": (0.0,)})
    later = _of("greater", {"x": start, "y": (0.0,)})
    return _of("mul", {"x": _cast(later, "int32"), "y": _cast(unwritten, "int32")})


def _cast(value: Expression, dtype: str) -> Expression:
    return _of("cast", {"x": value, "dtype": f"text {dtype}"})


def _causal(new: Expression, slots: Expression) -> Expression:
    return _of("less_equal", {"x": _wider(slots, 0), "y": _wider(new, 1)})


def _finite(visible: Expression) -> Expression:
    hidden = _of("sub", {"x": (1.0,), "y": _cast(visible, "fp16")})
    return _wider(_of("mul", {"x": hidden, "y": (_HIDDEN,)}), 0, 1)


def _for_groups(mask: Expression, config: LlamaConfig) -> Expression:
    groups = config.num_attention_heads // config.num_key_value_heads
    if groups == 1:
        return mask
    return _of("tile", {"x": mask, "reps": (1.0, 1.0, float(groups), 1.0)})


def first_difference(found: Expression, expected: Expression) -> str:
    """Return in words where two different expressions begin to differ."""
    pairs = zip_longest(_words(found), _words(expected), fillvalue="nothing")
    one, other = next((pair for pair in pairs if pair[0] != pair[1]), ("the same", "the same"))
    return f"expected {other}, found {one}"


def _words(expression: object) -> Iterator[str]:
    """Yield kinds, parameters, names and numbers in their order."""
    if isinstance(expression, tuple):
        for part in expression:
            yield from _words(part)
    else:
        yield str(expression)
