"""Check a bundle: its files, the weights inside it, and what it computes.

`verify_bundle` reads like the report: measure, judge, locate, report. It runs the artifact through
`Session` alone and compares it with the eager model; it knows no runtime, no file format and no
command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.errors import BundleError
from llama_export.sources.model_files import ExpectedFiles
from llama_export.targets import registry
from llama_export.verification.artifact import Artifact, refuse_other_model
from llama_export.verification.assemble import assemble_report
from llama_export.verification.findings import Divergence
from llama_export.verification.golden.compare import golden_rows
from llama_export.verification.golden.golden import GOLDEN_NAME, read_golden
from llama_export.verification.golden.record import measure_again
from llama_export.verification.identity import identify
from llama_export.verification.judge.judge import judge
from llama_export.verification.judge.terms import strictly
from llama_export.verification.locate.locate import MOST_POSITIONS, locate
from llama_export.verification.measure.measure import Measurements, Progress, measure
from llama_export.verification.measure.nearest import methods_of_linears
from llama_export.verification.rows import Row, VerifyReport, judged, unchecked
from llama_export.verification.samples import UserText

if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.checkpoints.checkpoint import Checkpoint
    from llama_quantize.checkpoint.weights import QuantizedWeights


@dataclass(frozen=True)
class VerifySettings:
    """How a bundle is verified.

    Args:
        text: text to read instead of the built-in one, as `read_text` returns it; repeated when too
            short.
        quick: whether to measure about 32 positions only.
        strict: whether a check that can never be made here, or not be judged, fails.
        threads: number of runtime threads; None leaves it to the runtime.
        command: command line, to stand in the report; empty for a call from Python.
    """

    text: UserText | None = None
    quick: bool = False
    strict: bool = False
    threads: int | None = None
    command: str = ""


def verify_bundle(
    bundle: Bundle,
    *,
    weights: QuantizedWeights | None = None,
    checkpoint: Checkpoint | None = None,
    files: ExpectedFiles | None = None,
    settings: VerifySettings = VerifySettings(),
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a bundle against the weights and the checkpoint that it was made from.

    Args:
        bundle: bundle to check.
        weights: quantised weights that it should hold; without them its lowering is not proved.
        checkpoint: original; without it the quantisation is not proved.
        files: content that the bundle's small files should have; None: the checkpoint's, or those
            kept with the weights.
        settings: text, thoroughness and threads.
        progress: function that takes the artifact's calls done and its calls in all.

    Raises:
        BackendUnavailableError: this machine's runtime cannot run the artifact.
        BundleError: a file was changed, the target is unknown, or the weights are of a model of
            another shape.
        PromptError: the text is too short.
    """
    registry.require_runs_here(bundle)
    artifact = Artifact(
        bundle,
        registry.get(bundle.manifest.target),
        weights,
        checkpoint,
        settings.text,
        settings.threads,
        given_files=files,
    )
    return verify_artifact(
        artifact,
        quick=settings.quick,
        strict=settings.strict,
        progress=progress,
        command=settings.command,
    )


def verify_artifact(
    artifact: Artifact,
    *,
    quick: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> VerifyReport:
    """Check an artifact with its references, as `verify_bundle` does.

    Args:
        artifact: artifact to check.
        quick: whether to measure about 32 positions only.
        strict: whether a check that can never be made here, or not be judged, fails.
        progress: function that takes the artifact's calls done and its calls in all.
        command: command line, to stand in the report.

    Raises:
        BundleError: a file was changed, or the weights are of a model of another shape.
        PromptError: the text cannot be used.
        UsageError: `SOURCE_DATE_EPOCH` is no number of seconds.
    """
    refuse_other_model(artifact)
    methods = () if artifact.weights is None else methods_of_linears(artifact.weights).values()
    identity = identify(artifact.bundle.manifest, methods=methods, command=command)
    measured = measure(artifact, quick=quick, progress=progress)
    rows = judge(artifact, measured, quick=quick)
    divergence, located = _locate(artifact, measured, rows, quick=quick)
    rows = [*rows, *located, *([] if quick else _golden(artifact))]
    return assemble_report(
        artifact,
        measured,
        strictly(rows) if strict else rows,
        divergence,
        identity,
        quick=quick,
        strict=strict,
    )


def _golden(artifact: Artifact) -> list[Row]:
    """Make the calls of the bundle's golden data again; without such data there is no row."""
    if GOLDEN_NAME not in artifact.bundle.manifest.files:
        return []
    golden = read_golden(artifact.bundle)
    with closing(artifact.open_session(exact=False)) as session:
        return golden_rows(golden, measure_again(session, golden), "session")


def _locate(
    artifact: Artifact, measured: Measurements, rows: Sequence[Row], *, quick: bool
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
    if artifact.weights is None:
        note = "no quantised weights; that each operator is right is not proved"
        return None, [unchecked("lowering", key, name, note)]
    probe = artifact.probe()
    if probe is None:
        note = "this target's artifacts cannot be looked into"
        return None, [unchecked("lowering", key, name, note)]
    token_ids = measured.reading.longest
    try:
        found = locate(probe, artifact.config, artifact.weights.get, token_ids)
    except BundleError as error:
        note = f"the artifact cannot be looked into: {error.message}"
        return None, [unchecked("lowering", key, name, note)]
    count = 0 if found is None else 1 + len(found.others)
    note = f"over the first {min(len(token_ids), MOST_POSITIONS)} tokens"
    if found is not None:
        note = f"first: {found.operator}"
    return found, [judged("lowering", key, name, count, 0, note)]
