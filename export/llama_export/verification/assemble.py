"""Assemble a report from what was measured, judged and located.

It adds up and renames; it measures nothing, judges nothing and lays nothing out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llama_export.verification.artifact import Artifact
from llama_export.verification.findings import Divergence, PlotData, TensorFigure
from llama_export.verification.identity import Identity
from llama_export.verification.measure.measure import Measurements
from llama_export.verification.rows import Row, VerifyReport
from llama_quantize.scheme import GroupedInt

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights

# bfloat16 and float16, the only forms that are no integers.
_FLOAT_BITS = 16
_OTHER_FILES = "tokenizer and other files"
_REST = "norms and the rest"


def assemble_report(
    artifact: Artifact,
    measured: Measurements,
    rows: Sequence[Row],
    divergence: Divergence | None,
    identity: Identity,
    *,
    quick: bool,
    strict: bool,
) -> VerifyReport:
    """Put a report together.

    Args:
        artifact: artifact with its references.
        measured: measurements of that artifact.
        rows: judgements on them.
        divergence: place where the artifact first goes wrong.
        identity: what was verified, with what, and where.
        quick: whether the measurements are those of the short version.
        strict: whether checks that were not made count as failures.
    """
    reading = measured.reading
    return VerifyReport(
        target=artifact.bundle.manifest.target,
        model=artifact.bundle.manifest.model.name,
        settings={
            "quick": quick,
            "strict": strict,
            "text": reading.text.name,
            "text_sha256": reading.text.sha256,
            "text_tokens": len(reading.text.token_ids),
            "positions": reading.budget.positions,
            "exact_steps": reading.budget.exact_steps,
            "longest_prefill": reading.budget.longest,
            "max_context": reading.max_context,
        },
        rows=tuple(rows),
        measurements=_figures(measured),
        plot_data=_plot_data(artifact, measured),
        divergence=divergence,
        identity=identity,
    )


def _figures(measured: Measurements) -> dict[str, dict[str, float | int | str | None]]:
    shipped = measured.shipped
    figures = {**shipped.to_json(), **measured.exact.to_json()}
    return figures if measured.gain is None else figures | measured.gain.to_json()


def _plot_data(artifact: Artifact, measured: Measurements) -> PlotData:
    """Gather the figures behind the plots; what was not measured is left out."""
    shipped, exact = measured.shipped, measured.exact
    # Of an artifact that always rounds, steps after its own cache compare like with like.
    lowering = (shipped.emulated, 0) if measured.steps else (exact.lowering, exact.first_compared)
    terms = {
        "quantisation": (shipped.quantisation, 0),
        "activation": (shipped.activation, 0),
        "lowering_shipped": (shipped.lowering, 0),
        "lowering_exact": lowering,
    }
    return PlotData(
        kl_by_position={
            # Positions before the first that was compared have no figure.
            name: (*(math.nan,) * first, *map(float, metrics.kl))
            for name, (metrics, first) in terms.items()
            if metrics is not None
        },
        tensors=() if artifact.weights is None else _tensor_figures(artifact.weights),
        logit_scatter=shipped.scatter,
        sizes_bytes=_sizes_of_parts(artifact),
        memory_bytes=measured.memory_bytes,
    )


def _tensor_figures(weights: QuantizedWeights) -> tuple[TensorFigure, ...]:
    figures = []
    for stats in weights.stats:
        scheme = weights.scheme(stats.name)
        bits = scheme.bits if isinstance(scheme, GroupedInt) else _FLOAT_BITS
        sqnr_db = stats.sqnr_db if math.isfinite(stats.sqnr_db) else None
        figures.append(TensorFigure(stats.name, bits, sqnr_db, stats.size_bytes))
    return tuple(figures)


def _sizes_of_parts(artifact: Artifact) -> Mapping[str, int]:
    """Add up a bundle's files in the few parts that a reader wants to see."""
    from llama_export.targets.footprint import SCALES

    sizes: dict[str, int] = {}
    for part in artifact.target.describe(artifact.on_disk).parts:
        kind = part.kind.replace(" codes", " linears")
        kept = kind.endswith(("linears", "table", "weights")) or kind == SCALES
        name = kind if kept else _REST
        sizes[name] = sizes.get(name, 0) + part.size_bytes
    sizes[_REST] = sizes.pop(_REST, 0)
    sizes[_OTHER_FILES] = max(artifact.bundle.size_bytes - sum(sizes.values()), 0)
    return sizes
