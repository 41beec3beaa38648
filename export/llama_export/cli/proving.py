"""Which command proves a bundle, put together from what is known: of an export, or of a `verify`.

It knows the options of `verify`; it runs nothing and reads no file of a bundle.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions

if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.exporting.plan import ExportPlan

NEVER_AGAIN = (
    "the quantised weights were not kept (--no-keep-weights), so nothing can prove this bundle "
    "later: export it again without that option to have one that can be proved"
)
_NAMES = {"weights": "the quantised weights", "checkpoint": "the checkpoint"}


def command_after(plan: ExportPlan, bundle: Bundle) -> str | None:
    """Return the `verify` that proves a fresh bundle; None: nothing will prove it later.

    Args:
        plan: plan of the export that made it.
        bundle: the bundle.
    """
    from llama_export.sources.resolve import DEMO
    from llama_export.sources.source import WEIGHTS_FOLDER

    kept, beside = plan.model.weights_folder, bundle.folder.parent / WEIGHTS_FOLDER
    if kept is not None:
        # Quantised weights do not say where a local checkpoint is that they were made from.
        weights = None if kept.resolve() == beside.resolve() else str(kept)
        return _command(bundle, weights, bundle.manifest.model.hub_id)
    if not plan.request.keep_weights:
        return None
    model, reading = plan.request.model, plan.request.reading
    is_known = model == DEMO and not reading.adapters
    return _command(bundle, None, None if is_known else model, reading)


def how_to_prove(
    bundle: Bundle,
    missing: Sequence[str],
    *,
    weights: Path | None,
    checkpoint: str | None,
    reading: ReadOptions = AS_IT_IS,
) -> str:
    """Return what a verification lacked, and the command that would prove the bundle.

    Args:
        bundle: the bundle.
        missing: what its report says was missing.
        weights: folder of the weights that were there; None: there were none.
        checkpoint: name of the checkpoint that was given; None: there was none.
        reading: base and adapters that were given with it.
    """
    lacked = " and ".join(_NAMES[each] for each in missing) or "anything to compare it with"
    known = checkpoint or bundle.manifest.model.hub_id or "MODEL"
    folder = "FOLDER" if weights is None else str(weights)
    command = _command(bundle, folder, known, reading)
    said = f"this bundle is not proved, for want of {lacked}; what proves it: {command}"
    if "weights" in missing:
        said += "; an export with --no-keep-weights kept none, and has to be made again"
    return said


def _command(
    bundle: Bundle, weights: str | None, checkpoint: str | None, reading: ReadOptions = AS_IT_IS
) -> str:
    words = ["llama-export", "verify", str(bundle.folder)]
    words += ["--weights", weights] if weights else []
    words += ["--checkpoint", checkpoint] if checkpoint else []
    words += ["--base", reading.base] if checkpoint and reading.base else []
    for adapter in reading.adapters if checkpoint else ():
        words += ["--adapter", adapter]
    return shlex.join(words)
