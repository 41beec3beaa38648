"""One call of an artifact's attention: what went in, what came out, and what should have.

The reference is `llama_export.llama.attention`. It judges nothing and knows no weights.

Shapes: S tokens of a call, P tokens before it, T = P + S, H query heads, K key/value heads,
D head_dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llama_export.llama import intermediates
from llama_export.llama.attention import attention_reference
from llama_export.llama.config import LlamaConfig
from llama_export.llama.intermediates import FloatArray
from llama_export.llama.rope import inverse_frequencies


@dataclass(frozen=True)
class AttentionCall:
    """One call of one layer's attention: what went in, what came out, and what should have.

    Args:
        config: shape of the model.
        start: number of tokens before the call.
        query: queries before rotation, `[1, H, S, D]`.
        key: keys before rotation, `[1, K, S, D]`.
        found: results by part: keys and values `[K, T, D]`, mixed values `[H, S, D]`.
        expected: results of the reference, in the same form.
        scale: sizes that rounding is relative to, broadcast to the same form.
    """

    config: LlamaConfig
    start: int
    query: Tensor
    key: Tensor
    found: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]

    @property
    def length(self) -> int:
        """Return the number of tokens of the call."""
        return self.query.shape[2]

    @classmethod
    def read(cls, config: LlamaConfig, values: Mapping[str, FloatArray]) -> AttentionCall:
        """Compute the reference from a call's inputs.

        Args:
            config: shape of the model.
            values: values by part, with the shapes of `llama_export.llama.intermediates`.
        """
        tensors = {part: torch.from_numpy(array) for part, array in values.items()}
        size, shared = config.head_dim, config.num_key_value_heads
        widths = [config.num_attention_heads * size, shared * size, shared * size]
        query, key, value = tensors[intermediates.QKV][None].split(widths, -1)
        start, length = tensors[intermediates.PAST_KEY].shape[1], query.shape[1]
        room = torch.zeros(1, shared, length, size)
        past_key, past_value = (
            torch.cat((tensors[part][None], room), 2)
            for part in (intermediates.PAST_KEY, intermediates.PAST_VALUE)
        )
        place = (torch.tensor(start), inverse_frequencies(config), config.attention_factor)
        past = (past_key, past_value)
        mixed, (keys, all_values) = attention_reference(query, key, value, past, *place)
        # The same mix of the values' mean squares: what cancels in the sum does not cancel here.
        squares = all_values.square().mean(-1, keepdim=True).expand_as(all_values)
        new = squares[:, :, start:].transpose(1, 2).flatten(2)
        spread, _ = attention_reference(query, key, new, (past_key, squares), *place)
        expected = {
            intermediates.KEY: keys[0],
            intermediates.VALUE: all_values[0],
            intermediates.MIXED: _heads(mixed, size)[0],
        }
        scale = {
            part: _row_size(expected[part]) for part in (intermediates.KEY, intermediates.VALUE)
        }
        return cls(
            config=config,
            start=start,
            query=_heads(query, size),
            key=_heads(key, size),
            found={
                intermediates.KEY: tensors[intermediates.KEY],
                intermediates.VALUE: tensors[intermediates.VALUE],
                intermediates.MIXED: _heads(tensors[intermediates.MIXED][None], size)[0],
            },
            expected=expected,
            scale=scale | {intermediates.MIXED: _heads(spread, size)[0].sqrt()},
        )


def _heads(rows: Tensor, size: int) -> Tensor:
    """Turn `[1, S, heads * D]` into `[1, heads, S, D]`."""
    heads: Tensor = rows.unflatten(-1, (-1, size)).transpose(1, 2)
    return heads


def _row_size(rows: Tensor) -> Tensor:
    return rows.double().square().mean(-1, keepdim=True).sqrt()
