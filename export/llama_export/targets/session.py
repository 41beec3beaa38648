"""`Session`: a loaded artifact with one conversation, and what every session refuses.

Whatever the runtime is, the same tokens are refused in the same words. It knows numbers of tokens
and shapes of caches; it knows no runtime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from llama_export.errors import BundleError, PromptError, UsageError
from llama_export.llama.intermediates import FloatArray

Resource = TypeVar("Resource")
KeyValueArrays = tuple[FloatArray, FloatArray]


class Session(Protocol):
    """A loaded artifact with one conversation's KV cache.

    Shapes: V logits, fewer than `vocab_size` where the head was pruned, K key/value heads, D
    head_dim.
    """

    @property
    def vocab_size(self) -> int:
        """Number of token ids that may be read; of logits there are fewer where they are pruned."""

    @property
    def max_context(self) -> int:
        """Largest number of positions that the cache can hold."""

    @property
    def num_layers(self) -> int:
        """Number of layers that have a cache."""

    @property
    def position(self) -> int:
        """Number of tokens that the cache holds."""

    @property
    def all_logits(self) -> bool:
        """Whether `run` gives a row of logits for each token, or for the last one alone."""

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens (one or many) and return the logits `[V]` after the last of them.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
        """

    def run(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return every row of logits that the artifact gives, `[rows, V]`.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
        """

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""

    def cache(self, layer: int) -> KeyValueArrays:
        """Return a layer's keys and values so far, `[K, position, D]` each, as copies."""

    def restore(self, layers: Sequence[KeyValueArrays]) -> None:
        """Replace the conversation with one whose `cache` was kept, layer by layer.

        Raises:
            PromptError: it is the cache of another model, or longer than the context.
        """

    def fork(self) -> Session:
        """Return a second conversation that begins with the same tokens; the weights are shared."""

    def close(self) -> None:
        """Let go of the artifact and the cache; forks keep theirs. Closing twice does nothing."""


def require_open(resource: Resource | None) -> Resource:
    """Return what a session runs on, and refuse a session that was closed.

    Args:
        resource: the resource; None after `close`.

    Raises:
        UsageError: the session is closed.
    """
    if resource is None:
        message = "the session is closed"
        raise UsageError(message, "open the bundle again")
    return resource


def require_tokens(
    input_ids: Sequence[int], position: int, *, max_context: int, vocab_size: int
) -> None:
    """Refuse tokens that cannot follow those that the cache holds.

    Raises:
        PromptError: there are none, one is outside the vocabulary, or they do not fit.
    """
    if not input_ids:
        message = "there are no tokens to run"
        raise PromptError(message, "give a prompt of at least one token")
    if position + len(input_ids) > max_context:
        message = (
            f"{len(input_ids)} more tokens do not fit: the cache holds {position} of "
            f"{max_context} positions"
        )
        raise PromptError(message, "shorten the prompt, or export with a larger --max-context")
    outside = [token for token in input_ids if not 0 <= token < vocab_size]
    if outside:
        message = f"token {outside[0]} is outside the vocabulary of {vocab_size}"
        raise PromptError(message, "the tokenizer belongs to another model")


def require_held(position: int, held: int) -> None:
    """Refuse to rewind to where the cache is not.

    Raises:
        PromptError: the position is after the last token.
    """
    if not 0 <= position <= held:
        message = f"cannot rewind to position {position}: the cache holds {held} tokens"
        raise PromptError(message)


def require_fitting_cache(
    layers: Sequence[KeyValueArrays],
    *,
    num_layers: int,
    heads: int,
    head_dim: int,
    max_context: int,
) -> int:
    """Refuse the cache of another model; return its number of positions.

    Raises:
        PromptError: it is another model's, or longer than the context.
    """
    position = layers[0][0].shape[1] if layers else 0
    expected = (heads, min(position, max_context), head_dim)
    shapes = {rows.shape for pair in layers for rows in pair}
    if len(layers) != num_layers or shapes != {expected}:
        found = ", ".join(map(str, sorted(shapes))) or "nothing"
        message = (
            f"this cache does not fit: expected {num_layers} layers of {heads} heads, at most "
            f"{max_context} positions and {head_dim} columns, found {len(layers)} layers of {found}"
        )
        raise PromptError(message, "restore it with the bundle that it was saved with")
    return position


def require_finite(logits: FloatArray) -> FloatArray:
    """Return logits `[V]` as they are, and refuse those from which nothing can be drawn.

    Raises:
        BundleError: one is not a number, or infinite.
    """
    # One pass and no copy: a sum of finite float32 values cannot leave float64.
    if math.isfinite(logits.sum(dtype=np.float64)):
        return logits
    wrong = int(np.count_nonzero(~np.isfinite(logits)))
    message = f"the logits are not finite numbers: {wrong} of {len(logits)} are NaN or infinite"
    hint = "the bundle is damaged, or its numbers overflow: `llama-export verify` says where"
    raise BundleError(message, hint)
