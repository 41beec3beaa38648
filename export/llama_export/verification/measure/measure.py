"""Measure an artifact: read its weights, run it as shipped, then run it in exact float32.

It owns the order of the sessions: a session of a 1B model is 1 GB, so each is released before the
next is opened. It knows no limits and no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_export.system.machine import Machine
from llama_export.verification.artifact import Artifact
from llama_export.verification.measure.beside import Beside, compare_beside
from llama_export.verification.measure.eager import Eager, QuantisedEager
from llama_export.verification.measure.exact import Exact, exact_calls, measure_exact
from llama_export.verification.measure.feed import prefill, single_steps
from llama_export.verification.measure.gain import Gain, measure_gain
from llama_export.verification.measure.lookups import Lookups, measure_lookups
from llama_export.verification.measure.metrics import LogitMetrics, Logits, compare_logits
from llama_export.verification.measure.origin import Origin, compare_origin
from llama_export.verification.measure.shipped import Shipped, TextTokens, measure_shipped
from llama_export.verification.measure.single_steps import (
    StepDifference,
    compare_steps,
    stepped_caches,
)
from llama_export.verification.measure.structure import Structure, read_structure
from llama_export.verification.samples import Budget, Reading, plan_reading

if TYPE_CHECKING:
    from llama_export.llama.attention import KeyValue
    from llama_export.targets.session import Session
    from llama_export.targets.wiring import Wiring

Progress = Callable[[int, int], None]

# Of a runtime and what computes as it should: one prefill, then single steps.
_PREFILLED, _STEPS = 20, 12


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured of one artifact.

    Args:
        structure: content of the bundle.
        origin: comparison of the weights with the checkpoint.
        beside: differences of what stands beside the artifact.
        wiring: operators of the artifact; None where they are not followed.
        lookups: rows that ids get; None where they cannot be looked up.
        reading: tokens that were read.
        shipped: results as shipped, token by token.
        runtime: runtime against what computes as it should; None where it is its own reference.
        gain: what the method gained over plain rounding; None where that was not measured.
        exact: results in exact float32.
        steps: comparison of single steps; empty for an artifact that can compute without rounding.
        memory_bytes: resident memory at some moments.
    """

    structure: Structure
    origin: Origin
    beside: Beside
    wiring: Wiring | None
    lookups: Lookups | None
    reading: Reading
    shipped: Shipped
    runtime: LogitMetrics | None
    gain: Gain | None
    exact: Exact
    steps: tuple[StepDifference, ...]
    memory_bytes: Mapping[str, int]


def measure(
    artifact: Artifact, *, quick: bool = False, progress: Progress | None = None
) -> Measurements:
    """Measure an artifact against its references and against itself.

    Args:
        artifact: artifact with its references.
        quick: whether to read about 32 positions only.
        progress: function that takes the calls done and the calls in all.

    Raises:
        BundleError: a listed file is not what was written, or the artifact cannot be loaded.
        PromptError: the text cannot be used.
    """
    structure = read_structure(artifact)
    origin = compare_origin(artifact, structure)
    beside = compare_beside(artifact, structure.unlisted)
    wiring = artifact.wiring()
    lookups = measure_lookups(artifact, quick=quick)
    first = _run_as_shipped(artifact, quick=quick, progress=progress)
    if artifact.checkpoint is not None:
        artifact.checkpoint.release()  # 2.5 GB of mapped pages at 1B, which nobody reads any more
    exact = _run_exactly(artifact, first)
    steps = (
        compare_steps(first.quantised, first.artifact_cache)
        if first.quantised and first.artifact_cache is not None
        else ()
    )
    return Measurements(
        structure=structure,
        origin=origin,
        beside=beside,
        wiring=wiring,
        lookups=lookups,
        reading=first.reading,
        shipped=first.shipped,
        runtime=first.runtime,
        gain=first.gain,
        exact=exact,
        steps=steps,
        memory_bytes={
            "after loading": first.loaded_bytes,
            "peak while verifying": Machine().peak_resident_bytes(),
        },
    )


@dataclass(frozen=True)
class _AsShipped:
    """The run as shipped, and what the exact run needs of it."""

    reading: Reading
    quantised: QuantisedEager | None
    artifact_cache: Sequence[KeyValue] | None
    shipped: Shipped
    runtime: LogitMetrics | None
    gain: Gain | None
    loaded_bytes: int
    tick: Callable[[], None]


def _run_as_shipped(artifact: Artifact, *, quick: bool, progress: Progress | None) -> _AsShipped:
    """Run the artifact as shipped; its session and the original's states end with this call."""
    with ExitStack() as opened:
        reference = artifact.open_reference()
        if reference is not None:
            opened.enter_context(closing(reference))
        session = opened.enter_context(closing(artifact.open_session(exact=False)))
        return _read_as_shipped(artifact, session, reference, quick=quick, progress=progress)


def _read_as_shipped(
    artifact: Artifact,
    session: Session,
    reference: Session | None,
    *,
    quick: bool,
    progress: Progress | None,
) -> _AsShipped:
    loaded_bytes = Machine().resident_bytes()
    reading = plan_reading(artifact.config, artifact.read_text(), session.max_context, quick=quick)
    rounding = artifact.rounded_inputs() if artifact.weights is not None else None
    always_rounds = not artifact.target.limits.has_exact_mode and bool(rounding)
    tick = _counter(reading.budget, progress, stepped=always_rounds)
    artifact_cache = None
    if always_rounds:  # it is compared step by step, each after the artifact's own cache
        layers = artifact.config.num_hidden_layers
        artifact_cache = stepped_caches(session, reading.compared, layers, tick)
    quantised = original = None
    if artifact.weights is not None:
        quantised = QuantisedEager.run(
            artifact.config,
            artifact.weights.get,
            reading.longest,
            positions=reading.budget.positions,
            max_context=reading.max_context,
            rounding=rounding,
            artifact_cache=artifact_cache,
        )
        if artifact.checkpoint is not None:
            original = Eager.run(artifact.config, artifact.checkpoint.tensor, reading.compared)
    token_ids = reading.token_ids[: reading.budget.positions + 1]
    text = TextTokens(len(reading.text.token_ids), scored=not artifact.config.head_tokens)
    shipped = measure_shipped(session, quantised, original, token_ids, text, tick)
    runtime = None
    if reference is not None:
        runtime = compare_sessions(reference, session, reading.token_ids)
    gain = None if quick else measure_gain(artifact, reading, original, shipped.quantisation)
    return _AsShipped(
        reading, quantised, artifact_cache, shipped, runtime, gain, loaded_bytes, tick
    )


def _run_exactly(artifact: Artifact, first: _AsShipped) -> Exact:
    reading = first.reading
    with closing(artifact.open_session(exact=artifact.target.limits.has_exact_mode)) as session:
        return measure_exact(
            session,
            first.quantised,
            reading.longest,
            reading.budget,
            len(reading.text.token_ids),
            first.tick,
        )


def compare_sessions(
    reference: Session, session: Session, input_ids: Sequence[int]
) -> LogitMetrics:
    """Feed two sessions the same tokens, a prefill and single steps, and compare every row.

    Args:
        reference: session that computes as the other should; it is rewound.
        session: session in the runtime; it is rewound.
        input_ids: at least one token; the first few are used.
    """
    wanted, found = (_rows(each, input_ids) for each in (reference, session))
    return compare_logits(wanted, found)


def _rows(session: Session, input_ids: Sequence[int]) -> Logits:
    ids = input_ids[: min(_PREFILLED + _STEPS, session.max_context)]
    prefilled = max(1, min(_PREFILLED, len(ids) - 1))
    session.rewind(0)
    first = prefill(session, ids[:prefilled], _count_nothing)
    if prefilled == len(ids):
        return first
    return np.concatenate([first, single_steps(session, ids[prefilled:], _count_nothing)])


def _count_nothing() -> None:
    """Count no call: most artifacts have no reference, so progress leaves these calls out."""


def _counter(budget: Budget, progress: Progress | None, *, stepped: bool) -> Callable[[], None]:
    """Return a function to call after each call of a session."""
    total = (budget.positions if stepped else 0) + budget.positions + 1 + exact_calls(budget)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return tick
