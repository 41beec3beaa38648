"""Read codes, scales, norms and rotary tables back out of a package, from its bytes alone.

It shares no code with the lowering but the names of constants, so that a fault of the lowering
shows here. It knows the byte layouts of MIL's weight files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch

from coreml_evaluator.package import Package
from llama_export.llama.intermediates import FloatArray
from llama_export.llama.names import HEAD
from llama_export.targets.coreml.names import COS_TABLE, SIN_TABLE, weight_name
from llama_export.targets.coreml.reading.stored_weights import (
    StoredConstant,
    Tensor,
    read,
    stored_constants,
)
from llama_export.targets.stored import StoredWeights
from llama_quantize.tensor import sha256_of

_ROTARY = {COS_TABLE: "cos", SIN_TABLE: "sin"}
_WEIGHTS = ("model.", HEAD)
_CHUNK = 1 << 22

Found = TypeVar("Found", str, tuple[str, str])


def read_back(path: Path) -> StoredWeights:
    """Read the weights that a package holds.

    Raises:
        BundleError: the package is damaged or laid out in another way.
    """
    package = Package.open(path)
    quantized: dict[str, tuple[str, str]] = {}
    floats: dict[str, str] = {}
    rotary: dict[str, FloatArray] = {}
    for each in stored_constants(package):
        name = weight_name(each.name)
        if each.scales is not None:
            hashes = _codes_sha256(package, each), _scales_sha256(package, each.scales)
            _add(quantized, name, hashes, each)
        elif each.name in _ROTARY:
            table = read(package, each.data).reshape(each.data.shape)
            rotary[f"{_ROTARY[each.name]} table"] = table.numpy()
        elif name.startswith(_WEIGHTS):
            values = read(package, each.data)
            found = sha256_of(part.float() for part in values.split(_CHUNK))
            _add(floats, name, found, each)
    return StoredWeights(quantized, floats, rotary)


def _add(hashes: dict[str, Found], name: str, found: Found, each: StoredConstant) -> None:
    if hashes.setdefault(name, found) != found:
        hashes[f"{name} at {each.data.offset}"] = found


def _codes_sha256(package: Package, each: StoredConstant) -> str:
    codes = read(package, each.data)
    if each.data.dtype == "int4":
        # Two's complement in the file, code + 8 in the form that is hashed.
        return sha256_of(part ^ 0x88 for part in codes.split(_CHUNK))
    return sha256_of(codes.split(_CHUNK))


def _scales_sha256(package: Package, where: Tensor) -> str:
    """Hash scales as bfloat16; where one would be rounded, leave all as found."""
    scales = read(package, where)
    rounded = scales.to(torch.bfloat16)
    exact = bool((rounded.to(scales.dtype) == scales).all())
    return sha256_of([rounded if exact else scales])
