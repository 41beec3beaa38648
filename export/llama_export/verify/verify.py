"""Check a bundle: its files, the weights inside it, and what it computes.

`verify_bundle` reads like the report. It runs the artifact through `Session` alone and compares it
with the eager model; it knows no runtime, no file format and no command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_export.checkpoints.hf import HEAD, TABLE, expected_shapes
from llama_export.config import LlamaConfig
from llama_export.errors import BundleError
from llama_export.verify.judge import lowering_rows, quantisation_rows
from llama_export.verify.measure import (
    EXACT_EXTRA_CALLS,
    Eager,
    measure_exact,
    measure_shipped,
)
from llama_export.verify.report import Row, VerifyReport, judged, unchecked
from llama_export.verify.samples import (
    Budget,
    cycled_token_ids,
    plan_budget,
    sample_token_ids,
)
from llama_export.verify.thresholds import thresholds_for
from llama_quantize.tensor import QuantizedTensor
from llama_quantize.workers import worker_pool

if TYPE_CHECKING:
    from llama_export.bundle import Bundle
    from llama_export.checkpoints.hf import HfCheckpoint
    from llama_export.targets import Session
    from llama_quantize.weights import QuantizedWeights

    Hashes = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Subject:
    """What is verified, and what it is held against.

    Args:
        target: the bundle's target.
        model: the model's name.
        config: the model's shape.
        open_session: gives a fresh session at an accuracy level; None is the level as shipped.
        read_back: gives the sha256 of each quantised tensor's codes and scales in the artifact.
        check_hashes: gives the files that the manifest does not list; raises BundleError when a
            listed one is not what was written.
        recorded: the same hashes as `read_back`, from the manifest; empty when it has none.
        sample: gives so many tokens of a text.
        weights: the quantised weights; None when they were not kept.
        checkpoint: the checkpoint they were made from; None when it is not at hand.
    """

    target: str
    model: str
    config: LlamaConfig
    open_session: Callable[[int | None], Session]
    read_back: Callable[[], Hashes]
    check_hashes: Callable[[], Sequence[str]]
    recorded: Hashes
    sample: Callable[[int], Sequence[int]]
    weights: QuantizedWeights | None
    checkpoint: HfCheckpoint | None


def verify_bundle(
    bundle: Bundle,
    *,
    weights: QuantizedWeights | None = None,
    checkpoint: HfCheckpoint | None = None,
    token_ids: Sequence[int] | None = None,
    quick: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check a bundle against the weights and the checkpoint that it was made from.

    Args:
        bundle: what to check.
        weights: the quantised weights that it holds; without them its lowering is not proved.
        checkpoint: the original; without it the quantisation is not proved.
        token_ids: what to read instead of the built-in text; repeated when too short.
        quick: measure about 32 positions only.
        threads: the runtime's threads; None is its own choice.
        progress: told (calls done, calls in all) of the artifact.

    Raises:
        BundleError: a file was changed, the target is unknown, or the weights are of a model of
            another shape.
    """
    from llama_export.targets import registry
    from llama_export.tokenizer import Tokenizer

    manifest = bundle.manifest

    def sample(count: int) -> Sequence[int]:
        if token_ids is not None:
            return cycled_token_ids(subject.config.bos_token_id, token_ids, count)
        tokenizer = Tokenizer.load(bundle.path(manifest.tokenizer["file"]))
        return sample_token_ids(tokenizer, count)

    subject = Subject(
        target=manifest.target,
        model=manifest.model.name,
        config=LlamaConfig.from_hf(manifest.model.config, where="manifest.json"),
        open_session=lambda level: registry.open_session(
            bundle, threads=threads, accuracy_level=level
        ),
        read_back=lambda: registry.read_back(bundle),
        check_hashes=bundle.check_hashes,
        recorded=recorded_hashes(manifest.quantization),
        sample=sample,
        weights=weights,
        checkpoint=checkpoint,
    )
    text = "built-in" if token_ids is None else "given"
    return verify_subject(subject, text=text, quick=quick, progress=progress)


def verify_subject(
    subject: Subject,
    *,
    text: str = "given",
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check an artifact; `verify_bundle` with the bundle's parts laid out.

    Raises:
        BundleError: a file was changed, the target is unknown, or the weights are of a model of
            another shape.
    """
    limits = thresholds_for(subject.target)
    _refuse_other_model(subject)
    files = _files_row(subject)
    settings: dict[str, int | bool | str] = {"quick": quick, "text": text}
    structure = (files, *_codes_rows(subject))

    session = subject.open_session(None)
    budget = plan_budget(subject.config.num_parameters, session.max_context, quick=quick)
    settings |= {"positions": budget.positions, "exact_steps": budget.exact_steps}
    # One token more than is read: the last position's prediction is scored too.
    token_ids = tuple(subject.sample(budget.positions + 1))
    tick = _counter(budget, progress)
    quantised = _eager_quantised(subject, token_ids[:-1])
    original = _eager_original(subject, token_ids[:-1])
    shipped = measure_shipped(session, quantised, original, token_ids, tick)
    del session, original  # a 1B session is 1 GB: never two at once
    exact_session = subject.open_session(limits.exact_level)
    exact = measure_exact(exact_session, quantised, token_ids[:-1], budget.exact_steps, tick)

    lowering = lowering_rows(limits, shipped, exact, vocab_size=subject.config.vocab_size)
    quantisation = quantisation_rows(
        shipped, bits=_fewest_bits(subject.weights), vocab_size=subject.config.vocab_size
    )
    return VerifyReport(
        target=subject.target,
        model=subject.model,
        settings=settings,
        rows=(*structure, *lowering, *quantisation),
        measurements={**shipped.to_json(), **exact.to_json()},
    )


def recorded_hashes(quantization: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Read the hashes of codes and scales out of a manifest's `quantization`."""
    tensors = quantization.get("tensors")
    if not isinstance(tensors, Mapping):
        return {}
    return {
        str(name): (str(entry["codes_sha256"]), str(entry["scales_sha256"]))
        for name, entry in tensors.items()
        if "codes_sha256" in entry
    }


def _eager_quantised(subject: Subject, input_ids: Sequence[int]) -> Eager | None:
    if subject.weights is None:
        return None
    return Eager.run(subject.config, subject.weights.get, input_ids, keep_cache=True)


def _eager_original(subject: Subject, input_ids: Sequence[int]) -> Eager | None:
    if subject.checkpoint is None or subject.weights is None:
        return None
    return Eager.run(subject.config, subject.checkpoint.tensor, input_ids)


def _files_row(subject: Subject) -> Row:
    # A changed artifact may crash its runtime, and its figures would mean nothing: it raises.
    unlisted = subject.check_hashes()
    note = f"besides, not in the manifest: {', '.join(unlisted)}" if unlisted else ""
    return judged("structure", "files", "files that differ from the manifest", 0, 0, note)


def _codes_rows(subject: Subject) -> list[Row]:
    found = _stored_once(subject, subject.read_back())
    manifest = ("codes_manifest", "tensors whose codes or scales differ from the manifest's")
    weights = ("codes_weights", "tensors whose codes or scales differ from the weights'")
    rows = []
    if subject.recorded or not found:
        rows.append(_codes_row(*manifest, subject.recorded, found))
    else:
        rows.append(unchecked("structure", *manifest, "the manifest records no hashes"))
    if subject.weights is None:
        note = "no quantised weights; that the artifact holds them is not proved"
        rows.append(unchecked("structure", *weights, note))
    else:
        rows.append(_codes_row(*weights, _stored_hashes(subject.weights), found))
    return rows


def _stored_once(subject: Subject, found: Hashes) -> Hashes:
    """Leave out a tied head that holds what the table holds; another one stays, and is a fault."""
    head, table = found.get(HEAD), found.get(TABLE)
    if not subject.config.tie_word_embeddings or head is None or head != table:
        return found
    return {name: hashes for name, hashes in found.items() if name != HEAD}


def _codes_row(key: str, name: str, expected: Hashes, found: Hashes) -> Row:
    faults = []
    for tensor in sorted({*expected, *found}):
        if tensor not in found:
            faults.append(f"{tensor} is not in the artifact")
        elif tensor not in expected:
            faults.append(f"{tensor} is only in the artifact")
        else:
            parts = zip(("codes", "scales"), expected[tensor], found[tensor], strict=True)
            differing = " and ".join(part for part, wanted, got in parts if wanted != got)
            faults += [f"{tensor}: other {differing}"] if differing else []
    note = f"first: {faults[0]}" if faults else f"{len(found)} tensors read back and hashed"
    return judged("structure", key, name, len(faults), 0, note)


def _stored_hashes(weights: QuantizedWeights) -> dict[str, tuple[str, str]]:
    quantised = _quantised_tensors(weights)
    with worker_pool() as pool:
        hashes = pool.map(
            lambda tensor: (tensor.codes_sha256(), tensor.scales_sha256()), quantised.values()
        )
        return dict(zip(quantised, hashes, strict=True))


def _quantised_tensors(weights: QuantizedWeights) -> dict[str, QuantizedTensor]:
    tensors = {name: weights.get(name) for name in weights.names()}
    return {name: value for name, value in tensors.items() if isinstance(value, QuantizedTensor)}


def _fewest_bits(weights: QuantizedWeights | None) -> int:
    if weights is None:
        return 16
    return min((tensor.scheme.bits for tensor in _quantised_tensors(weights).values()), default=16)


def _refuse_other_model(subject: Subject) -> None:
    """Refuse weights of another shape: the reference could not be computed, or would mislead."""
    expected = expected_shapes(subject.config)
    sources: dict[str, Mapping[str, tuple[int, ...]]] = {}
    if subject.weights is not None:
        held = set(subject.weights.names())
        shapes = {name: subject.weights.get(name).shape for name in expected if name in held}
        sources["quantised weights"] = {name: tuple(shape) for name, shape in shapes.items()}
    if subject.checkpoint is not None:
        sources["checkpoint"] = subject.checkpoint.shapes
        if not _same_maths(subject.config, subject.checkpoint.config):
            message = "the checkpoint's config.json and the bundle's describe different models"
            raise BundleError(message, "give the checkpoint that the bundle was made from")
    for source, shapes_found in sources.items():
        for name, shape in expected.items():
            if shapes_found.get(name) != shape:
                message = (
                    f"the {source} are not the bundle's: {name} should be {shape}, "
                    f"found {shapes_found.get(name, 'nothing')}"
                )
                raise BundleError(message, f"give the {source} that the bundle was made from")


def _same_maths(one: LlamaConfig, other: LlamaConfig) -> bool:
    """Compare the fields that a forward pass depends on; which token ends a text is not one."""
    return one == replace(
        other,
        bos_token_id=one.bos_token_id,
        eos_token_id=one.eos_token_id,
        max_position_embeddings=one.max_position_embeddings,
    )


def _counter(budget: Budget, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    total = budget.positions + budget.exact_steps + EXACT_EXTRA_CALLS + 1
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return tick
