"""The eager model over a verification's tokens: every pass that the artifact is compared with.

It knows the reference and which passes are wanted; it knows no session and no limits.

Shapes: P positions, V vocab_size, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from llama_export.verification.measure.metrics import Logits


@dataclass(frozen=True)
class Eager:
    """The eager model's hidden states over some tokens, with one set of weights.

    Args:
        config: shape of the model.
        read: function that returns a weight by its name.
        states: results of the layers, below the head.
        rounding: products whose input is rounded, the head's among them.
    """

    config: LlamaConfig
    read: ReadWeight
    states: ReferenceStates
    rounding: RoundedInputs

    @classmethod
    def run(cls, config: LlamaConfig, read: ReadWeight, input_ids: Sequence[int]) -> Eager:
        """Run everything below the head."""
        (eager,) = cls.run_texts(config, read, (input_ids,))
        return eager

    @classmethod
    def run_texts(
        cls, config: LlamaConfig, read: ReadWeight, texts: Sequence[Sequence[int]]
    ) -> tuple[Eager, ...]:
        """Run everything below the head over several texts, which reads each weight once."""
        passes = [Pass(_batch(input_ids)) for input_ids in texts]
        found = run_passes(config, read, passes)
        return tuple(cls(config, read, states, EXACT_INPUTS) for states in found)

    def logits(self, positions: slice) -> Logits:
        """Return the logits of some positions, float32 `[P, V]`."""
        hidden = self.states.hidden[0, positions]
        result: Logits = reference_head(self.config, self.read, hidden, self.rounding).numpy()
        return result


@dataclass(frozen=True)
class QuantisedEager:
    """The eager model with the quantised weights, in several passes.

    Args:
        plain: pass over all tokens, with its cache.
        rounded: pass over the compared positions that emulates the runtime's rounding of
            activations; None where nobody knows how this runtime rounds.
        context_end: one token at the context's last position, after `plain`'s cache repeated.
        same_arithmetic: pass that computes as the artifact does when its sessions are checked:
            `plain` for one that can compute without rounding, else over all tokens with the
            rounding emulated.
        teacher_forced: pass that rounds as `rounded` does, with every token after the artifact's
            own cache; None for an artifact that can compute without rounding.
    """

    plain: Eager
    rounded: Eager | None
    context_end: Eager
    same_arithmetic: Eager
    teacher_forced: Eager | None = None

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
        artifact_cache: Sequence[KeyValue] | None = None,
    ) -> QuantisedEager:
        """Run the passes together, which reads each weight once.

        Args:
            config: shape of the model.
            read: function that returns a quantised weight by its name.
            input_ids: all tokens.
            positions: number of them that are compared with the artifact as shipped.
            max_context: capacity of the artifact.
            rounding: rounding of the artifact's products; None where it is not known.
            artifact_cache: keys and values `[K, P, D]` by layer, as an artifact that always rounds
                held them after the compared positions; None for one that can do without.
        """
        ids = _batch(input_ids)
        short, last = ids[:, :positions], ids[:, :1]
        always = rounding if artifact_cache is not None and rounding else EXACT_INPUTS
        passes = [
            Pass(ids, keep_cache=True),
            Pass(last, after=max_context - 1, rounding=always),
        ]
        if rounding and artifact_cache is not None:
            passes.append(Pass(ids, rounding=rounding, keep_cache=True))
            passes.append(
                Pass(short, rounding=rounding, keep_cache=True, artifact_cache=artifact_cache)
            )
        elif rounding:
            passes.append(Pass(short, rounding=rounding))
        states = run_passes(config, read, passes)
        plain, end, *more = (
            Eager(config, read, state, each.rounding)
            for state, each in zip(states, passes, strict=True)
        )
        rounded = more[0] if more else plain if rounding is not None else None
        teacher_forced = more[1] if len(more) > 1 else None
        same_arithmetic = more[0] if teacher_forced else plain
        return cls(plain, rounded, end, same_arithmetic, teacher_forced)


def _batch(input_ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(input_ids)])
