"""Turn measurements of what quantising cost into rows: the KL, the weights' noise, perplexities.

It knows limits and rows; it runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llama_export.targets.limits import Limit
from llama_export.verification.judge.terms import (
    SMALL_MODEL,
    can_judge,
    spread_rows,
    why_not_judged,
)
from llama_export.verification.measure.metrics import Perplexity
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import Row, informed, judged, unchecked

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_quantize.checkpoint.weights import QuantizedWeights

# By the fewest bits that any tensor is stored in.
QUANTISATION_KL: Mapping[int, Limit] = {
    4: Limit(0.5, "int4 costs about 0.01; half a nat is a fault, not rounding"),
    8: Limit(0.02, "int8 rows cost about 0.0001"),
    16: Limit(2e-3, "bf16 and fp16 keep a checkpoint to 8 bits of mantissa or better"),
}
# A mean over few positions strays.
_FEW_POSITIONS = 64
_SMALL_INT4_KL = Limit(
    1.0, "a chat model of 135 million, quantised twice, lost 0.57 over 32 positions, 0.28 over all"
)
_QUANTISATION = "quantisation"


def quantisation_rows(
    shipped: Shipped, weights: QuantizedWeights | None, *, bits: int, config: LlamaConfig
) -> list[Row]:
    """Judge the quantised weights against the checkpoint's, both in the eager model."""
    rows = _weights_rows(weights)
    metrics = shipped.quantisation
    key, name = "kl_quantisation", f"mean KL of {bits}-bit weights, nats"
    if metrics is None:
        missing = "reference checkpoint" if shipped.lowering else "quantised weights"
        note = f"no {missing}; what the quantisation cost is not proved"
        return [unchecked(_QUANTISATION, key, "mean KL, nats", note), *rows]
    is_rough = metrics.positions < _FEW_POSITIONS and config.num_parameters < SMALL_MODEL
    threshold = _SMALL_INT4_KL if bits == 4 and is_rough else QUANTISATION_KL[bits]
    if metrics.fault or can_judge(shipped, config, metrics.kl_mean <= threshold.value):
        note = metrics.fault or threshold.reason
        kl = judged(_QUANTISATION, key, name, metrics.kl_estimate, threshold.value, note)
    else:
        kl = informed(_QUANTISATION, key, name, metrics.kl_estimate, why_not_judged(shipped))
    return [
        kl,
        *spread_rows(_QUANTISATION, "quantisation", metrics),
        *rows,
        *_perplexity_rows(shipped),
    ]


def _weights_rows(weights: QuantizedWeights | None) -> list[Row]:
    name = "signal to noise of the quantised weights, dB"
    if weights is None or math.isinf(weights.summary.sqnr_db):
        return []
    worst = min(weights.stats, key=lambda stats: stats.sqnr_db)
    note = f"lowest: {worst.name}, {worst.sqnr_db:.1f} dB"
    return [informed(_QUANTISATION, "sqnr_weights", name, weights.summary.sqnr_db, note)]


def _perplexity_rows(shipped: Shipped) -> list[Row]:
    """Return the perplexities of the checkpoint and of the quantised weights, and their ratio."""
    base, found = shipped.checkpoint_loss, shipped.quantised_loss
    rows = [
        *_loss_rows("checkpoint", "the checkpoint", base),
        *_loss_rows("quantised", "the quantised weights", found),
    ]
    if found is None or base is None or found.fault or base.fault:
        return rows
    name = "perplexity of the quantised weights over the checkpoint's"
    return [*rows, informed(_QUANTISATION, "perplexity_ratio", name, found.ratio(base))]


def _loss_rows(key: str, whose: str, loss: Perplexity | None) -> list[Row]:
    if loss is None:
        return []
    note = loss.fault or f"{loss.nats_per_token:.3f} nats a token"
    name = f"perplexity of {whose}"
    return [informed(_QUANTISATION, f"perplexity_{key}", name, loss.perplexity_estimate, note)]
