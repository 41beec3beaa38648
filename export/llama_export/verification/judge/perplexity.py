"""Rows of the perplexities of a text, and of what quantising did to them; none is judged.

It knows figures and rows; it runs nothing.
"""

from __future__ import annotations

import math

from llama_export.verification.measure.metrics import Perplexity
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import Row, informed, judged, unchecked

PRUNED = "a pruned head has no logits for the tokens of a text"
_LOWERING, _QUANTISATION = "lowering", "quantisation"


def artifact_row(loss: Perplexity | None) -> Row:
    """Return the artifact's perplexity; a loss that is no number fails.

    Args:
        loss: loss of the artifact as it ships; None for a pruned head.
    """
    key, name = "perplexity_artifact", "perplexity of the artifact"
    if loss is None:
        return unchecked(_LOWERING, key, name, PRUNED)
    if loss.fault:
        return judged(_LOWERING, key, name, math.inf, 0, loss.fault)
    return informed(_LOWERING, key, name, loss.perplexity_estimate)


def perplexity_rows(shipped: Shipped) -> list[Row]:
    """Return the perplexities of the checkpoint and of the quantised weights, and their ratio."""
    base, found = shipped.checkpoint_loss, shipped.quantised_loss
    rows = [
        *_rows("checkpoint", "the checkpoint", base),
        *_rows("quantised", "the quantised weights", found),
    ]
    if found is None or base is None or found.fault or base.fault:
        return rows
    name = "perplexity of the quantised weights over the checkpoint's"
    return [*rows, informed(_QUANTISATION, "perplexity_ratio", name, found.ratio(base))]


def _rows(key: str, whose: str, loss: Perplexity | None) -> list[Row]:
    if loss is None:
        return []
    note = loss.fault or f"{loss.nats_per_token:.3f} nats a token"
    name = f"perplexity of {whose}"
    return [informed(_QUANTISATION, f"perplexity_{key}", name, loss.perplexity_estimate, note)]
