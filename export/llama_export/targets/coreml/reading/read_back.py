"""Read codes, scales, norms and rotary tables back out of a package, from its bytes alone.

It shares no code with the lowering but the names of constants, so that a fault of the lowering
shows here. It knows the byte layouts of MIL's weight files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from coreml_evaluator.package import Package
from llama_export.targets.coreml.lowering.names import COS_TABLE, SIN_TABLE, weight_name
from llama_export.targets.coreml.reading.stored_weights import Stored, read, stored
from llama_export.targets.session import FloatArray

_ROTARY = {COS_TABLE: "cos", SIN_TABLE: "sin"}
_WEIGHTS = ("model.", "lm_head.")
_CHUNK = 1 << 22

Found = TypeVar("Found", str, tuple[str, str])


def read_back(path: Path) -> dict[str, tuple[str, str]]:
    """Hash what the package holds.

    Returns:
        Weight name -> SHA-256 of its codes and of its scales, in the form that
        `QuantizedTensor.codes_sha256` and `.scales_sha256` document. Float weights are absent. A
        weight that two functions hold differently comes out twice, the second time with its place.

    Raises:
        BundleError: the package is damaged or laid out in another way.
    """
    package = Package.open(path)
    hashes: dict[str, tuple[str, str]] = {}
    for each in stored(package):
        if each.scales is not None:
            found = _codes_sha256(package, each), _scales_sha256(package, each)
            _add(hashes, weight_name(each.name), found, each)
    return hashes


def read_back_floats(path: Path) -> dict[str, str]:
    """Hash the weights that a package holds as floats: norms, and matrices of float recipes.

    Returns:
        Weight name -> SHA-256 of its values in float32, row by row.

    Raises:
        BundleError: the package is damaged or laid out in another way.
    """
    package = Package.open(path)
    hashes: dict[str, str] = {}
    for each in stored(package):
        name = weight_name(each.name)
        if each.scales is None and name.startswith(_WEIGHTS):
            values = read(package, each.data)
            _add(hashes, name, _sha256(part.float() for part in values.split(_CHUNK)), each)
    return hashes


def read_back_rotary(path: Path) -> dict[str, FloatArray]:
    """Read the rotary tables, "cos table" and "sin table" `[C, D/2]`.

    Raises:
        BundleError: the package is damaged or laid out in another way.
    """
    package = Package.open(path)
    return {
        f"{_ROTARY[each.name]} table": read(package, each.data).reshape(each.data.shape).numpy()
        for each in stored(package)
        if each.name in _ROTARY
    }


def _add(hashes: dict[str, Found], name: str, found: Found, each: Stored) -> None:
    if hashes.setdefault(name, found) != found:
        hashes[f"{name} at {each.data.offset}"] = found


def _codes_sha256(package: Package, each: Stored) -> str:
    codes = read(package, each.data)
    if each.data.dtype == "int4":
        # Two's complement in the file, code + 8 in the form that is hashed.
        return _sha256(part ^ 0x88 for part in codes.split(_CHUNK))
    return _sha256(codes.split(_CHUNK))


def _scales_sha256(package: Package, each: Stored) -> str:
    """Hash scales as bfloat16; where one would be rounded, leave all as found."""
    if each.scales is None:
        return ""
    scales = read(package, each.scales)
    rounded = scales.to(torch.bfloat16)
    exact = bool((rounded.to(scales.dtype) == scales).all())
    return _sha256([rounded if exact else scales])


def _sha256(parts: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
