"""Turn the comparison of single steps into a row: the first layer that is not what it should be.

It knows limits and reports; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from llama_export.verify.report import Row, judged
from llama_export.verify.steps import StepDifference
from llama_export.verify.thresholds import TargetThresholds


def step_rows(limits: TargetThresholds, steps: Sequence[StepDifference]) -> list[Row]:
    """Judge the keys and values of single steps; no row where they were not compared."""
    if not steps:
        return []
    limit = limits.step_rel_rms
    wrong = next((step for step in steps if not step.median <= limit.limit), None)
    worst = max(steps, key=lambda step: step.median)
    note = f"first: {wrong.where}" if wrong else f"worst: {worst.where}; {limit.reason}"
    name = "median relative difference of a step's keys and values"
    return [judged("lowering", "cache_steps", name, worst.median, limit.limit, note)]
