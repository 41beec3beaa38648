"""Run an artifact in its runtime and in what computes as that runtime should, and compare.

Core ML's rounding is its own and differs from Mac to Mac; the evaluator's is what the package
declares. It knows two sessions and what the second is called; it knows no runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llama_export.targets.limits import Limit, Limits
from llama_export.verify.measure.feed import Logits, prefill, single_steps
from llama_export.verify.measure.metrics import LogitMetrics, compare_logits
from llama_export.verify.rows import Row, informed, judged

if TYPE_CHECKING:
    from llama_export.targets.session import Session

# One prefill, then single steps.
_PREFILLED, _STEPS = 20, 12
_REFERENCE = "the evaluator"


def limits_of_runtime(limits: Limits) -> Limits:
    """Return the limits where the artifact as shipped runs in a runtime with its own rounding."""
    loose = limits.runtime_kl
    return replace(
        limits,
        shipped_kl=loose,
        shipped_kl_untrained=loose,
        emulated_kl=loose,
        shipped_prefill_kl=Limit(10 * loose.value, limits.shipped_prefill_kl.reason),
    )


def runtime_rows(
    limits: Limits,
    session: Session,
    reference: Session | None,
    input_ids: Sequence[int],
    *,
    quick: bool,
) -> list[Row]:
    """Compare the runtime with the reference; nothing where the runtime is the reference.

    Args:
        limits: of the target.
        session: in the runtime; it is rewound.
        reference: the other session; None: there is none.
        input_ids: at least one; the first few are used.
        quick: give the figure without judging it, so that a processor's rounding, whose limit is
            an estimate, keeps no export from being published.
    """
    if reference is None:
        return []
    metrics = compare_sessions(reference, session, input_ids)
    key, name = "kl_runtime", f"mean KL of the runtime against {_REFERENCE}, nats"
    note = metrics.fault or (
        f"over {metrics.positions} positions, {metrics.top1:.1%} with the same most likely token; "
        + limits.runtime_kl.reason
    )
    if quick and not metrics.fault:
        return [informed("lowering", key, name, metrics.kl_mean, note)]
    return [judged("lowering", key, name, metrics.kl_mean, limits.runtime_kl.value, note)]


def compare_sessions(
    reference: Session, session: Session, input_ids: Sequence[int]
) -> LogitMetrics:
    """Feed both the same tokens, a prefill and single steps, and compare every row of logits."""
    wanted, found = (_rows(each, input_ids) for each in (reference, session))
    return compare_logits(wanted, found)


def _rows(session: Session, input_ids: Sequence[int]) -> Logits:
    ids = input_ids[: min(_PREFILLED + _STEPS, session.max_context)]
    prefilled = max(1, min(_PREFILLED, len(ids) - 1))
    session.rewind(0)
    first = prefill(session, ids[:prefilled], _nothing)
    if prefilled == len(ids):
        return first
    return np.concatenate([first, single_steps(session, ids[prefilled:], _nothing)])


def _nothing() -> None:
    """Count no call: where there is no reference, there are none."""
