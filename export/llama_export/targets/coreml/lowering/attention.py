"""Attention over a KV cache in MIL, with the query heads of a group folded into rows.

Folding saves the copies of keys and values that grouped queries would cost: the operator wants as
many key heads as query heads. It knows MIL and caches; it knows no weights.

Shapes: q new tokens, e slots, H query heads, K key/value heads, g = H/K, D head_dim, L layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from llama_export.llama.config import LlamaConfig
from llama_export.targets.coreml import signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coremltools.converters.mil.mil import Var

    from llama_export.targets.coreml.lowering.positions import Positions


class Cache(Protocol):
    """Where keys and values of earlier tokens are."""

    def append(self, layer: int, rows: tuple[Var, Var], positions: Positions) -> tuple[Var, Var]:
        """Add new keys and values `[1, K, q, D]`; return all of the layer's, `[1, K, e, D]`."""


class StateCache:
    """The cache as two states of the package, read once and written layer by layer.

    Each state is read once, at the top: coremltools would merge a second read with the first, over
    the writes between them (its pull request 2786).
    """

    def __init__(self, inputs: Mapping[str, Var]) -> None:
        from coremltools.converters.mil.mil import Builder as mb

        names = (signature.KEY_CACHE, signature.VALUE_CACHE)
        self._states = tuple(inputs[name] for name in names)
        keys, values = (
            mb.read_state(input=state, name=f"{name}_before")
            for name, state in zip(names, self._states, strict=True)
        )
        self.before = (keys, values)
        self._current = [keys, values]

    def append(self, layer: int, rows: tuple[Var, Var], positions: Positions) -> tuple[Var, Var]:
        """Write the rows into their slots; return the layer's slots that attention looks at."""
        from coremltools.converters.mil.mil import Builder as mb

        _, _, heads, _, size = self.before[0].shape
        begin = _index([layer], [0], [0], positions.start, [0])
        end = _index([layer + 1], [1], [heads], positions.end, [size])
        stop = None if positions.whole else end
        found = []
        for part, (state, new) in enumerate(zip(self._states, rows, strict=True)):
            update = mb.expand_dims(x=new, axes=[0])
            written = mb.slice_update(x=self._current[part], update=update, begin=begin, end=end)
            self._current[part] = mb.coreml_update_state(state=state, value=written)
            found.append(_layer(self._current[part], layer, stop))
        return found[0], found[1]


class IoCache:
    """The cache as inputs and, with the new rows, as outputs."""

    def __init__(self, inputs: Mapping[str, Var]) -> None:
        self.before = (inputs[signature.KEY_CACHE], inputs[signature.VALUE_CACHE])
        self._after: tuple[list[Var], list[Var]] = ([], [])

    def append(self, layer: int, rows: tuple[Var, Var], positions: Positions) -> tuple[Var, Var]:
        """Put the rows behind the layer's earlier ones."""
        from coremltools.converters.mil.mil import Builder as mb

        found = []
        for before, new, after in zip(self.before, rows, self._after, strict=True):
            joined = mb.concat(values=[_layer(before, layer, None), new], axis=2)
            after.append(mb.expand_dims(x=joined, axes=[0]))
            found.append(joined)
        return found[0], found[1]

    def outputs(self) -> list[Var]:
        """Return the whole caches, `[L, 1, K, e, D]` each."""
        from coremltools.converters.mil.mil import Builder as mb

        names = (signature.PRESENT_KEYS, signature.PRESENT_VALUES)
        return [
            mb.concat(values=layers, axis=0, name=name)
            for name, layers in zip(names, self._after, strict=True)
        ]


def attend(
    projected: tuple[Var, Var, Var],
    layer: int,
    cache: Cache,
    positions: Positions,
    config: LlamaConfig,
    *,
    fused: bool,
) -> Var:
    """Rotate, append to the cache, and attend.

    Args:
        projected: query `[1, q, H*D]`, key and value `[1, q, K*D]`, before rotation.
        layer: index of the layer.
        cache: keys and values of earlier tokens.
        positions: slots of this call's tokens.
        config: shape of the model.
        fused: use the one operator that iOS 18 has, and not its parts.

    Returns:
        The mixed values `[1, q, H*D]`.
    """
    from coremltools.converters.mil.mil import Builder as mb

    query_heads, heads = config.num_attention_heads, config.num_key_value_heads
    query, key, value = projected
    query = _rotated(_heads(query, query_heads, config.head_dim), positions)
    key = _rotated(_heads(key, heads, config.head_dim), positions)
    keys, values = cache.append(layer, (key, _heads(value, heads, config.head_dim)), positions)
    folded = mb.reshape(x=query, shape=[1, heads, -1, config.head_dim])
    if fused:
        mixed = mb.scaled_dot_product_attention(
            query=folded, key=keys, value=values, attn_mask=positions.mask
        )
    else:
        scaled = mb.mul(x=folded, y=np.float16(config.head_dim**-0.5))
        scores = mb.add(x=mb.matmul(x=scaled, y=keys, transpose_y=True), y=positions.mask)
        mixed = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=values)
    unfolded = mb.reshape(x=mixed, shape=[1, query_heads, -1, config.head_dim])
    by_token = mb.transpose(x=unfolded, perm=[0, 2, 1, 3])
    return mb.reshape(x=by_token, shape=[1, -1, query_heads * config.head_dim])


def _heads(x: Var, heads: int, head_dim: int) -> Var:
    """Split `[1, q, heads*D]` into `[1, heads, q, D]`."""
    from coremltools.converters.mil.mil import Builder as mb

    split = mb.reshape(x=x, shape=[1, -1, heads, head_dim])
    return mb.transpose(x=split, perm=[0, 2, 1, 3])


def _rotated(x: Var, positions: Positions) -> Var:
    """Rotate the pairs `(i, i + D/2)` of `[1, heads, q, D]`."""
    from coremltools.converters.mil.mil import Builder as mb

    first, second = mb.split(x=x, num_splits=2, axis=-1)
    swapped = mb.concat(values=[second, first], axis=-1)
    return mb.add(x=mb.mul(x=x, y=positions.cos), y=mb.mul(x=swapped, y=positions.sin))


def _layer(cache: Var, layer: int, end: Var | None) -> Var:
    """Take one layer, `[1, K, e, D]`, up to an index `[5]`; None: all of its slots."""
    from coremltools.converters.mil.mil import Builder as mb

    begin, squeezed = [layer, 0, 0, 0, 0], [True, False, False, False, False]
    if end is not None:
        return mb.slice_by_index(x=cache, begin=begin, end=end, squeeze_mask=squeezed)
    _, _, heads, _, size = cache.shape
    everything = [False, True, True, True, True]
    return mb.slice_by_index(
        x=cache,
        begin=begin,
        end=[layer + 1, 1, heads, 1, size],
        end_mask=everything,
        squeeze_mask=squeezed,
    )


def _index(*parts: Var | list[int]) -> Var:
    """Put an index together, of numbers and of what is known at run time: int32 `[5]`."""
    from coremltools.converters.mil.mil import Builder as mb

    values = [np.array(part, np.int32) if isinstance(part, list) else part for part in parts]
    return mb.concat(values=values, axis=0)
