"""What a verification has found beyond its rows: where an artifact goes wrong, and what is drawn.

Plain values between those who measure, those who locate and those who report; it knows no bundle,
no model and no way to show anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Divergence:
    """The first place where an artifact stops computing what the eager model computes.

    Args:
        layer: None before the first layer (embedding) and after the last (final norm, head).
        operator: Hugging Face's module path, such as `model.layers.3.self_attn.q_proj`,
            `model.layers.0.self_attn (attention)`, `model.embed_tokens` or `lm_head`.
        value: the name of the artifact's value that was compared.
        error: the relative error there; `locate` says in which norm.
        limit: what the error may be at most.
        detail: one plain sentence: what differs, where most, and the likely cause if known.
        others: further operators that are wrong on their own input, by name.
    """

    layer: int | None
    operator: str
    value: str
    error: float
    limit: float
    detail: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class TensorFigure:
    """One weight tensor of the artifact.

    Args:
        name: the checkpoint's name of the tensor.
        bits: bits of a stored code.
        sqnr_db: the quantisation's signal to noise; None is exact, so not quantised.
        size_bytes: codes and scales together.
    """

    name: str
    bits: int
    sqnr_db: float | None
    size_bytes: int


@dataclass(frozen=True)
class Series:
    """What the plots show; a sequence is empty when that comparison was not made.

    Args:
        kl_by_position: nats at each position, by error term: `quantisation`, `activation`,
            `lowering_shipped`, `lowering_exact`.
        tensors: the weights in the model's order.
        logit_scatter: pairs (eager with quantised weights, artifact as shipped), 2000 at most.
        sizes_bytes: parts of the bundle: `int4 linears`, `int8 table`, `scales`,
            `norms and the rest`, `tokenizer and other files`.
        memory_bytes: resident: `after loading`, `peak while verifying`.
    """

    kl_by_position: Mapping[str, tuple[float, ...]]
    tensors: tuple[TensorFigure, ...]
    logit_scatter: tuple[tuple[float, float], ...]
    sizes_bytes: Mapping[str, int]
    memory_bytes: Mapping[str, int]
