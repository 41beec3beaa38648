"""What a Python program calls: load a bundle, export a model, verify and inspect a bundle.

Each function is a verb of the command line, with its choices as arguments and its result as an
object. Nothing heavy is imported before a function needs it. The module prints nothing, and knows
no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.system.memory_shortage import shortage_named

if TYPE_CHECKING:
    from llama_export.calibration.options import CalibrationOptions
    from llama_export.checkpoints.checkpoint import ReadOptions
    from llama_export.examine.inspection import Inspection
    from llama_export.exporting.result import ExportResult
    from llama_export.generation.text_session import TextSession
    from llama_export.targets.options import TargetOptions
    from llama_export.verification.rows import VerifyReport


@dataclass(frozen=True)
class HubModel:
    """A model at a revision of the hub, with a token, or read in a way that is to be said.

    Args:
        name: alias, hub id or folder, such as "3.2-1B" or "organisation/name:Q8_0".
        revision: branch, tag or commit; None: the main branch (for `verify`, the commit that the
            bundle was made from).
        token: access token; None: HF_TOKEN, or the saved login.
        reading: how it is read, such as with adapters over it; None: as its files say.
    """

    name: str
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    reading: ReadOptions | None = None


@dataclass(frozen=True)
class ExportSettings:
    """What is rarely chosen about an export.

    Args:
        keep_weights: whether to keep the quantised weights, in the folder `weights` of the output.
        verify: whether to check each artifact, and to publish none that fails.
        force: whether to replace what an earlier export wrote there.
        keep_extra: whether to carry over files of others that lie in what is replaced; else they
            are a reason to refuse.
        table: "int8" or "int4", form of the token table and the output head beside linears with
            codes; None: int8, or what quantised weights have.
        quality: "fast", "good" or "best", how codes are chosen: by the weights alone, or by what
            flows through them; None: good for int4, fast for int8.
        calibration: text that is calibrated on; None: the model's own.
    """

    keep_weights: bool = True
    verify: bool = True
    force: bool = False
    keep_extra: bool = False
    table: str | None = None
    quality: str | None = None
    calibration: CalibrationOptions | None = None


_DEFAULT_SETTINGS = ExportSettings()


@shortage_named()
def load(
    bundle: str | Path,
    *,
    threads: int | None = None,
    max_context: int | None = None,
    saved: str | Path | None = None,
    verify: bool = True,
    lookup: bool = False,
    draft: str | Path | None = None,
) -> TextSession:
    """Open a bundle to write text with it; torch is not needed for ONNX.

    Args:
        bundle: folder of the bundle.
        threads: number of runtime threads, from 1 to the number of cores; None: one per core.
        max_context: most positions to use, out of the bundle's own; None: all of them.
        saved: file that a session's or a conversation's `save` wrote, whose KV cache is taken
            over.
        verify: whether to compare the files with their hashes before they are used: a large file
            is read whole at the first load, and when it changed.
        lookup: whether to draft what may come from what the text said before, and to check it
            several tokens at once.
        draft: folder of a smaller model's bundle, which drafts instead.

    Raises:
        UsageError: a number is out of its range; the bundle gives the last position's logits
            alone, by which no draft can be checked; `draft` has another vocabulary.
        BundleError: the folder is no bundle, or a damaged or changed one.
        BackendUnavailableError: the target's runtime is not installed, or cannot run this bundle.
        PromptError: `saved` is missing, damaged, or another bundle's.
    """
    from llama_export.generation.opening import open_session
    from llama_export.generation.speculation_choice import choose_speculation

    session = open_session(
        bundle,
        threads=threads,
        max_context=max_context,
        verify=verify,
        speculation=choose_speculation(lookup=lookup, draft=draft),
    )
    if saved is not None:
        session.restore(saved)
    return session


@shortage_named()
def export(
    model: str | Path | HubModel,
    targets: str | TargetOptions | Sequence[str | TargetOptions],
    output: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    group_size: int | None = None,
    max_context: int | None = None,
    settings: ExportSettings = _DEFAULT_SETTINGS,
) -> ExportResult:
    """Turn a checkpoint into one verified bundle for each target.

    Args:
        model: "demo", an alias such as "3.2-1B", a hub id, a folder, or a `HubModel`.
        targets: "onnx", "executorch", "coreml" or "all", or several of them. In place of a
            target's name, its options choose its form, such as `OnnxOptions(all_logits=True)`.
        output: folder that gets one bundle for each target; None: a folder with the model's name.
        recipe: "int4", "int8", "bf16" or "fp16", a word that says more, such as "int4:g64:best", or
            the `Path` of a file with a recipe; None: int4, or what quantised weights have.
        group_size: number of weights that share a scale; None: the recipe's own.
        max_context: number of positions of the KV cache; None: each target's own, or the model's
            if that is less.
        settings: what else is chosen.

    Raises:
        LlamaExportError: the model, an option, the output or a toolkit cannot be used; the class
            says which.
        QuantizationError: a weight or the recipe cannot be used.
        VerificationFailedError: an artifact does not compute what it should; nothing was published.
    """
    from llama_export.calibration.options import OWN_TEXT
    from llama_export.checkpoints.checkpoint import AS_IT_IS
    from llama_export.exporting.pipeline import export_bundle
    from llama_export.exporting.request import ExportRequest
    from llama_export.generation.validation import require_whole

    if max_context is not None:
        require_whole("max_context", max_context)
    names, options = _chosen_targets(targets)
    chosen = _as_hub_model(model)
    request = ExportRequest(
        model=chosen.name,
        targets=names,
        output=None if output is None else Path(output),
        recipe=recipe if isinstance(recipe, str) else None,
        recipe_file=recipe if isinstance(recipe, Path) else None,
        group_size=group_size,
        max_context=max_context,
        options=options,
        revision=chosen.revision,
        token=chosen.token,
        keep_weights=settings.keep_weights,
        verify=settings.verify,
        force=settings.force,
        keep_extra=settings.keep_extra,
        reading=chosen.reading or AS_IT_IS,
        table=settings.table,
        quality=settings.quality,
        calibration=settings.calibration or OWN_TEXT,
    )
    return export_bundle(request, _Silence())


@shortage_named()
def verify(
    bundle: str | Path,
    *,
    checkpoint: str | Path | HubModel | None = None,
    weights: str | Path | None = None,
    text: str | Path | None = None,
    quick: bool = False,
    strict: bool = False,
    threads: int | None = None,
) -> VerifyReport:
    """Compare a bundle with the eager model; the report's `verdict` says how that ended.

    It is "passed", "failed", or "not proved" where the weights or the checkpoint are missing;
    `report.missing` then names them. None of them raises.

    Args:
        bundle: folder of the bundle.
        checkpoint: the model that it was made from, named as for `export`; None: the demo for a
            bundle of the demo, else none, so that what the quantisation cost is not proved.
        weights: folder of the quantised weights; None: the folder `weights` beside the bundle. If
            there is none, the lowering is not proved.
        text: UTF-8 file to read instead of the built-in text.
        quick: whether to measure a few positions only.
        strict: whether a check that can never be made here, or not be judged, fails.
        threads: number of runtime threads, from 1 to the number of cores; None: one per core.

    Raises:
        LlamaExportError: the bundle, the checkpoint, the text or a toolkit cannot be used; the
            class says which.
        QuantizationError: the quantised weights are damaged.
    """
    from llama_export.bundle.bundle import Bundle
    from llama_export.checkpoints.checkpoint import AS_IT_IS
    from llama_export.generation.validation import require_whole
    from llama_export.sources.references import reference_for
    from llama_export.verification.samples import read_text
    from llama_export.verification.verify import VerifySettings, verify_bundle

    if threads is not None:
        require_whole("threads", threads, os.cpu_count() or 1, "cores of this machine")
    opened = Bundle.open(Path(bundle))
    chosen = None if checkpoint is None else _as_hub_model(checkpoint)
    reference = reference_for(
        opened,
        None if chosen is None else chosen.name,
        None if weights is None else Path(weights),
        revision=None if chosen is None else chosen.revision,
        token=None if chosen is None else chosen.token,
        reading=(None if chosen is None else chosen.reading) or AS_IT_IS,
    )
    return verify_bundle(
        opened,
        weights=reference.weights,
        checkpoint=reference.checkpoint,
        settings=VerifySettings(
            text=None if text is None else read_text(Path(text)),
            quick=quick,
            strict=strict,
            threads=threads,
        ),
    )


@shortage_named()
def inspect(bundle: str | Path, *, check_hashes: bool = False) -> Inspection:
    """Look into a bundle, or into the `weights` folder of an export, without running anything.

    Args:
        bundle: the folder.
        check_hashes: whether to read every byte and compare it with what was written.

    Raises:
        BundleError: the folder is no bundle, a file was changed, or the artifact cannot be read.
        BackendUnavailableError: the target's toolkit is not installed.
        TokenizerError: the tokenizer's file cannot be read.
        QuantizationError: the folder's quantised weights are damaged.
    """
    from llama_export.examine.inspection import inspect_folder

    return inspect_folder(Path(bundle), check_hashes=check_hashes)


def _as_hub_model(model: str | Path | HubModel) -> HubModel:
    """Return a model with its revision and token; a `Path` always means a folder."""
    if isinstance(model, HubModel):
        return model
    if isinstance(model, str):
        return HubModel(model)
    return HubModel(str(model) if model.is_absolute() else f"./{model}")


def _chosen_targets(
    targets: str | TargetOptions | Sequence[str | TargetOptions],
) -> tuple[tuple[str, ...], dict[str, TargetOptions]]:
    """Return the targets' names, and the options of those that were given as options.

    Raises:
        UsageError: something is neither, or a target has two sets of options.
    """
    from llama_export.errors import UsageError
    from llama_export.targets.options import TargetOptions
    from llama_export.targets.registry import parse_targets

    names: list[str] = []
    chosen: dict[str, TargetOptions] = {}
    for each in [targets] if isinstance(targets, str | TargetOptions) else targets:
        if isinstance(each, str):
            names += parse_targets([each])
            continue
        name = _target_of(each)
        if name in chosen:
            message = f"targets: {name} has two sets of options"
            raise UsageError(message, "export once for each of them, to an output of its own")
        chosen[name] = each
        names.append(name)
    return parse_targets(names), chosen


def _target_of(options: object) -> str:
    from llama_export.errors import UsageError
    from llama_export.targets import registry

    for name in registry.TARGETS:
        if isinstance(options, registry.get(name).Options):
            return name
    message = f"targets: expected names of targets or their options, found {options!r:.80}"
    raise UsageError(message, 'such as targets=["onnx", CoremlOptions(kv_cache="io")]')


class _Silence:
    """The steps of an export, shown nowhere."""

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show nothing."""
        yield lambda done, total: None
