"""Read what a bundle holds without running it: its files, and the weights inside the artifact.

It hashes and compares; it knows no file format, no runtime and no limits.

Shapes: P positions, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from llama_export.llama.intermediates import FloatArray
from llama_export.llama.names import HEAD, TABLE
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.verification.artifact import Artifact
from llama_quantize.tensor import QuantizedTensor, sha256_of
from llama_quantize.workers import worker_pool

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_quantize.checkpoint.weights import QuantizedWeights

# SHA-256 of codes and of scales, by the weight's name.
Hashes = Mapping[str, tuple[str, str]]

_CHUNK_ROWS = 1024

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class WeightHashes:
    """SHA-256 of every weight.

    Args:
        quantized: hashes of codes and of scales by the weight's name.
        floats: hashes of norms and float matrices by the weight's name, as float32.
    """

    quantized: Hashes
    floats: Mapping[str, str]


@dataclass(frozen=True)
class RotaryDifference:
    """The worst difference of an artifact's rotary tables from the model's.

    Args:
        value: largest absolute difference; infinite where a table has another shape or a NaN.
        where: table and position of that difference; empty when the tables are equal.
        positions: number of positions of the tables.
    """

    value: float
    where: str
    positions: int


@dataclass(frozen=True)
class Structure:
    """What a bundle holds.

    Args:
        unlisted: files in the folder that the manifest does not list.
        found: hashes of the weights inside the artifact; a tied head that equals the table is
            left out.
        recorded: hashes of codes and of scales, from the manifest; empty when it has none.
        expected: hashes of the quantised weights; None without those.
        rotary: comparison of the rotary tables; None for an artifact that has none.
        fewest_bits: fewest bits that any of the quantised weights is stored in; 16 without those.
    """

    unlisted: tuple[str, ...]
    found: WeightHashes
    recorded: Hashes
    expected: WeightHashes | None
    rotary: RotaryDifference | None
    fewest_bits: int


def read_structure(artifact: Artifact) -> Structure:
    """Check the files first, since a changed artifact is not even read; then read its weights.

    Raises:
        BundleError: a listed file is not what was written, or the artifact is damaged.
    """
    # A changed artifact may crash its runtime, and its figures would mean nothing.
    unlisted = artifact.bundle.check_hashes()
    stored = artifact.target.stored(artifact.on_disk)
    tied = artifact.config.tie_word_embeddings
    weights = artifact.weights
    return Structure(
        unlisted=unlisted,
        found=WeightHashes(_once(stored.quantized, tied=tied), _once(stored.floats, tied=tied)),
        recorded=recorded_hashes(artifact.bundle.manifest.quantization),
        expected=None if weights is None else _hashes_of(weights),
        rotary=_compare_rotary(artifact.config, stored.rotary) if stored.rotary else None,
        fewest_bits=16 if weights is None else _fewest_bits(weights),
    )


def recorded_hashes(quantization: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Return the hashes of codes and scales in a manifest's `quantization`."""
    tensors = quantization.get("tensors")
    if not isinstance(tensors, Mapping):
        return {}
    return {
        str(name): (str(entry["codes_sha256"]), str(entry["scales_sha256"]))
        for name, entry in tensors.items()
        if "codes_sha256" in entry
    }


def _once(found: Mapping[str, _Value], *, tied: bool) -> Mapping[str, _Value]:
    """Leave out a tied head that equals the table; another one stays, and is a fault."""
    if not tied or HEAD not in found or found[HEAD] != found.get(TABLE):
        return found
    return {name: value for name, value in found.items() if name != HEAD}


def _hashes_of(weights: QuantizedWeights) -> WeightHashes:
    tensors = {name: weights.get(name) for name in weights.names() if name not in weights.tied}
    floats = {
        # As float32, a part at a time: a whole table would be 1 GB.
        name: sha256_of(chunk.float() for chunk in tensor.split(_CHUNK_ROWS))
        for name, tensor in tensors.items()
        if not isinstance(tensor, QuantizedTensor)
    }
    quantized = _quantised_tensors(weights)
    with worker_pool() as pool:
        hashes = pool.map(
            lambda tensor: (tensor.codes_sha256(), tensor.scales_sha256()), quantized.values()
        )
        return WeightHashes(dict(zip(quantized, hashes, strict=True)), floats)


def _fewest_bits(weights: QuantizedWeights) -> int:
    return min((tensor.scheme.bits for tensor in _quantised_tensors(weights).values()), default=16)


def _quantised_tensors(weights: QuantizedWeights) -> dict[str, QuantizedTensor]:
    tensors = {name: weights.get(name) for name in weights.names()}
    return {name: value for name, value in tensors.items() if isinstance(value, QuantizedTensor)}


def _compare_rotary(config: LlamaConfig, tables: Mapping[str, FloatArray]) -> RotaryDifference:
    """Compare every row of the tables `[P, D/2]`: a text reaches few of their positions."""
    worst, positions = RotaryDifference(0.0, "", 0), 0
    for name, found in tables.items():
        positions = found.shape[0]
        places, factor = torch.arange(positions), config.attention_factor
        wanted_tables = rope_tables(inverse_frequencies(config), places, factor)
        wanted = wanted_tables[0 if name.startswith("cos ") else 1].numpy()
        if wanted.shape != found.shape:
            return RotaryDifference(math.inf, f"{name}: other shape", positions)
        # A NaN is the worst of all; plain `max` would let it pass.
        difference = np.nan_to_num(np.abs(found - wanted), nan=np.inf).max(axis=1)
        if difference.max() > worst.value:
            where = f"worst in {name}, position {int(difference.argmax())}"
            worst = RotaryDifference(float(difference.max()), where, positions)
    return RotaryDifference(worst.value, worst.where, positions)
