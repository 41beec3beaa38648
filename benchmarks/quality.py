"""What the benchmarks of quality read: windows of a text, and a model's own floats.

What is measured with them is `llama_export.verification.measure.yardstick`.
"""

from __future__ import annotations

from collections.abc import Sequence

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import Source, open_source
from llama_export.verification.measure.yardstick import TextWindows

WINDOW = 512


def cut_windows(name: str, token_ids: Sequence[int], positions: int) -> TextWindows:
    """Cut the beginning of a text into whole windows.

    Args:
        name: name of the text.
        token_ids: its tokens, from the first.
        positions: most positions to take.

    Raises:
        ValueError: there are fewer than two windows, so that nothing tells how they spread.
    """
    if min(positions, len(token_ids) - 1) < 2 * WINDOW:
        message = f"{name}: {min(positions, len(token_ids))} positions, at least {2 * WINDOW}"
        raise ValueError(message)
    return TextWindows.cut(name, token_ids, positions, window=WINDOW)


def open_reference(model: str) -> Source:
    """Open a model, named as for the export, whose codes are floats: they are the reference then.

    Raises:
        LlamaExportError: there is no such model, or it cannot be read.
    """
    found = resolve_model(model)
    is_gguf = found.path.suffix.lower() == ".gguf"
    return open_source(found, options=ReadOptions(requantize=True, accept_loss=is_gguf))
