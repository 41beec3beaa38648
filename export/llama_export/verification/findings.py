"""Hold what a verification finds beyond its rows: where an artifact goes wrong, and what is drawn.

Plain values between measuring, locating and reporting; it knows no bundle, no model and no way to
show anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Divergence:
    """The first place where an artifact stops computing what the eager model computes.

    Args:
        layer: index of the layer; None before the first (embedding) and after the last (final norm,
            head).
        operator: module path of Hugging Face, such as `model.layers.3.self_attn.q_proj`,
            `model.layers.0.self_attn (attention)`, `model.embed_tokens` or `lm_head`.
        value: the artifact's own name of the value that was compared.
        error: relative error there, in the operator's own norm.
        limit: largest error that rounding explains.
        detail: plain sentence: what differs, where most, and the likely cause if known.
        others: names of further operators that are wrong on their own input.
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
        name: name of the tensor in the checkpoint.
        bits: bits of a stored code.
        sqnr_db: signal to noise of the quantisation; None for a tensor stored without loss.
        size_bytes: size of codes and scales together.
    """

    name: str
    bits: int
    sqnr_db: float | None
    size_bytes: int


@dataclass(frozen=True)
class PlotData:
    """The figures behind the plots; a sequence is empty when that comparison was not made.

    Args:
        kl_by_position: nats at each position, by error term: `quantisation`, `activation`,
            `lowering_shipped`, `lowering_exact`.
        tensors: weights in the model's order.
        logit_scatter: pairs (eager with quantised weights, artifact as shipped), 2000 at most.
        sizes_bytes: sizes of the bundle's parts: `int4 linears`, `int8 table`, `scales`,
            `norms and the rest`, `tokenizer and other files`.
        memory_bytes: resident memory: `after loading`, `peak while verifying`.
    """

    kl_by_position: Mapping[str, tuple[float, ...]]
    tensors: tuple[TensorFigure, ...]
    logit_scatter: tuple[tuple[float, float], ...]
    sizes_bytes: Mapping[str, int]
    memory_bytes: Mapping[str, int]
