"""Choose how the difference of two models' logits is taken relative to their size.

It knows figures and limits; it runs nothing.
"""

from __future__ import annotations

from llama_export.targets.limits import Limits
from llama_export.verification.measure.metrics import LogitMetrics


def relative_difference(limits: Limits, metrics: LogitMetrics) -> float:
    """Return the relative difference that a target's limits are for.

    In exact arithmetic every digit counts. Where a runtime always rounds, logits are compared less
    their mean, which no softmax sees: at a few positions of SmolLM2 rounding moves all 49152 logits
    alike by a third of their size, and the KL there is that of any other position.
    """
    return metrics.rel_rms if limits.has_exact_mode else metrics.centred_rms
