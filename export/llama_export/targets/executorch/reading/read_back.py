"""Read codes, scales, norms and rotary tables back out of a `.pte`, from its bytes alone.

It shares no code with the lowering, so that a fault of the lowering shows here. It knows the byte
layouts of XNNPACK's constants and of the lookup's.

Shapes: N rows, K columns, C max_context, D head_dim.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from llama_export.llama.intermediates import FloatArray
from llama_export.llama.names import TABLE
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.weights import (
    PteWeights,
    StoredProduct,
    read_weights,
)
from llama_export.targets.stored import StoredWeights

Bytes = np.ndarray


def read_back(model: Path) -> StoredWeights:
    """Read the weights that a `.pte` holds.

    The head stands under its own name, whether or not it shares the lookup's bytes.

    Raises:
        BundleError: the file is damaged or laid out in another way.
    """
    pte = Pte.open(model)
    weights = read_weights(pte)
    with damage_named(model):
        floats = {name: _sha256(pte.constant(tensor)) for name, tensor in weights.norms}
        floats |= _joined_floats(pte, weights)
        return StoredWeights(_hashes(pte, weights), floats, _rotary(pte, weights))


def _rotary(pte: Pte, weights: PteWeights) -> dict[str, FloatArray]:
    tables = {}
    for name, tensor in zip(("cos", "sin"), weights.rotary, strict=False):
        values = np.frombuffer(pte.constant(tensor), dtype="<f4")
        tables[f"{name} table"] = values.reshape(tensor.sizes[0], -1)
    return tables


def _joined_floats(pte: Pte, weights: PteWeights) -> dict[str, str]:
    """Hash biases and side branches, whose rows stand apart where their product's do."""
    parts: dict[str, list[Bytes]] = {}
    for product in weights.products:
        if product.bias_segment is not None:
            content = np.frombuffer(pte.segment(product.bias_segment), np.uint8)
            name = f"{product.weight.removesuffix('.weight')}.bias"
            parts.setdefault(name, []).append(content.reshape(product.blob.rows, -1))
    for side in weights.sides:
        content = np.frombuffer(pte.segment(side.segment), np.uint8)
        parts.setdefault(side.weight, []).append(content.reshape(side.rows, -1))
    return {name: _sha256(_joined(found, weights.head_dim)) for name, found in parts.items()}


def _hashes(pte: Pte, weights: PteWeights) -> dict[str, tuple[str, str]]:
    codes, scales = weights.lookup
    found = pte.constant(scales)
    if weights.lookup_bits == 4:
        found = np.frombuffer(found, "<f2").astype("<f4").tobytes()
    hashes = {TABLE: (_sha256(pte.constant(codes)), _sha256(_as_bfloat16(found)))}
    waiting: dict[str, StoredProduct] = {}
    for product in weights.products:
        if product.half == 0:
            waiting[product.weight] = product
            continue
        first = waiting.pop(product.weight, None)
        hashes[product.weight] = (
            _codes_sha256(pte, weights, first, product),
            _scales_sha256(pte, weights, first, product),
        )
    return hashes


def _codes_sha256(
    pte: Pte, weights: PteWeights, first: StoredProduct | None, product: StoredProduct
) -> str:
    rows, columns = product.blob.rows, product.blob.columns * product.blob.bits // 8
    parts = [
        np.frombuffer(pte.segment(part.codes_segment), np.uint8).reshape(rows, columns)
        for part in (first, product)
        if part is not None
    ]
    return _sha256(_joined(parts, weights.head_dim))


def _scales_sha256(
    pte: Pte, weights: PteWeights, first: StoredProduct | None, product: StoredProduct
) -> str:
    """Hash scales as bfloat16, which group scales are stored as and row scales must be exact in."""
    parts = []
    for part in (first, product):
        if part is None:
            continue
        stored = pte.segment(part.scales_segment)
        as_bfloat16 = stored if part.blob.bits == 4 else _as_bfloat16(stored)
        parts.append(np.frombuffer(as_bfloat16, np.uint8).reshape(part.blob.rows, -1))
    return _sha256(_joined(parts, weights.head_dim))


def _joined(parts: list[Bytes], head_dim: int) -> bytes:
    """Put two halves of every head together again, row by row."""
    if len(parts) == 1:
        return parts[0].tobytes()
    halves = [part.reshape(-1, 1, head_dim // 2, part.shape[1]) for part in parts]
    return np.concatenate(halves, axis=1).tobytes()


def _as_bfloat16(stored: bytes) -> bytes:
    """Keep the upper halves of float32 values; where one would be rounded, leave all as found."""
    halves = np.frombuffer(stored, "<u2").reshape(-1, 2)
    return halves[:, 1].tobytes() if not halves[:, 0].any() else stored


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
