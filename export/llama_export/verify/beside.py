"""Run an artifact in its runtime and in what computes as that runtime should, and compare.

Core ML's rounding is its own and differs from Mac to Mac; the evaluator's is what the package
declares. It knows two sessions; it does not know which runtimes they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llama_export.verify.calls import Logits, prefill, single_steps
from llama_export.verify.metrics import LogitMetrics, compare_logits
from llama_export.verify.report import Row, judged
from llama_export.verify.thresholds import TargetThresholds

if TYPE_CHECKING:
    from llama_export.targets import Session

# One prefill, then single steps.
_PREFILLED, _STEPS = 20, 12


def runtime_rows(
    limits: TargetThresholds,
    session: Session,
    open_reference: Callable[[], Session | None],
    input_ids: Sequence[int],
) -> list[Row]:
    """Judge the runtime against the reference; nothing where the runtime is the reference.

    Args:
        limits: of the target.
        session: in the runtime; it is rewound.
        open_reference: gives the other session, or None.
        input_ids: at least one; the first few are used.
    """
    reference = open_reference()
    if reference is None:
        return []
    metrics = compare_sessions(reference, session, input_ids)
    name = "mean KL of the runtime against the evaluator, nats"
    note = metrics.fault or (
        f"over {metrics.positions} positions, {metrics.top1:.1%} with the same most likely token; "
        + limits.shipped_kl.reason
    )
    limit = limits.shipped_kl.limit
    return [judged("lowering", "kl_runtime", name, metrics.kl_mean, limit, note)]


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
