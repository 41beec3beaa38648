"""Read the tensors of a file that `torch.save` wrote, and nothing else that may be in it.

Such a file is a pickle, which can hold a program. torch's reader of weights alone builds tensors
and plain containers and refuses any other thing before it is made. Tensors are mapped, never
copied. The module knows no model and no name of a file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.safetensors_header import TensorEntry
from llama_export.errors import CheckpointError
from llama_quantize.printable import clipped, shown_name

if TYPE_CHECKING:
    from torch import Tensor

# Names, shapes and places of the tensors: of 405B, 0.3 MB.
_MOST_PICKLE_BYTES = 64 * 2**20
_MOST_CAUSE = 300
_SPELLINGS = {
    **{"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{"uint8": "U8", "int8": "I8", "int32": "I32", "int64": "I64", "float8_e4m3fn": "F8_E4M3"},
}
_SAVE_AGAIN = (
    "load the model in transformers where you trust it, and save it with save_pretrained, which "
    "writes .safetensors"
)


def load_pickled(path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """Map the tensors of a file.

    Args:
        path: the file.
        inside: key under which some programs put the tensors, beside what is left aside then.

    Raises:
        CheckpointError: the file is damaged, of torch's oldest form, which cannot be mapped, or
            holds something that is no tensor; nothing of it has run.
    """
    _require_archive(path)
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # noqa: BLE001 - whatever a strange pickle makes torch raise
        raise _refused(path, error) from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get(inside), Mapping):
        loaded = loaded[inside]
    if not isinstance(loaded, Mapping):
        message = f"{path} holds a {type(loaded).__name__}, not tensors by name"
        raise CheckpointError(message, _SAVE_AGAIN)
    return {str(name): _checked(path, str(name), value) for name, value in loaded.items()}


def entries_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorEntry]:
    """Describe mapped tensors as the header of a safetensors file would."""
    found = {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        size_bytes = tensor.numel() * tensor.element_size()
        found[name] = TensorEntry(_SPELLINGS.get(dtype, dtype), tuple(tensor.shape), 0, size_bytes)
    return found


def _require_archive(path: Path) -> None:
    """Refuse what is no plain archive, and one that would grow when it is read."""
    try:
        if not zipfile.is_zipfile(path):
            message = (
                f"{path} is truncated, or in a form that torch before 1.6 wrote and that cannot be "
                "mapped"
            )
            raise CheckpointError(message, f"download it again, or {_SAVE_AGAIN}")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        message = f"{path} cannot be read: {clipped(str(error), _MOST_CAUSE)}"
        raise CheckpointError(message, "download the file again") from None
    packed = any(each.compress_type != zipfile.ZIP_STORED for each in members)
    pickles = [each.file_size for each in members if each.filename.endswith("data.pkl")]
    if packed or len(pickles) != 1 or pickles[0] > _MOST_PICKLE_BYTES:
        message = f"{path} is an archive that torch.save did not write"
        raise CheckpointError(message, f"{_SAVE_AGAIN}; do not use this file if it is a stranger's")


def _refused(path: Path, error: Exception) -> CheckpointError:
    import pickle

    if isinstance(error, pickle.UnpicklingError):
        message = (
            f"{path} holds objects that are not tensors, so it was refused; nothing of it was run"
        )
        return CheckpointError(
            message, f"take the model's .safetensors files if there are any, or {_SAVE_AGAIN}"
        )
    message = f"{path} cannot be read as tensors: {clipped(str(error), _MOST_CAUSE)}"
    return CheckpointError(message, "download the file again")


def _checked(path: Path, name: str, value: object) -> Tensor:
    import torch

    if isinstance(value, torch.Tensor) and (
        value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    ):
        if value.untyped_storage().nbytes() >= value.numel() * value.itemsize:
            return value.detach()
        message = f"{path}: of {shown_name(name)} {list(value.shape)} not every number is stored"
        raise CheckpointError(message, _SAVE_AGAIN)
    what = (
        f"a {value.layout} tensor on {value.device}"
        if isinstance(value, torch.Tensor)
        else f"a {type(value).__name__}"
    )
    message = f"{path}: {shown_name(name)} is {what}, not a plain tensor"
    hint = "this may be a trainer's whole state: save the model's state_dict() alone"
    raise CheckpointError(message, hint)
