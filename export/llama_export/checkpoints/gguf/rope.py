"""The rotary embedding of a model in GGUF, in config.json's words.

Llama 3.1's scaling is in no key: llama.cpp's converter computes the divisors of the frequencies and
stores them as a tensor. Whose divisors they are is found by computing them anew. The module reads
keys and that one small tensor.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from llama_export.checkpoints.gguf.files import GgufModel
from llama_export.checkpoints.gguf.head import ROPE_TENSOR
from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.checkpoints.gguf.stored import StoredTensor
from llama_export.errors import CheckpointError, UnsupportedModelError
from llama_quantize.printable import shown_name

ROPE_KEYS = (
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",  # a remark
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
)
"""Keys of the rotary embedding that are read here, after the name of the architecture."""
_DEFAULT_BASE = 10000.0
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
# The converter computes in float32; divisors of another scaling differ by a tenth and more.
_TOLERANCE = 1e-3


def rope_keys(
    model: GgufModel, metadata: Metadata, prefix: str, head_dim: int
) -> dict[str, object]:
    """Return `rope_theta` and `rope_scaling`, as config.json has them.

    Args:
        model: opened model.
        metadata: its metadata.
        prefix: name of the architecture and a point.
        head_dim: size of a head.

    Raises:
        ConfigError: a key has another kind of value than it must have.
        CheckpointError: the tensor of divisors is damaged.
        UnsupportedModelError: a scaling that is not implemented, or divisors that no scaling gives.
    """
    key = f"{prefix}rope.freq_base"
    theta = metadata.number(key) if key in metadata else _DEFAULT_BASE
    if theta <= 0:
        raise metadata.fault(key, theta, "a positive number")
    scaling = _scaling_by_keys(metadata, prefix)
    if (tensor := model.tensors.get(ROPE_TENSOR)) is not None:
        if scaling is not None:
            message = f"{model.path} has both {ROPE_TENSOR} and {prefix}rope.scaling.type"
            raise UnsupportedModelError(message, "one scaling of the rotary embedding is read")
        original = metadata.integer_or_none(f"{prefix}rope.scaling.original_context_length")
        scaling = _scaling_by_divisors(tensor, theta, head_dim, original or _ORIGINAL)
    return {"rope_theta": theta, "rope_scaling": scaling}


def _scaling_by_keys(metadata: Metadata, prefix: str) -> dict[str, object] | None:
    kind = metadata.text(f"{prefix}rope.scaling.type")
    factor_key, old_key = f"{prefix}rope.scaling.factor", f"{prefix}rope.scale_linear"
    if kind is None and old_key in metadata:
        kind, factor_key = "linear", old_key
    if kind in (None, "none", ""):
        return None
    if kind not in ("linear", "yarn"):
        message = f"{metadata.path}: {prefix}rope.scaling.type is {shown_name(repr(kind))}"
        hint = "'linear' and 'yarn' are implemented, and Llama 3.1's scaling"
        raise UnsupportedModelError(message, hint)
    factor = metadata.number(factor_key)
    if kind == "linear":
        return None if factor in (0.0, 1.0) else {"rope_type": kind, "factor": factor}
    found: dict[str, object] = {
        "rope_type": kind,
        "factor": factor,
        "original_max_position_embeddings": metadata.integer(
            f"{prefix}rope.scaling.original_context_length"
        ),
    }
    for name in ("beta_fast", "beta_slow"):
        if (key := f"{prefix}rope.scaling.yarn_{name}") in metadata:
            found[name] = metadata.number(key)
    return found


def _scaling_by_divisors(
    tensor: StoredTensor, theta: float, head_dim: int, original: int
) -> dict[str, object] | None:
    found = _read(tensor, head_dim // 2)
    factor = max(found)
    if all(each == 1.0 for each in found):
        return None
    expected = llama3_divisors(theta, head_dim, factor, original)
    if not all(
        math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(found, expected, strict=True)
    ):
        message = (
            f"{tensor.path}: {ROPE_TENSOR} divides the rotary frequencies by up to {factor:g}, but "
            f"not as Llama 3.1 does (low_freq_factor {_LOW:g}, high_freq_factor {_HIGH:g}, "
            f"original_max_position_embeddings {original})"
        )
        hint = "export the model that it was converted from, whose config.json has the factors"
        raise UnsupportedModelError(message, hint)
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": original,
    }


def _read(tensor: StoredTensor, count: int) -> Sequence[float]:
    if tensor.type.name != "F32" or tensor.shape != (count,):
        message = (
            f"{tensor.path}: {ROPE_TENSOR} must be F32 [{count}], found {tensor.type.name} "
            f"{list(tensor.shape)}"
        )
        raise CheckpointError(message, "convert the model again")
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.start)
            found = struct.unpack(f"<{count}f", file.read(tensor.size_bytes))
    except (OSError, struct.error) as error:
        message = f"{tensor.path} cannot be read: {error}"
        raise CheckpointError(message) from None
    if not all(math.isfinite(each) and each >= 1.0 for each in found):
        message = f"{tensor.path}: {ROPE_TENSOR} must hold divisors of 1 and more"
        raise CheckpointError(message, "download or convert the file again")
    return found


def llama3_divisors(theta: float, head_dim: int, factor: float, original: int) -> list[float]:
    """Compute what Llama 3.1 divides each rotary frequency by."""
    divisors = []
    for index in range(head_dim // 2):
        turns = original * theta ** (-2 * index / head_dim) / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - _LOW) / (_HIGH - _LOW)))
        divisors.append(1 / ((1 - share) / factor + share))
    return divisors
