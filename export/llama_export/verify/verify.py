"""Check a bundle: its files, the weights inside it, and what it computes.

`verify_bundle` reads like the report. It runs the artifact through `Session` alone and compares it
with the eager model; it knows no runtime, no file format and no command line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import BundleError
from llama_export.system.machine import Machine
from llama_export.verify.artifact import Subject, refuse_other_model, subject_of
from llama_export.verify.findings import Divergence
from llama_export.verify.judge.limits import limits_for
from llama_export.verify.judge.sessions import session_rows
from llama_export.verify.judge.steps import step_rows
from llama_export.verify.judge.terms import (
    lowering_rows,
    quantisation_rows,
    strictly,
    with_rounding,
)
from llama_export.verify.locate.locate import MOST_POSITIONS, locate
from llama_export.verify.measure.eager import Eager, QuantisedEager
from llama_export.verify.measure.exact import Exact, exact_calls, measure_exact
from llama_export.verify.measure.runtime import limits_of_runtime, runtime_rows
from llama_export.verify.measure.shipped import Shipped, measure_shipped
from llama_export.verify.measure.single_steps import compare_steps, stepped_caches
from llama_export.verify.measure.structure import fewest_bits, structure_rows
from llama_export.verify.report.plot_data import gather_series
from llama_export.verify.rows import Row, VerifyReport, judged, unchecked
from llama_export.verify.samples import Budget, Text, plan_budget

if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.checkpoints.checkpoint import Checkpoint
    from llama_export.llama.activations import RoundedInputs
    from llama_export.llama.attention import KeyValue
    from llama_quantize.checkpoint.weights import QuantizedWeights

Progress = Callable[[int, int], None]


def verify_bundle(
    bundle: Bundle,
    *,
    weights: QuantizedWeights | None = None,
    checkpoint: Checkpoint | None = None,
    text: Path | None = None,
    quick: bool = False,
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a bundle against the weights and the checkpoint that it was made from.

    Args:
        bundle: what to check.
        weights: the quantised weights that it holds; without them its lowering is not proved.
        checkpoint: the original; without it the quantisation is not proved.
        text: a UTF-8 file to read instead of the built-in text; repeated when too short.
        quick: measure about 32 positions only.
        strict: a check that could not be made, or not be judged, fails.
        threads: the runtime's threads; None is its own choice.
        progress: told (calls done, calls in all) of the artifact.

    Raises:
        BundleError: a file was changed, the target is unknown, or the weights are of a model of
            another shape.
        PromptError: the text cannot be used.
    """
    subject = subject_of(bundle, weights=weights, checkpoint=checkpoint, text=text, threads=threads)
    return verify_subject(subject, quick=quick, strict=strict, progress=progress)


def verify_subject(
    subject: Subject,
    *,
    quick: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check an artifact; `verify_bundle` with the bundle's parts laid out.

    Raises:
        BundleError: a file was changed, the target is unknown, or the weights are of a model of
            another shape.
    """
    limits = limits_for(subject.target, subject.kv_dtype)
    refuse_other_model(subject)
    structure = structure_rows(subject)
    reference = subject.open_reference()
    limits = limits if reference is None else limits_of_runtime(limits)

    session = subject.open_session(False)
    memory = {"after loading": Machine().resident_bytes()}
    max_context = session.max_context
    budget = plan_budget(subject.config, max_context, quick=quick)
    text = subject.read_text()
    # One token more than is read: the last position's prediction is scored too.
    token_ids = text.take(max(budget.longest, budget.positions + 1))
    rounding = subject.rounding() if subject.weights is not None else None
    always = not limits.has_exact_mode and bool(rounding)
    tick = _counter(budget, progress, steps=budget.positions if always else 0)
    # What always rounds is compared step by step, each after the artifact's own cache.
    layers, ids = subject.config.num_hidden_layers, token_ids[: budget.positions]
    given = stepped_caches(session, ids, layers, tick) if always else None
    quantised = _eager_quantised(
        subject, token_ids[: budget.longest], budget, max_context, rounding, given
    )
    original = _eager_original(subject, token_ids[: budget.positions])
    shipped = measure_shipped(
        session,
        quantised,
        original,
        token_ids[: budget.positions + 1],
        len(text.token_ids),
        tick,
    )
    runtime = runtime_rows(limits, session, reference, token_ids, quick=quick)
    del session, reference, original  # a 1B session is 1 GB: never two at once
    if subject.checkpoint is not None:
        subject.checkpoint.release()  # 2.5 GB of mapped pages at 1B, which nobody reads any more
    exact_session = subject.open_session(limits.has_exact_mode)
    exact = measure_exact(exact_session, quantised, token_ids[: budget.longest], budget, tick)
    del exact_session
    steps = (
        compare_steps(quantised, given, limits.step_rel_rms.value)
        if quantised and given is not None
        else ()
    )
    limits = with_rounding(limits, shipped)
    memory["peak while verifying"] = Machine().peak_resident_bytes()

    vocab_size, bits = subject.config.vocab_size, fewest_bits(subject.weights)
    rows = [
        *structure,
        *lowering_rows(limits, shipped, exact, vocab_size=vocab_size),
        *step_rows(limits, steps, shipped),
        *runtime,
        *session_rows(limits, exact),
        *quantisation_rows(shipped, subject.weights, bits=bits, vocab_size=vocab_size),
    ]
    divergence, inside = _look_inside(subject, rows, token_ids[: budget.longest], quick=quick)
    rows = [*rows, *inside]
    rows = strictly(rows) if strict else rows
    return VerifyReport(
        target=subject.target,
        model=subject.model,
        settings=_settings(text, budget, max_context, quick=quick, strict=strict),
        rows=tuple(rows),
        measurements=_measurements(shipped, exact, always=bool(steps)),
        series=gather_series(subject, shipped, exact, memory),
        divergence=divergence,
    )


def _eager_quantised(
    subject: Subject,
    input_ids: Sequence[int],
    budget: Budget,
    max_context: int,
    rounding: RoundedInputs | None,
    given: Sequence[KeyValue] | None,
) -> QuantisedEager | None:
    if subject.weights is None:
        return None
    return QuantisedEager.run(
        subject.config,
        subject.weights.get,
        input_ids,
        positions=budget.positions,
        max_context=max_context,
        rounding=rounding,
        given=given,
    )


def _eager_original(subject: Subject, input_ids: Sequence[int]) -> Eager | None:
    if subject.checkpoint is None or subject.weights is None:
        return None
    return Eager.run(subject.config, subject.checkpoint.tensor, input_ids)


def _look_inside(
    subject: Subject, rows: Sequence[Row], token_ids: Sequence[int], *, quick: bool
) -> tuple[Divergence | None, list[Row]]:
    """Check every operator on its own input: always in a full run, else when something is wrong.

    What rounding hides from the logits, such as the wrong epsilon of one norm, shows here.
    """
    wrong = any(
        row.passed is False and row.section in ("structure", "lowering", "session") for row in rows
    )
    if quick and not wrong:
        return None, []
    key, name = "operators", "operators that differ on their own input"
    if subject.weights is None:
        note = "no quantised weights; that each operator is right is not proved"
        return None, [unchecked("lowering", key, name, note)]
    if subject.probe is None:
        note = "this target's artifacts cannot be looked into"
        return None, [unchecked("lowering", key, name, note)]
    try:
        found = locate(subject.probe, subject.config, subject.weights.get, token_ids)
    except BundleError as error:
        note = f"the artifact cannot be looked into: {error.message}"
        return None, [unchecked("lowering", key, name, note)]
    count = 0 if found is None else 1 + len(found.others)
    note = f"over the first {min(len(token_ids), MOST_POSITIONS)} tokens"
    if found is not None:
        note = f"first: {found.operator}"
    return found, [judged("lowering", key, name, count, 0, note)]


def _measurements(
    shipped: Shipped, exact: Exact, *, always: bool
) -> dict[str, dict[str, float | int | str | None]]:
    """Gather the figures; of what always rounds, the taught steps are the like with like."""
    found = {**shipped.to_json(), **exact.to_json()}
    if always and shipped.emulated is not None:
        found["lowering_exact"] = shipped.emulated.to_json()
    return found


def _settings(
    text: Text, budget: Budget, max_context: int, *, quick: bool, strict: bool
) -> dict[str, int | bool | str]:
    return {
        "quick": quick,
        "strict": strict,
        "text": text.name,
        "text_tokens": len(text.token_ids),
        "positions": budget.positions,
        "exact_steps": budget.exact_steps,
        "longest_prefill": budget.longest,
        "max_context": max_context,
    }


def _counter(budget: Budget, progress: Progress | None, *, steps: int) -> Callable[[], None]:
    total = steps + budget.positions + 1 + exact_calls(budget)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return tick
