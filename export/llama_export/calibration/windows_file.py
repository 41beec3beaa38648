"""Keep the windows of a calibration as ids beside the weights, and read them again.

A file that was changed, or is of another model, is refused. The module knows no method and no
tokenizer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from llama_export.calibration.windows import CalibrationWindows, ids_sha256
from llama_export.checkpoints.safetensors_header import TensorEntry, read_header, read_metadata
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_quantize.checkpoint.files import CALIBRATION_FILE
from llama_quantize.checkpoint.safetensors_writer import SafetensorsWriter
from llama_quantize.checkpoint.weights_file import map_file

_IDS, _IS_USER = "ids", "is_user"
_FORMS = {_IDS: ("I32", 2), _IS_USER: ("U8", 1)}
_HINT = "export the model again, which calibrates it anew"


def write_windows(folder: Path, windows: CalibrationWindows) -> None:
    """Write the windows of a calibration into a folder.

    Args:
        folder: folder that holds none yet.
        windows: windows to keep.

    Raises:
        OSError: the disk is full, or the folder holds such a file.
    """
    stored = {_IDS: windows.ids.to(torch.int32), _IS_USER: windows.is_user.to(torch.uint8)}
    forms = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in stored.items()}
    with SafetensorsWriter(folder / CALIBRATION_FILE, forms, windows.origin) as writer:
        for name, tensor in stored.items():
            writer.write(name, 0, tensor)


def read_windows(folder: Path, config: LlamaConfig) -> CalibrationWindows:
    """Read the windows that `write_windows` wrote.

    Args:
        folder: folder that holds them.
        config: shape of the model that they are for.

    Raises:
        CheckpointError: there is no such file, it is damaged or was changed, or it is of another
            model.
    """
    path = folder / CALIBRATION_FILE
    entries, origin = read_header(path), read_metadata(path)
    if not _is_sound(entries):
        message = f"{path} holds no windows of tokens: expected int32 ids, and whose they are"
        raise CheckpointError(message, _HINT)
    file = map_file(path)
    ids, is_user = (file.get_tensor(name) for name in (_IDS, _IS_USER))
    if fault := _fault(ids, is_user, origin.get("ids_sha256"), config):
        message = f"{path} {fault}"
        raise CheckpointError(message, _HINT)
    return CalibrationWindows(ids.to(torch.int64), is_user.to(torch.bool), origin)


def _is_sound(entries: dict[str, TensorEntry]) -> bool:
    found = {name: (entry.dtype, len(entry.shape)) for name, entry in entries.items()}
    if found != _FORMS:
        return False
    ids, is_user = entries[_IDS].shape, entries[_IS_USER].shape
    return ids[:1] == is_user and all(ids)


def _fault(ids: Tensor, is_user: Tensor, sha256: str | None, config: LlamaConfig) -> str:
    """Return what is wrong with the values, to be read after the file's name; "" if nothing is."""
    if ids_sha256(ids) != sha256 or int(is_user.max()) > 1:
        return f"was changed: expected the sha256 {sha256} of its ids"
    if int(ids.min()) < 0 or int(ids.max()) >= config.vocab_size:
        return f"is of another model: its ids go up to {int(ids.max())}"
    return ""
