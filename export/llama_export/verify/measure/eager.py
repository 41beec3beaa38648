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

from llama_export.llama.activations import EXACT_INPUTS, RoundedInputs
from llama_export.llama.attention import KeyValue
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import (
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
    """The eager model with the quantised weights, in several passes.

    Args:
        plain: over all tokens, with its cache.
        rounded: over the positions that are compared, with the runtime's rounding of activations
            emulated; None where nobody knows how this runtime rounds.
        context_end: one token at the context's last position, after `plain`'s cache repeated.
        alike: computes as the artifact does in the checks of its sessions: `plain` for one that
            can compute without rounding, else over all tokens with the rounding emulated.
        taught: as `rounded`, every token after the artifact's own cache; None where an artifact
            that does not round can be had.
    """

    plain: Eager
    rounded: Eager | None
    context_end: Eager
    alike: Eager
    taught: Eager | None = None

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
        given: Sequence[KeyValue] | None = None,
    ) -> QuantisedEager:
        """Run the passes together, which reads each weight once.

        Args:
            config: the shape.
            read: gives the quantised weights by name.
            input_ids: all tokens.
            positions: how many of them are compared with the artifact as shipped.
            max_context: the artifact's capacity.
            rounding: of the artifact's products; None: not known.
            given: per layer the keys and values `[K, P, D]` of an artifact that always rounds,
                after the positions that are compared; None: it can do without.
        """
        ids = _batch(input_ids)
        short, last = ids[:, :positions], ids[:, :1]
        always = rounding if given is not None and rounding else EXACT_INPUTS
        passes = [
            Pass(ids, keep_cache=True),
            Pass(last, after=max_context - 1, rounding=always),
        ]
        if rounding and given is not None:
            passes.append(Pass(ids, rounding=rounding, keep_cache=True))
            passes.append(Pass(short, rounding=rounding, keep_cache=True, artifact_cache=given))
        elif rounding:
            passes.append(Pass(short, rounding=rounding))
        states = run_passes(config, read, passes)
        plain, end, *more = (
            Eager(config, read, state, each.rounding)
            for state, each in zip(states, passes, strict=True)
        )
        rounded = more[0] if more else plain if rounding is not None else None
        taught = more[1] if len(more) > 1 else None
        return cls(plain, rounded, end, more[0] if taught else plain, taught)


def _batch(input_ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(input_ids)])
