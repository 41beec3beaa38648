"""What a bundle is held against: the quantised weights and the checkpoint that it was made from.

It finds and opens them; it compares nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.bundle import Bundle
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import CheckpointError, UsageError
from llama_export.sources.resolve import ALIASES, DEMO, resolve_model
from llama_export.sources.source import WEIGHTS_FOLDER
from llama_quantize.checkpoint.files import is_quantized

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
) -> Reference:
    """Find the quantised weights and the checkpoint that a bundle was made from.

    Args:
        bundle: opened bundle.
        checkpoint: name of the checkpoint, as `--model` takes it; None: the demo for a demo bundle,
            else nothing.
        weights: folder of the quantised weights; None: `weights/` beside the bundle, if there.
        revision: revision of the checkpoint; None: the commit that the bundle was made from.
        token: token of the hub; None: the saved one.

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
        # The commit that the bundle was made from, not what the branch has become.
        same = ALIASES.get(checkpoint, checkpoint) == model.hub_id
        wanted = revision or (model.revision if same else None)
        resolved = resolve_model(checkpoint, revision=wanted, token=token)
        found = open_checkpoint(resolved.path)
        if found.recipe is not None:
            message = f"{resolved.path} holds quantised weights, not what they were made from"
            raise CheckpointError(message, "name the original checkpoint, or leave it out")
    return Reference(None if weights is None else _opened(weights), found)


def _opened(weights: Path) -> QuantizedWeights:
    # torch comes with it, and what is refused above does not wait for torch.
    from llama_quantize.checkpoint.weights import QuantizedWeights

    return QuantizedWeights.open(weights)
