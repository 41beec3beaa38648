"""Gather what the plots of a report show, from measurements that were made anyway.

It knows measurements and weights' records; it draws nothing and runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llama_export.verify.artifact import Subject
from llama_export.verify.findings import Series, TensorFigure
from llama_export.verify.measure.exact import Exact
from llama_export.verify.measure.shipped import Shipped
from llama_quantize.scheme import GroupedInt

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights

# bfloat16 and float16, the only forms that are no integers.
_FLOAT_BITS = 16


def gather_series(
    subject: Subject, shipped: Shipped, exact: Exact, memory_bytes: Mapping[str, int]
) -> Series:
    """Lay out the figures of one verification; what was not measured is left out."""
    terms = {
        "quantisation": (shipped.quantisation, 0),
        "activation": (shipped.activation, 0),
        "lowering_shipped": (shipped.lowering, 0),
        "lowering_exact": (exact.lowering, exact.first_compared),
    }
    return Series(
        kl_by_position={
            # Positions before the first that was compared have no figure.
            name: (*(math.nan,) * first, *map(float, metrics.kl))
            for name, (metrics, first) in terms.items()
            if metrics is not None
        },
        tensors=_tensor_figures(subject.weights),
        logit_scatter=shipped.scatter,
        sizes_bytes=dict(subject.sizes_bytes()),
        memory_bytes=dict(memory_bytes),
    )


def _tensor_figures(weights: QuantizedWeights | None) -> tuple[TensorFigure, ...]:
    if weights is None:
        return ()
    figures = []
    for stats in weights.stats:
        scheme = weights.scheme(stats.name)
        bits = scheme.bits if isinstance(scheme, GroupedInt) else _FLOAT_BITS
        sqnr_db = stats.sqnr_db if math.isfinite(stats.sqnr_db) else None
        figures.append(TensorFigure(stats.name, bits, sqnr_db, stats.size_bytes))
    return tuple(figures)
