"""Turn the comparison of single steps into rows: the first layer that is not what it should be.

It knows limits and rows; it runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama_export.targets.limits import Limits
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.measure.single_steps import StepDifference
from llama_export.verification.rows import Row, judged

# Allowed spread of tipped roundings, over the cost of rounding itself in that layer.
_SPREAD = 2.0
# So many clean steps do not all tip within one layer: about one in five does at 1B.
_ENOUGH = 8


def step_rows(limits: Limits, steps: Sequence[StepDifference], shipped: Shipped) -> list[Row]:
    """Judge the keys, values and logits of single steps; no rows where none were compared."""
    if not steps or shipped.best_step is None:
        return []
    limit, reason = limits.step_rel_rms.value, limits.step_rel_rms.reason
    wrong = _first_wrong(steps, limit, stay_clean=limits.steps_stay_clean)
    exact = [step for step in steps if step.clean(limit)]
    last = steps[-1].clean(limit)
    note = f"{last} steps of the last layer differ by float32 sums alone: {reason}"
    if wrong is not None:
        note = f"first: {wrong.where}, {wrong.least:.2g}; {len(exact)} of {len(steps)} are right"
    name = "first keys or values that no single step computes"
    first = 0 if wrong is None else 1
    rounding = math.inf if shipped.activation is None else shipped.activation.rel_rms
    clean = limits.steps_stay_clean and last >= _ENOUGH
    allowed = limit if clean else max(limit, _SPREAD * rounding)
    logits = "relative difference of the best step's logits"
    return [
        judged("lowering", "cache_steps", name, first, 0, note),
        judged("lowering", "best_step", logits, shipped.best_step, allowed, reason),
    ]


def _first_wrong(
    steps: Sequence[StepDifference], limit: float, *, stay_clean: bool
) -> StepDifference | None:
    """Find the first rows that are clean in no step, although many steps were clean before them.

    Tipped roundings take clean steps away bit by bit, a fault takes them all at once. Where few
    are left, rows may be as far off as rounding itself puts them.
    """
    before = _ENOUGH
    for step in steps:
        clean = stay_clean and before >= _ENOUGH
        allowed = limit if clean else max(limit, _SPREAD * step.rounding)
        if not step.least <= allowed:
            return step
        before = step.clean(limit)
    return None
