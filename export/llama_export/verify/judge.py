"""Turn measurements into rows: each figure beside its limit, or the reason why it has none.

It knows limits and reports; it runs nothing.
"""

from __future__ import annotations

import math

from llama_export.verify.measure import Exact, Shipped
from llama_export.verify.metrics import LogitMetrics, Perplexity
from llama_export.verify.report import Row, informed, judged, unchecked
from llama_export.verify.thresholds import (
    QUANTISATION_KL,
    SHARE_FLOOR,
    TRAINED_SHARE,
    TargetThresholds,
)

_LOWERING, _QUANTISATION = "lowering", "quantisation"
_RANDOM = "random weights, or a text that the model does not know"


def lowering_rows(
    limits: TargetThresholds, shipped: Shipped, exact: Exact, *, vocab_size: int
) -> list[Row]:
    """Judge the artifact against the eager model with the same quantised weights."""
    rows = [*_exact_rows(limits, exact), *_portion_rows(limits, exact)]
    rows += _shipped_rows(limits, shipped, vocab_size)
    loss = shipped.artifact_loss
    name = "perplexity of the artifact"
    if loss.fault:
        return [*rows, judged(_LOWERING, "perplexity_artifact", name, math.inf, 0, loss.fault)]
    return [*rows, informed(_LOWERING, "perplexity_artifact", name, loss.perplexity)]


def quantisation_rows(shipped: Shipped, *, bits: int, vocab_size: int) -> list[Row]:
    """Judge the quantised weights against the checkpoint's, both in the eager model."""
    metrics = shipped.quantisation
    key, name = "kl_quantisation", f"mean KL of {bits}-bit weights, nats"
    if metrics is None or shipped.quantised_loss is None or shipped.checkpoint_loss is None:
        missing = "reference checkpoint" if shipped.quantised_loss else "quantised weights"
        note = f"no {missing}; what the quantisation cost is not proved"
        return [unchecked(_QUANTISATION, key, "mean KL, nats", note)]
    threshold = QUANTISATION_KL[bits]
    if metrics.fault or is_trained(shipped, vocab_size):
        note = metrics.fault or threshold.reason
        rows = [judged(_QUANTISATION, key, name, metrics.kl_mean, threshold.limit, note)]
    else:
        note = f"not judged: {_RANDOM}"
        rows = [informed(_QUANTISATION, key, name, metrics.kl_mean, note)]
    rows += _spread_rows(_QUANTISATION, "quantisation", metrics)
    rows += [
        _perplexity_row("perplexity_checkpoint", "the checkpoint", shipped.checkpoint_loss),
        _perplexity_row("perplexity_quantised", "the quantised weights", shipped.quantised_loss),
    ]
    return rows


def is_trained(shipped: Shipped, vocab_size: int) -> bool:
    """Tell whether the best model at hand predicts the text clearly better than a guess."""
    loss = shipped.checkpoint_loss or shipped.quantised_loss or shipped.artifact_loss
    return loss.nats_per_token <= TRAINED_SHARE.limit * math.log(vocab_size)


def _exact_rows(limits: TargetThresholds, exact: Exact) -> list[Row]:
    level = f"in float32 (accuracy level {limits.exact_level})"
    metrics, cache = exact.lowering, exact.cache
    if metrics is None or cache is None:
        note = "no quantised weights; that the artifact computes what they say is not proved"
        return [unchecked(_LOWERING, "kl_exact", f"mean KL {level}, nats", note)]
    note = f"{metrics.positions} positions"
    return [
        judged(
            _LOWERING,
            "kl_exact",
            f"mean KL {level}, nats",
            metrics.kl_mean,
            limits.exact_kl.limit,
            metrics.fault or note,
        ),
        judged(
            _LOWERING,
            "rel_rms_exact",
            f"relative difference of the logits {level}",
            metrics.rel_rms,
            limits.exact_rel_rms.limit,
            metrics.fault or note,
        ),
        *_spread_rows(_LOWERING, "exact", metrics),
        judged(
            _LOWERING,
            "cache_exact",
            f"relative difference of the KV cache {level}",
            cache.value,
            limits.cache_rel_rms.limit,
            cache.where,
        ),
    ]


def _portion_rows(limits: TargetThresholds, exact: Exact) -> list[Row]:
    portions = (
        ("prefill_equals_decode", "one prefill against single steps", exact.at_once),
        ("chunked_prefill", "uneven portions against single steps", exact.chunked),
        ("rewind", "a token given again against single steps", exact.rewound),
    )
    return [
        judged(_LOWERING, key, name, metrics.rel_rms, limits.same_rel_rms.limit, metrics.fault)
        for key, name, metrics in portions
    ]


def _shipped_rows(limits: TargetThresholds, shipped: Shipped, vocab_size: int) -> list[Row]:
    metrics, prefill = shipped.lowering, shipped.prefill
    if metrics is None or prefill is None:
        note = "no quantised weights; the cost of the runtime's arithmetic is not proved"
        return [unchecked(_LOWERING, "kl_shipped", "mean KL as shipped, nats", note)]
    limit, reason = _shipped_limit(limits, shipped, vocab_size)
    prefill_limit = max(limits.shipped_prefill_kl.limit, 4 * limit)
    name = "KL after one prefill as shipped, nats"
    return [
        judged(
            _LOWERING,
            "kl_shipped",
            "mean KL as shipped, nats",
            metrics.kl_mean,
            limit,
            metrics.fault or reason,
        ),
        _share_row(limits, shipped, metrics, vocab_size),
        judged(
            _LOWERING, "kl_shipped_prefill", name, prefill.kl_mean, prefill_limit, prefill.fault
        ),
        *_spread_rows(_LOWERING, "shipped", metrics),
    ]


def _shipped_limit(
    limits: TargetThresholds, shipped: Shipped, vocab_size: int
) -> tuple[float, str]:
    """Give a trained model the tight limit; random layers magnify every rounding."""
    tight, loose = limits.shipped_kl, limits.shipped_kl_untrained
    if is_trained(shipped, vocab_size):
        return tight.limit, tight.reason
    if shipped.quantisation is None or shipped.quantisation.fault:
        return loose.limit, loose.reason
    bounded = min(max(shipped.quantisation.kl_mean, tight.limit), loose.limit)
    return bounded, f"at most the quantisation error: {_RANDOM}"


def _share_row(
    limits: TargetThresholds, shipped: Shipped, metrics: LogitMetrics, vocab_size: int
) -> Row:
    key, name = "share_of_quantisation", "KL as shipped over that of the quantisation"
    quantisation = shipped.quantisation
    if quantisation is None:
        note = "no reference checkpoint; that the runtime costs less than int4 is not proved"
        return unchecked(_LOWERING, key, name, note)
    if not is_trained(shipped, vocab_size):
        return unchecked(_LOWERING, key, name, _RANDOM)
    if quantisation.kl_mean < SHARE_FLOOR.limit:
        note = f"the quantisation error is below {SHARE_FLOOR.limit:g}: {SHARE_FLOOR.reason}"
        return unchecked(_LOWERING, key, name, note)
    share = math.inf if quantisation.fault else metrics.kl_mean / quantisation.kl_mean
    return judged(_LOWERING, key, name, share, limits.shipped_share.limit)


def _spread_rows(section: str, key: str, metrics: LogitMetrics) -> list[Row]:
    if metrics.fault:
        return []
    suffix = {"exact": " in float32", "shipped": " as shipped"}.get(key, "")
    return [
        informed(section, f"top1_{key}", f"same most likely token{suffix}", metrics.top1),
        informed(section, f"max_abs_{key}", f"largest logit difference{suffix}", metrics.max_abs),
    ]


def _perplexity_row(key: str, whose: str, loss: Perplexity) -> Row:
    note = loss.fault or f"{loss.nats_per_token:.3f} nats a token over {loss.tokens}"
    return informed(_QUANTISATION, key, f"perplexity of {whose}", loss.perplexity, note)
