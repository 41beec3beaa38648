"""Hold the weights against the checkpoint that they are said to come from, tensor by tensor.

What was kept, and what was only rounded to a shorter float, must be the checkpoint's to the bit. Of
what was quantised here, some rows are read: each code must be the nearest one. It knows no file
format, runs nothing and knows no limits.

Shapes: N rows, K columns, G groups in a row, n rows that are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llama_export.llama.config_keys import MOST_TOKEN_IDS
from llama_export.verification.artifact import Artifact
from llama_export.verification.measure.structure import Hashes, Structure
from llama_quantize.checkpoint.summary import KEPT
from llama_quantize.groupwise import BLOCK_WEIGHTS, row_blocks
from llama_quantize.lazy import LazyTensor
from llama_quantize.tensor import QuantizedTensor

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights

# Methods that choose a scale first and then the nearest codes; another may move codes on purpose.
_NEAREST = ("nearest", "clip_search")
_ROWS = 16
# So many that no row of a pruned head is passed over: each stands for another token.
_SMALL = MOST_TOKEN_IDS
# In steps of the scale. Products and sums are rounded in float32, which is far below a thousandth.
_HALF_A_STEP = 0.501

Floats = Tensor | LazyTensor


@dataclass(frozen=True)
class Agreement:
    """How some tensors agree with the checkpoint's.

    Args:
        compared: number of tensors compared.
        faults: what differs, a phrase a tensor.
    """

    compared: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """What the checkpoint says of the weights; each part None: it was not compared.

    Args:
        has_kept: whether codes are known to have been kept from the checkpoint.
        kept: codes that the checkpoint came with.
        floats: tensors that are floats in the weights too, such as norms.
        rounded: tensors that were quantised here, by the rows that were read.
    """

    has_kept: bool
    kept: Agreement | None = None
    floats: Agreement | None = None
    rounded: Agreement | None = None


def compare_origin(artifact: Artifact, structure: Structure) -> Origin:
    """Compare the weights with the checkpoint, one tensor in memory at a time.

    Without the weights, kept codes are compared with the artifact's own, and nothing else is.
    """
    checkpoint, weights = artifact.checkpoint, artifact.weights
    methods = _methods(weights)
    if checkpoint is None:
        return Origin(has_kept=KEPT in methods.values())
    held = (structure.expected or structure.found).quantized
    found: dict[str, dict[str, str]] = {"kept": {}, "floats": {}, "rounded": {}}
    for name in checkpoint.names:
        tensor = checkpoint.tensor(name)
        if isinstance(tensor, QuantizedTensor):
            found["kept"][name] = _kept_fault(tensor, held, name)
        elif weights is not None:
            stored = weights.get(name)
            if isinstance(stored, Tensor):
                found["floats"][name] = "" if _same_floats(tensor, stored) else "other numbers"
            elif methods.get(name) in _NEAREST:
                found["rounded"][name] = _rounding_fault(tensor, stored)
    kept = _agreement(found["kept"])
    if weights is None:
        return Origin(bool(found["kept"]), kept)
    floats, rounded = _agreement(found["floats"]), _agreement(found["rounded"])
    return Origin(bool(found["kept"]), kept, floats, rounded)


def _methods(weights: QuantizedWeights | None) -> Mapping[str, str | None]:
    return {} if weights is None else {stats.name: stats.method for stats in weights.stats}


def _agreement(faults: Mapping[str, str]) -> Agreement:
    wrong = tuple(f"{name}: {fault}" for name, fault in sorted(faults.items()) if fault)
    return Agreement(len(faults), wrong)


def _kept_fault(tensor: QuantizedTensor, held: Hashes, name: str) -> str:
    if name not in held:
        return "was not kept quantised"
    pairs = zip(held[name], (tensor.codes_sha256(), tensor.scales_sha256()), strict=True)
    parts = zip(("codes", "scales"), pairs, strict=True)
    wrong = [part for part, (ours, own) in parts if ours != own]
    return f"other {' and '.join(wrong)}" if wrong else ""


def _same_floats(source: Floats, stored: Tensor) -> bool:
    columns = math.prod(stored.shape[1:])
    parts = row_blocks(stored.shape[0], columns, BLOCK_WEIGHTS)
    return all(_same_block(source, stored[part], part) for part in parts)


def _same_block(source: Floats, stored: Tensor, part: slice) -> bool:
    """Compare some rows, after the rounding that they were stored with."""
    block = source[part]
    if isinstance(source, LazyTensor):
        # Merged weights are sums, which another machine may round otherwise: so they are compared
        # as they come, and may be half a step away, and a hundredth of that.
        form = torch.finfo(stored.dtype)
        slack = form.smallest_normal * form.eps
        return torch.allclose(stored.float(), block.float(), rtol=0.505 * form.eps, atol=slack)
    bits = (each.contiguous().view(torch.int16) for each in (block.to(stored.dtype), stored))
    return torch.equal(*bits)


def _rounding_fault(source: Floats, stored: QuantizedTensor) -> str:
    """Name the first row read in which a code is not the nearest one to the weight."""
    for row in _spread(stored.shape[0]):
        part = slice(row, row + 1)
        codes = stored.unpacked(part).float()
        scales = stored.scales[part].float()
        scales = scales.repeat_interleave(codes.shape[1] // scales.shape[1], 1)
        low, high = stored.scheme.code_range
        wanted = (source[part].float() / scales).clamp(low, high)
        # Written so that a NaN, for which every comparison is false, is a fault as well.
        if not bool(((wanted - codes).abs() <= _HALF_A_STEP).all()):
            return f"row {row} is not the checkpoint's, rounded"
    return ""


def _spread(rows: int) -> Iterator[int]:
    """Yield some rows from the first to the last."""
    count = rows if rows <= _SMALL else _ROWS
    return (index * (rows - 1) // max(1, count - 1) for index in range(count))
