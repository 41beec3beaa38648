"""Recognise known faults of attention by their results: rotations, masks, caches.

Each suspected fault is computed from the artifact's own input; one with the artifact's own result
is named. It knows no weights.

Shapes: S tokens of a call, P tokens before it, T = P + S, H query heads, K key/value heads,
D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.llama import intermediates
from llama_export.llama.rope import inverse_frequencies, rope_tables, rotate
from llama_export.verification.locate.attention_call import AttentionCall
from llama_export.verification.locate.evidence import is_explained

_OFFSETS = (1, -1, 2, -2)


def attention_causes(
    call: AttentionCall, part: str, wrong: list[int], error: float, limit: float
) -> Iterator[str]:
    """Yield every cause that fits the pattern, the most certain first.

    Args:
        call: inputs and results of the call.
        part: keys, values or mixed values, whichever is wrong first.
        wrong: rows of that part that are wrong.
        error: largest relative error.
        limit: error that rounding may cause.
    """
    if part == intermediates.MIXED:
        yield from _mixed_causes(call, error, limit)
        return
    other = intermediates.VALUE if part == intermediates.KEY else intermediates.KEY
    if is_explained(call.expected[other], call.found[part], error, limit):
        yield "keys and values are swapped"
    if max(wrong) < call.start:
        yield from _changed_rows(call, part, wrong[0], limit)
    elif part == intermediates.KEY:
        new = call.found[part][:, call.start :]
        for cause, tables in _rotations(call):
            if is_explained(rotate(call.key, *tables)[0], new, error, limit):
                yield cause
        if is_explained(call.key[0], new, error, limit):
            yield "the keys are not rotated"


def _changed_rows(call: AttentionCall, part: str, row: int, limit: float) -> Iterator[str]:
    """Check whether a row of the cache that should have stayed is a copy of another."""
    found, expected = call.found[part][:, row], call.expected[part]
    what = f"the call changed row {row} of the cache, where it should only have appended"
    for other in range(expected.shape[1]):
        if other != row and is_explained(expected[:, other], found, 1.0, limit):
            yield f"{what}: it is now a stale copy of row {other}"
    yield what


def _rotations(call: AttentionCall) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Yield the tables of suspected rotations."""
    inv_freq, factor = inverse_frequencies(call.config), call.config.attention_factor
    positions = torch.arange(call.start, call.start + call.length)
    if call.config.rope_scaling is not None:
        plain = inverse_frequencies(replace(call.config, rope_scaling=None))
        yield "the rope scaling is left out", rope_tables(plain, positions)
    for offset in _OFFSETS:
        if call.start + offset >= 0:
            moved = rope_tables(inv_freq, positions + offset, factor)
            yield f"positions are off by {offset:+d}", moved
    if call.start:
        cause = "positions begin at 0 again in every call"
        yield cause, rope_tables(inv_freq, positions - call.start, factor)


def _mixed_causes(call: AttentionCall, error: float, limit: float) -> Iterator[str]:
    positions = torch.arange(call.start, call.start + call.length)
    frequencies, factor = inverse_frequencies(call.config), call.config.attention_factor
    query = rotate(call.query, *rope_tables(frequencies, positions, factor))
    found = call.found[intermediates.MIXED]
    for cause, visible in _masks(call):
        if is_explained(_mix(call, query, visible), found, error, limit):
            yield cause
    for cause, tables in _rotations(call):
        mixed = _mix(call, rotate(call.query, *tables), _visible(call, 0))
        if is_explained(mixed, found, error, limit):
            yield f"in the queries, {cause}"


def _masks(call: AttentionCall) -> Iterator[tuple[str, Tensor]]:
    """Yield suspected masks `[S, T]`: what a token sees."""
    causal = _visible(call, 0)
    position = torch.arange(call.start + call.length)
    off = "the mask is off by one: "
    yield f"{off}a token does not see itself", _never_blind(_visible(call, -1), causal)
    yield f"{off}a token sees the next one", _visible(call, 1)
    yield f"{off}the first token is not seen", _never_blind(causal & (position >= 1), causal)
    yield "there is no mask: a token sees all that follow", torch.ones_like(causal)
    if call.start:
        yield "the new tokens do not see the cache", causal & (position >= call.start)


def _visible(call: AttentionCall, more: int) -> Tensor:
    ones = torch.ones(call.length, call.start + call.length, dtype=torch.bool)
    return ones.tril(diagonal=call.start + more)


def _never_blind(visible: Tensor, otherwise: Tensor) -> Tensor:
    """Let a token that would see nothing see what it should, since nothing has no mean."""
    return torch.where(visible.any(1, keepdim=True), visible, otherwise)


def _mix(call: AttentionCall, query: Tensor, visible: Tensor) -> Tensor:
    """Mix the artifact's own keys and values, `[H, S, D]`."""
    key, value = (call.found[part][None] for part in (intermediates.KEY, intermediates.VALUE))
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, enable_gqa=True
    )
    return mixed[0]
