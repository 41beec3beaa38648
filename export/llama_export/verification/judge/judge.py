"""Judge what was measured of an artifact: choose the limits, and put each figure beside its own.

It runs nothing, and knows no runtime and no layout.
"""

from __future__ import annotations

from dataclasses import replace

from llama_export.targets.limits import Limit, Limits
from llama_export.verification.artifact import Artifact
from llama_export.verification.judge.beside import beside_rows
from llama_export.verification.judge.gain import calibration_rows, gain_rows
from llama_export.verification.judge.lookups import lookup_row, wiring_rows
from llama_export.verification.judge.origin import origin_rows
from llama_export.verification.judge.quantisation import quantisation_rows
from llama_export.verification.judge.sessions import session_rows
from llama_export.verification.judge.steps import step_rows
from llama_export.verification.judge.structure import structure_rows
from llama_export.verification.judge.terms import lowering_rows, runtime_rows
from llama_export.verification.measure.measure import Measurements
from llama_export.verification.measure.nearest import methods_of_linears
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import Row

# Two that round tip different codes, so they may differ by twice what rounding does to one.
_SPREAD, _WORST_ROW = 2.0, 4.0
# Rows of neighbouring positions of random models are 0.9 to 1.3 apart in the median: half a row is
# no rounding, whatever that costs elsewhere.
_MOST_AT_ONE = 0.5


def judge(artifact: Artifact, measured: Measurements, *, quick: bool = False) -> list[Row]:
    """Return every figure beside its limit and the limit's reason.

    Args:
        artifact: artifact with its references.
        measured: measurements of that artifact.
        quick: whether they are those of the short version.
    """
    limits = _limits_of(artifact, measured)
    shipped, exact = measured.shipped, measured.exact
    bits = measured.structure.fewest_bits
    methods = () if artifact.weights is None else methods_of_linears(artifact.weights).values()
    return [
        *structure_rows(measured.structure),
        *origin_rows(measured.origin, has_weights=artifact.weights is not None),
        *beside_rows(measured.beside),
        *wiring_rows(measured.wiring),
        lookup_row(measured.lookups, has_weights=artifact.weights is not None),
        *lowering_rows(limits, shipped, exact, config=artifact.config),
        *step_rows(limits, measured.steps, shipped),
        *runtime_rows(limits, measured.runtime, quick=quick),
        *session_rows(limits, exact),
        *quantisation_rows(shipped, artifact.weights, bits=bits, config=artifact.config),
        *gain_rows(measured.gain, shipped, methods, config=artifact.config, quick=quick),
        *calibration_rows(artifact.weights, methods),
    ]


def _limits_of(artifact: Artifact, measured: Measurements) -> Limits:
    limits = artifact.target.limits.for_cache(artifact.kv_dtype)
    if measured.runtime is not None:
        limits = with_runtime(limits)
    return with_rounding(limits, measured.shipped)


def with_runtime(limits: Limits) -> Limits:
    """Return the limits where the artifact as shipped runs in a runtime with its own rounding."""
    loose = limits.runtime_kl
    return replace(
        limits,
        shipped_kl=loose,
        shipped_kl_untrained=loose,
        emulated_kl=loose,
        shipped_prefill_kl=Limit(10 * loose.value, limits.shipped_prefill_kl.reason),
    )


def with_rounding(limits: Limits, shipped: Shipped) -> Limits:
    """Widen the limits of a runtime that always rounds by the spread of its tipped roundings.

    Random layers magnify rounding many times more than trained ones, so the measure is the cost of
    rounding itself, both in eager: over all positions for what is a mean of many, and what 99 % of
    them stay within for what is compared at one, so that no outlier sets the limit of the others.
    Of 1000 positions of SmolLM2 that is 0.106, with 0.063 over all; twice it, 0.21, is more than
    the worst one's 0.179.
    """
    rounding = shipped.activation
    if limits.has_exact_mode or rounding is None or rounding.fault:
        return limits
    kl, spread = limits.explained_kl.value * rounding.kl_mean, _SPREAD * rounding.centred_rms
    at_one = min(_SPREAD * rounding.centred_rms_p99, _MOST_AT_ONE)
    return replace(
        limits,
        exact_kl=_at_least(limits.exact_kl, kl),
        exact_rel_rms=_at_least(limits.exact_rel_rms, spread),
        same_rel_rms=_at_least(limits.same_rel_rms, at_one),
        cache_rel_rms=_at_least(limits.cache_rel_rms, _WORST_ROW * spread),
    )


def _at_least(limit: Limit, value: float) -> Limit:
    return replace(limit, value=max(limit.value, value))
