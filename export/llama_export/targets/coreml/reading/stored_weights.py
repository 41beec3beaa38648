"""Which weights a package holds and where, read from its own bytes.

It shares no code with the lowering. It knows MIL's constants; it does not know how they were
chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from coreml_evaluator.package import Package
from coreml_evaluator.types import BITS, TensorType, read_type
from llama_export.errors import BundleError

_QUANTISED = "constexpr_blockwise_shift_scale"
_AGAIN = "export the bundle again"


@dataclass(frozen=True)
class Tensor:
    """An array in a weight file, or scales of a few rows, which stand in the program itself.

    Args:
        file: name of the weight file, as the program has it; empty: the program has the bytes.
        offset: place of the array's record in the file.
        dtype: MIL's name of the element type.
        shape: shape of the array.
        held: the program's bytes; empty: they are in a file.
    """

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    held: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Size in the file, the record not counted."""
        return -(-math.prod(self.shape) * BITS[self.dtype] // 8)


@dataclass(frozen=True)
class StoredConstant:
    """A constant of a program.

    Args:
        name: name of its value.
        data: its codes, or its floats.
        scales: its scales; None when it is not quantised.
        users: kinds of the operators that use it.
    """

    name: str
    data: Tensor
    scales: Tensor | None
    users: frozenset[str]


def stored_constants(package: Package) -> tuple[StoredConstant, ...]:
    """List the constants in the weight file, of all functions, each once.

    Raises:
        BundleError: a constant is not what such a program has.
    """
    found: dict[StoredConstant, None] = {}
    for function in _functions(package):
        users = _users(function)
        for operation in function.operations:
            for each in _of_operation(operation, users, str(package.model_file)):
                found[each] = None
    return tuple(found)


def read(package: Package, tensor: Tensor) -> Any:  # noqa: ANN401 - torch is imported when needed
    """Map an array's elements as a flat tensor; elements smaller than a byte stay packed.

    Raises:
        BundleError: the file does not hold it.
    """
    if tensor.held:
        import torch

        return torch.frombuffer(bytearray(tensor.held), dtype=torch.float16)
    blobs = package.blobs(tensor.file)
    return blobs.read(tensor.offset, tensor.dtype, math.prod(tensor.shape))


def _functions(package: Package) -> Iterator[Any]:
    for name in sorted(package.model.mlProgram.functions):
        yield from package.model.mlProgram.functions[name].block_specializations.values()


def _users(block: Any) -> dict[str, set[str]]:  # noqa: ANN401 - protobuf's messages have no types
    users: dict[str, set[str]] = {}
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                users.setdefault(binding.name, set()).add(operation.type)
    return users


def _of_operation(
    operation: Any,  # noqa: ANN401 - protobuf's messages have no types
    users: dict[str, set[str]],
    where: str,
) -> Iterator[StoredConstant]:
    if operation.type not in ("const", _QUANTISED):
        return
    parts = [operation.outputs, *(each.arguments for each in operation.inputs.values())]
    if any(len(part) != 1 for part in parts):
        message = f"{where}: expected one result and one value for each argument of a constant"
        raise BundleError(message, _AGAIN)
    name = operation.outputs[0].name
    used = frozenset(users.get(name, ()))
    if operation.type == "const":
        value = operation.attributes["val"]
        if value.WhichOneof("value") == "blobFileValue":
            yield StoredConstant(name, _tensor(value, f"{where}: {name}"), None, used)
        return
    if "offset" in operation.inputs or {"data", "scale"} - set(operation.inputs):
        message = f"{where}: {name} is quantised in another way: {sorted(operation.inputs)}"
        raise BundleError(message, _AGAIN)
    data, scales = (
        _tensor(operation.inputs[part].arguments[0].value, f"{where}: {name}")
        for part in ("data", "scale")
    )
    yield StoredConstant(name, data, scales, used)


def _tensor(value: Any, where: str) -> Tensor:  # noqa: ANN401 - protobuf's messages have no types
    kind = read_type(value.type, where)
    shape = kind.shape if isinstance(kind, TensorType) else None
    if isinstance(kind, TensorType) and shape is not None and None not in shape:
        sizes = tuple(size for size in shape if size is not None)
        if value.WhichOneof("value") == "blobFileValue":
            blob = value.blobFileValue
            return Tensor(blob.fileName, blob.offset, kind.dtype, sizes)
        # coremltools writes fewer than ten numbers into the program.
        held = bytes(value.immediateValue.tensor.bytes.values)
        if kind.dtype == "fp16" and 0 < len(held) == 2 * math.prod(sizes):
            return Tensor("", 0, kind.dtype, sizes, held)
    message = f"{where}: expected an array in the weight file, found {kind}"
    raise BundleError(message, _AGAIN)
