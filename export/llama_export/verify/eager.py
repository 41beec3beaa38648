"""The eager model over a verification's tokens: every pass that the artifact is compared with.

It knows the reference and which passes are wanted; it knows no session and no limits.

Shapes: P positions, V vocab_size, K key/value heads, C capacity, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from llama_export.activations import EXACT_INPUTS, RoundedInputs
from llama_export.config import LlamaConfig
from llama_export.verify.reference import (
    Pass,
    ReadWeight,
    ReferenceStates,
    reference_head,
    run_passes,
)

if TYPE_CHECKING:
    Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Eager:
    """The eager model's hidden states over some tokens, with one set of weights.

    Args:
        config: the shape.
        read: gives the weights by name.
        states: what the model computes below its head.
        rounding: products whose input is rounded, the head's among them.
    """

    config: LlamaConfig
    read: ReadWeight
    states: ReferenceStates
    rounding: RoundedInputs

    @classmethod
    def run(cls, config: LlamaConfig, read: ReadWeight, input_ids: Sequence[int]) -> Eager:
        """Run everything below the head."""
        (states,) = run_passes(config, read, [Pass(_batch(input_ids))])
        return cls(config, read, states, EXACT_INPUTS)

    def logits(self, positions: slice) -> Logits:
        """Return the logits of some positions, float32 `[P, V]`."""
        hidden = self.states.hidden[0, positions]
        result: Logits = reference_head(self.config, self.read, hidden, self.rounding).numpy()
        return result


@dataclass(frozen=True)
class QuantisedEager:
    """The eager model with the quantised weights, in three passes.

    Args:
        plain: over all tokens, with its cache.
        rounded: over the positions that are compared, with the runtime's rounding of activations
            emulated; None where nobody knows how this runtime rounds.
        context_end: one token at the context's last position, after `plain`'s cache repeated.
    """

    plain: Eager
    rounded: Eager | None
    context_end: Eager

    @classmethod
    def run(
        cls,
        config: LlamaConfig,
        read: ReadWeight,
        input_ids: Sequence[int],
        *,
        positions: int,
        max_context: int,
        rounding: RoundedInputs | None,
    ) -> QuantisedEager:
        """Run the passes together, which reads each weight once.

        Args:
            config: the shape.
            read: gives the quantised weights by name.
            input_ids: all tokens.
            positions: how many of them are compared with the artifact as shipped.
            max_context: the artifact's capacity.
            rounding: of the artifact's products; None: not known.
        """
        passes = [
            Pass(_batch(input_ids), keep_cache=True),
            Pass(_batch(input_ids[:1]), after=max_context - 1),
        ]
        if rounding:
            passes.append(Pass(_batch(input_ids[:positions]), rounding=rounding))
        plain, context_end, *more = run_passes(config, read, passes)
        exact = Eager(config, read, plain, EXACT_INPUTS)
        rounded = exact if rounding is not None else None
        if rounding:
            rounded = Eager(config, read, more[0], rounding)
        return cls(exact, rounded, Eager(config, read, context_end, EXACT_INPUTS))


def _batch(input_ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(input_ids)])
