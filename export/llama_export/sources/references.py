"""What a bundle is held against: the quantised weights and the checkpoint that it was made from.

It finds and opens them; it compares nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.model_info import ModelInfo
from llama_export.checkpoints.checkpoint import AS_IT_IS, Checkpoint, ReadOptions
from llama_export.errors import CheckpointError, UsageError
from llama_export.sources.adapters import name_with_adapters
from llama_export.sources.reading import read_again
from llama_export.sources.resolve import DEMO, NamedModel, fetch_named, name_model
from llama_export.sources.source import WEIGHTS_FOLDER, describe
from llama_quantize.checkpoint.files import is_quantized
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights


@dataclass(frozen=True)
class Reference:
    """What a bundle is compared with.

    Args:
        weights: quantised weights that it holds; None: not at hand.
        checkpoint: checkpoint that they were made from; None: not at hand.
    """

    weights: QuantizedWeights | None
    checkpoint: Checkpoint | None


def reference_for(
    bundle: Bundle,
    checkpoint: str | None,
    weights: Path | None,
    *,
    revision: str | None = None,
    token: str | None = None,
    reading: ReadOptions = AS_IT_IS,
) -> Reference:
    """Find the quantised weights and the checkpoint that a bundle was made from.

    Args:
        bundle: opened bundle.
        checkpoint: name of the checkpoint, as `--model` takes it; None: the demo for a demo bundle,
            else nothing.
        weights: folder of the quantised weights; None: `weights/` beside the bundle, if there.
        revision: revision of the checkpoint; None: the commit that the bundle was made from.
        token: token of the hub; None: the saved one.
        reading: how the checkpoint is to be read; what it leaves open is as it was for the bundle.

    Raises:
        LlamaExportError, QuantizationError: what was named cannot be opened.
    """
    beside = bundle.folder.resolve().parent / WEIGHTS_FOLDER
    if weights is None and is_quantized(beside):
        weights = beside
    elif weights is not None and not is_quantized(weights):
        found_there = "holds no quantised weights" if weights.is_dir() else "does not exist"
        message = f"--weights: {weights} {found_there}"
        raise UsageError(message, f"give the folder {WEIGHTS_FOLDER}/ that the export wrote")
    model = bundle.manifest.model
    if checkpoint is None and (model.name, model.hub_id) == (DEMO, None):
        checkpoint = DEMO
    found = None
    if checkpoint is not None:
        named = _name_again(checkpoint, model, reading, revision, token)
        resolved = fetch_named(named, revision=named.revision, token=token)
        # As for an export: what config.json leaves open comes from the tokenizer.
        found = describe(resolved.path, options=named.reading).checkpoint
        if found is not None and found.weights_folder is not None:
            message = f"{resolved.path} holds quantised weights, not what they were made from"
            raise CheckpointError(message, "name the original checkpoint, or leave it out")
    return Reference(None if weights is None else _opened(weights), found)


def _name_again(
    checkpoint: str, model: ModelInfo, reading: ReadOptions, revision: str | None, token: str | None
) -> NamedModel:
    """Find a checkpoint and the adapters that a bundle was made with.

    The commits are those of the bundle, not what the branches have become, and of a repository of
    several models in GGUF the bundle's own is meant where no other is picked.

    Raises:
        CheckpointError: the bundle was made with an adapter that only its maker has.
    """
    commits = {model.hub_id: model.revision}
    commits |= {each.hub_id: each.revision for each in model.adapters}
    asked = name_model(checkpoint)
    wanted = revision or commits.get(asked.hub_id)
    if model.file and asked.hub_id == model.hub_id and not asked.picked:
        checkpoint = f"{asked.hub_id}/{model.file}"
    options = read_again(reading, model)
    named = name_with_adapters(checkpoint, options, revision=wanted, token=token)
    if lacking := model.adapters[len(named.adapters) :]:
        local = [each.name for each in lacking if each.hub_id is None]
        if local:
            names = ", ".join(map(shown_name, local))
            message = f"the bundle was made with adapters that {checkpoint} lacks: {names}"
            raise CheckpointError(message, "name their folders with --adapter, in that order")
        fetched = tuple(f"{each.hub_id}@{each.revision}" for each in lacking)
        options = replace(options, adapters=(*options.adapters, *fetched))
        named = name_with_adapters(checkpoint, options, revision=wanted, token=token)
    if named.path is None and named.revision is None:
        named = replace(named, revision=commits.get(named.hub_id))
    if named.hub_id == model.hub_id and not named.picked:
        named = replace(named, picked=model.file or "")
    return named


def _opened(weights: Path) -> QuantizedWeights:
    # torch comes with it, and what is refused above does not wait for torch.
    from llama_quantize.checkpoint.weights import QuantizedWeights

    return QuantizedWeights.open(weights)
