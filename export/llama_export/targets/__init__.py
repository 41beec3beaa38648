"""The targets, one package each, and what they have in common: the `Session` protocol.

A target turns a traced model and its quantised weights into an artifact, and opens the artifact
again as a session. Targets never import each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
KeyValueArrays = tuple[FloatArray, FloatArray]


class Session(Protocol):
    """A loaded artifact with one conversation's KV cache.

    Shapes: V vocab_size, K key/value heads, D head_dim.
    """

    @property
    def vocab_size(self) -> int:
        """Length of the logits."""

    @property
    def max_context(self) -> int:
        """The most positions that the cache can hold."""

    @property
    def num_layers(self) -> int:
        """How many layers have a cache."""

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens (one or many) and return the logits `[V]` after the last of them.

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
