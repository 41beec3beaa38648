"""Turn measurements of what lowering costs into rows: each figure beside its limit and the reason.

It knows limits and rows; it runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_export.targets.limits import Limit, Limits
from llama_export.verification.judge.relative import relative_difference
from llama_export.verification.measure.exact import Exact
from llama_export.verification.measure.in_blocks import ratio_in_blocks
from llama_export.verification.measure.metrics import LogitMetrics, Perplexity
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import Row, informed, judged, unchecked

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig

# The fewer parameters, the more each of them says.
SMALL_MODEL = 500_000_000
# What rounding activations costs a chat model of 135 million parameters: 0.0055 in onnxruntime and
# 0.042 in XNNPACK, of which the eager model that rounds alike explains 0.0069 and 0.051.
_MOST_EXPLAINED = 50
# A share of the uniform guess's loss ln(V). Random weights score 1 or more; the demo model 0.45.
_TRAINED_SHARE = Limit(0.75, "a model worse than this has not learnt the text's language")
# Below this the weights are kept so well that int8 activations cost more, whatever the runtime.
_SHARE_FLOOR = Limit(2e-3, "a third of less would be below the rounding of int8 activations")

PRUNED = "a pruned head has no logits for the tokens of a text"
_LOWERING, _ACTIVATION = "lowering", "activation"
_RANDOM = "random weights, or a text that the model does not know"
_UNKNOWN_ROUNDING = "how this machine's runtime rounds activations is not known"


def lowering_rows(
    limits: Limits, shipped: Shipped, exact: Exact, *, config: LlamaConfig
) -> list[Row]:
    """Judge the artifact against the eager model with the same quantised weights."""
    rows = [*_exact_rows(limits, exact), *_shipped_rows(limits, shipped, config)]
    rows.append(_artifact_row(shipped.artifact_loss))
    return [*rows, *_activation_rows(limits, shipped)]


def runtime_rows(limits: Limits, runtime: LogitMetrics | None, *, quick: bool) -> list[Row]:
    """Judge the runtime against what computes as it should; no row where it is its own reference.

    Args:
        limits: limits of the target.
        runtime: comparison of the two; None where there is no other.
        quick: whether to give the figure without judging it, so that a processor's rounding, whose
            limit is an estimate, keeps no export from being published.
    """
    if runtime is None:
        return []
    key, name = "kl_runtime", "mean KL of the runtime against the evaluator, nats"
    note = runtime.fault or (
        f"over {runtime.positions} positions, {runtime.top1:.1%} with the same most likely token; "
        + limits.runtime_kl.reason
    )
    if quick and not runtime.fault:
        return [informed(_LOWERING, key, name, runtime.kl_estimate, note)]
    return [judged(_LOWERING, key, name, runtime.kl_estimate, limits.runtime_kl.value, note)]


def is_trained(shipped: Shipped, vocab_size: int) -> bool:
    """Return whether the best model at hand predicts the text clearly better than a guess.

    Of a pruned head nothing is known: it does not predict text.
    """
    loss = shipped.checkpoint_loss or shipped.quantised_loss or shipped.artifact_loss
    return loss is not None and loss.nats_per_token <= _TRAINED_SHARE.value * math.log(vocab_size)


def can_judge(shipped: Shipped, config: LlamaConfig, is_within: bool) -> bool:
    """Whether a figure that is large for random weights says something of these.

    Args:
        shipped: comparisons of the artifact as it ships.
        config: shape of the model.
        is_within: whether the figure is within its limit.

    Returns:
        True of a trained model. A pruned head does not tell whether the model is trained: then what
        is within the limit is good in any case, and what is beyond it may be either.
    """
    return is_trained(shipped, config.vocab_size) or (bool(config.head_tokens) and is_within)


def strictly(rows: Sequence[Row]) -> list[Row]:
    """Fail every check that cannot be made here, and every figure that could not be judged.

    One for which the weights or the checkpoint are missing is left: it can be made elsewhere. So
    is what a pruned head has not: of a whole one it would be a figure that nothing judges.
    """
    return [
        replace(row, passed=False, note=f"{row.note} (--strict: this fails)")
        if _strictly_fails(row)
        else row
        for row in rows
    ]


def _strictly_fails(row: Row) -> bool:
    if row.passed is not None:
        return False
    if row.note.startswith(_NOT_JUDGED):
        return True
    return not row.made and not row.wants and not row.note.endswith(PRUNED)


def _artifact_row(loss: Perplexity | None) -> Row:
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


def _exact_rows(limits: Limits, exact: Exact) -> list[Row]:
    level = limits.exact_wording
    metrics, cache = exact.lowering, exact.cache
    if metrics is None or cache is None:
        note = "no quantised weights; that the artifact computes what they say is not proved"
        return [unchecked(_LOWERING, "kl_exact", f"mean KL {level}, nats", note)]
    over = f"over {metrics.positions} positions; "
    return [
        judged(
            _LOWERING,
            "kl_exact",
            f"mean KL {level}, nats",
            metrics.kl_estimate,
            limits.exact_kl.value,
            metrics.fault or over + limits.exact_kl.reason,
        ),
        judged(
            _LOWERING,
            "rel_rms_exact",
            f"relative difference of the logits {level}",
            relative_difference(limits, metrics),
            limits.exact_rel_rms.value,
            metrics.fault or limits.exact_rel_rms.reason,
        ),
        *spread_rows(_LOWERING, "exact", metrics),
        _lengths_row(limits, exact),
        judged(
            _LOWERING,
            "cache_exact",
            f"relative difference of the KV cache {level}",
            cache.value,
            limits.cache_rel_rms.value,
            f"{cache.where}; {limits.cache_rel_rms.reason}",
        ),
    ]


def _lengths_row(limits: Limits, exact: Exact) -> Row:
    worst = max(exact.lengths, key=lambda each: relative_difference(limits, each.metrics))
    lengths = ", ".join(str(each.length) for each in exact.lengths)
    note = f"one prefill each of {lengths} tokens; worst at {worst.length}"
    return judged(
        _LOWERING,
        "lengths_exact",
        f"relative difference of the logits after one prefill {limits.exact_wording}",
        relative_difference(limits, worst.metrics),
        limits.same_rel_rms.value,
        worst.metrics.fault or note,
    )


def _shipped_rows(limits: Limits, shipped: Shipped, config: LlamaConfig) -> list[Row]:
    metrics, prefill = shipped.lowering, shipped.prefill
    if metrics is None or prefill is None:
        note = "no quantised weights; the cost of the runtime's arithmetic is not proved"
        return [unchecked(_LOWERING, "kl_shipped", "mean KL as shipped, nats", note)]
    limit, reason = _shipped_limit(limits, shipped, config)
    prefill_limit = max(limits.shipped_prefill_kl.value, 4 * limit)
    name = "KL after one prefill as shipped, nats"
    return [
        judged(
            _LOWERING,
            "kl_shipped",
            "mean KL as shipped, nats",
            metrics.kl_estimate,
            limit,
            metrics.fault or reason,
        ),
        _share_row(limits, shipped, metrics, config),
        judged(
            _LOWERING,
            "kl_shipped_prefill",
            name,
            prefill.kl_mean,
            prefill_limit,
            prefill.fault or limits.shipped_prefill_kl.reason,
        ),
        *spread_rows(_LOWERING, "shipped", metrics),
    ]


def _shipped_limit(limits: Limits, shipped: Shipped, config: LlamaConfig) -> tuple[float, str]:
    """Allow what rounding explains, but a trained model no more than its size does."""
    tight, loose = limits.shipped_kl, limits.shipped_kl_untrained
    trained = is_trained(shipped, config.vocab_size)
    if shipped.activation is not None and not shipped.activation.fault:
        explained = limits.explained_kl.value * shipped.activation.kl_mean
        if trained and config.num_parameters < SMALL_MODEL:
            explained = min(explained, _MOST_EXPLAINED * tight.value)
            return max(explained, limits.emulated_kl.value), limits.explained_kl.reason
        if not trained or explained < tight.value:
            return max(explained, limits.emulated_kl.value), limits.explained_kl.reason
    if trained:
        return tight.value, tight.reason
    if shipped.quantisation is None or shipped.quantisation.fault:
        return loose.value, loose.reason
    bounded = min(max(shipped.quantisation.kl_mean, tight.value), loose.value)
    return bounded, f"at most the quantisation error: {_RANDOM}"


def _share_row(limits: Limits, shipped: Shipped, metrics: LogitMetrics, config: LlamaConfig) -> Row:
    key, name = "share_of_quantisation", "KL as shipped over that of the quantisation"
    quantisation = shipped.quantisation
    if quantisation is None:
        note = "no reference checkpoint; that the runtime costs less than int4 is not proved"
        return unchecked(_LOWERING, key, name, note)
    if quantisation.fault or metrics.fault:
        return judged(_LOWERING, key, name, math.inf, limits.shipped_share.value)
    value = metrics.kl_mean / quantisation.kl_mean if quantisation.kl_mean > 0 else math.inf
    share = replace(ratio_in_blocks(metrics.own_kl, quantisation.own_kl), value=value)
    if quantisation.kl_mean < _SHARE_FLOOR.value:
        note = f"the quantisation error is below {_SHARE_FLOOR.value:g}: {_SHARE_FLOOR.reason}"
        return informed(_LOWERING, key, name, share, note)
    if not can_judge(shipped, config, value <= limits.shipped_share.value):
        return informed(_LOWERING, key, name, share, why_not_judged(shipped))
    reason = limits.shipped_share.reason
    return judged(_LOWERING, key, name, share, limits.shipped_share.value, reason)


def _activation_rows(limits: Limits, shipped: Shipped) -> list[Row]:
    """Judge the artifact against eager with its rounding emulated; add what rounding costs."""
    key, name = "kl_shipped_emulated", "mean KL as shipped against eager that rounds alike, nats"
    activation, emulated = shipped.activation, shipped.emulated
    if activation is None or emulated is None:
        missing = _UNKNOWN_ROUNDING if shipped.lowering else "no quantised weights"
        note = f"{missing}; that nothing but rounding sets the artifact apart is not proved"
        return [
            unchecked(_ACTIVATION, "kl_activation", "mean KL of rounding, nats", missing),
            unchecked(_ACTIVATION, key, name, note),
        ]
    limit = max(limits.emulated_kl.value, limits.emulated_share.value * activation.kl_mean)
    return [
        informed(
            _ACTIVATION,
            "kl_activation",
            "mean KL of rounding activations, both in eager, nats",
            activation.kl_estimate,
            activation.fault,
        ),
        *spread_rows(_ACTIVATION, "activation", activation),
        judged(
            _ACTIVATION,
            key,
            name,
            emulated.kl_estimate,
            limit,
            emulated.fault or activation.fault or limits.emulated_share.reason,
        ),
        *spread_rows(_ACTIVATION, "emulated", emulated),
    ]


def spread_rows(section: str, key: str, metrics: LogitMetrics) -> list[Row]:
    """Return how far single logits are apart; none of it is judged."""
    if metrics.fault:
        return []
    suffix = _SUFFIXES.get(key, "")
    rows = [
        informed(section, f"top1_{key}", f"same most likely token{suffix}", metrics.top1_estimate),
        informed(section, f"max_abs_{key}", f"largest logit difference{suffix}", metrics.max_abs),
    ]
    if math.isfinite(metrics.sqnr_db):
        name = f"signal to noise of the logits{suffix}, dB"
        rows.append(informed(section, f"sqnr_{key}", name, metrics.sqnr_db))
    return rows


def why_not_judged(shipped: Shipped) -> str:
    """Return why a large figure of an untrained model, or of a pruned head, is given alone."""
    return f"{_NOT_JUDGED}{PRUNED if shipped.artifact_loss is None else _RANDOM}"


_SUFFIXES = {
    "exact": " in float32",
    "shipped": " as shipped",
    "emulated": " against eager that rounds alike",
}
_NOT_JUDGED = "not judged: "
