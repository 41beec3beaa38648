"""What an interrupted export leaves of its calibration, in words: how much, and what goes on."""

from __future__ import annotations

from pathlib import Path

from llama_export.calibration.calibrate import CALIBRATION_FOLDER, LAYERS_FOLDER
from llama_export.calibration.scratch import noted_layer
from llama_export.system.byte_sizes import format_bytes

_BLOCK_BYTES = 512  # in which `stat` counts what a file takes, holes left out


def left_over(output: Path, layers: int) -> str | None:
    """Return what a calibration left in an output; None: nothing to go on from.

    Args:
        output: folder of the export.
        layers: number of the model's layers.
    """
    folder = output / CALIBRATION_FOLDER
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not files:
        return None
    size_bytes = sum(_taken_bytes(path) for path in files)
    done = noted_layer(folder / LAYERS_FOLDER)
    place = "with the text that is written"
    if done:
        place = f"at layer {done + 1} of {layers}" if done < layers else "behind its last layer"
    return f"{folder} ({format_bytes(size_bytes)}) is kept: the same command goes on {place}"


def _taken_bytes(path: Path) -> int:
    found = path.stat()
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else blocks * _BLOCK_BYTES
