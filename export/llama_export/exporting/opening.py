"""Open a model of floats, for what measures other forms of it and makes no bundle.

It reads a model and decides nothing.
"""

from __future__ import annotations

from dataclasses import replace

from llama_export.checkpoints.formats import require_useful
from llama_export.errors import UsageError
from llama_export.exporting.pipeline import Progress
from llama_export.sources.resolve import NamedModel, fetch_named
from llama_export.sources.source import Source, open_source


def open_floats(named: NamedModel, token: str | None, progress: Progress) -> Source:
    """Fetch and open a model whose codes, if it has any, are given up for floats.

    Args:
        named: meaning of the model's name, with the adapters over it.
        token: hub token; None: HF_TOKEN, or the saved login.
        progress: where the step is shown.

    Raises:
        UsageError: its codes cannot be given up: it is quantised already.
        CheckpointError: it lost more than int4 loses, and nobody accepted that.
        LlamaExportError: it could not be fetched, or its weights cannot be used.
    """
    reading = replace(named.reading, requantize=True)
    with progress.step(f"Opening {named.name}") as advance:
        model = fetch_named(named, revision=named.revision, token=token, progress=advance)
        require_useful(model.path, named.reading)
        source = open_source(model, None, reading)
    if source.checkpoint.recipe is not None:
        message = f"{source.info.name} is quantised already, as {source.checkpoint.recipe.name}"
        raise UsageError(message, "name the original checkpoint, whose forms are still to choose")
    return source
