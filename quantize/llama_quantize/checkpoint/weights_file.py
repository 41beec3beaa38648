"""What is in `weights.safetensors`: names, types and shapes, and the tensors mapped from it.

It knows storage forms; it knows no recipe, no record and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llama_quantize.checkpoint.files import HINT
from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name
from llama_quantize.scheme import Float, Scheme
from llama_quantize.tensor import Form, QuantizedTensor, stored_forms


class MappedFile(Protocol):
    """The part of safetensors' reader that is used; the library ships no types."""

    def keys(self) -> list[str]:
        """Names of the stored tensors."""

    def get_tensor(self, name: str) -> Tensor:
        """Return a tensor that points into the file."""


def stored_tensors(
    schemes: Mapping[str, Scheme], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Form]:
    """Return name, type and shape of everything in the weights file.

    Raises:
        QuantizationError: a tensor does not fit its scheme.
    """
    forms: dict[str, Form] = {}
    for name, scheme in schemes.items():
        if isinstance(scheme, Float):
            forms[name] = (scheme.torch_dtype, tuple(shapes[name]))
        else:
            forms[f"{name}.codes"], forms[f"{name}.scales"] = stored_forms(scheme, shapes[name])
    return forms


def map_file(path: Path) -> MappedFile:
    """Map a file of tensors; one that is still being written shows what is there so far.

    Raises:
        QuantizationError: its header is damaged.
    """
    try:
        return cast("MappedFile", safe_open(str(path), framework="pt"))
    except SafetensorError as error:
        raise _damaged(path, error) from error


def map_checked(path: Path, expected: Mapping[str, Form]) -> MappedFile:
    """Map a file whose tensors have exactly the names, types and shapes that are expected.

    Raises:
        QuantizationError: names the first tensor that differs.
    """
    file = map_file(path)
    try:
        if odd := sorted(set(file.keys()) ^ set(expected)):
            name = shown_name(odd[0])
            message = f"{path}: {name} is missing or not expected, {len(odd)} such tensors in all"
            raise QuantizationError(message, HINT)
        for name, form in expected.items():
            tensor = file.get_tensor(name)
            if (tensor.dtype, tuple(tensor.shape)) != form:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                message = (
                    f"{path}: {shown_name(name)}: expected {form[0]} {list(form[1])}, found {found}"
                )
                raise QuantizationError(message, HINT)
    except SafetensorError as error:
        raise _damaged(path, error) from error
    return file


def mapped_tensor(file: MappedFile, name: str, scheme: Scheme) -> Tensor | QuantizedTensor:
    """Return a tensor, or codes and scales, that point into the file."""
    if isinstance(scheme, Float):
        return file.get_tensor(name)
    codes, scales = file.get_tensor(f"{name}.codes"), file.get_tensor(f"{name}.scales")
    columns = codes.shape[1] * 8 // scheme.bits
    return QuantizedTensor(scheme, (codes.shape[0], columns), codes, scales)


def _damaged(path: Path, error: SafetensorError) -> QuantizationError:
    return QuantizationError(f"{path} is damaged: {error}", HINT)
