"""Rotary position embedding: the inverse frequencies, the tables, the rotation.

It knows positions and frequencies; it does not know attention, caches or runtimes. Every lowering
takes its tables from `rope_tables`, so that no artifact can disagree with the eager model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope_scaling import (
    LinearScaling,
    LongRopeScaling,
    RopeScaling,
    YarnScaling,
)


def inverse_frequencies(config: LlamaConfig) -> Tensor:
    """Compute the angle per position of each rotated pair.

    Returns:
        float32 `[D/2]`, on the CPU even inside a `torch.device("meta")` block.
    """
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device="cpu").float()
    inv_freq = 1.0 / (config.rope_theta ** (exponent / config.head_dim))
    match config.rope_scaling:
        case RopeScaling() as scaling:
            return _scale_llama3(inv_freq, scaling)
        case LinearScaling(factor=factor):
            return inv_freq / factor
        case YarnScaling() as scaling:
            return _scale_yarn(inv_freq, scaling, config.rope_theta)
        case LongRopeScaling(short_factor=factors):
            return inv_freq / torch.tensor(factors, device="cpu")
    # None, or dynamic, which changes nothing up to the model's last position.
    return inv_freq


def _scale_llama3(inv_freq: Tensor, scaling: RopeScaling) -> Tensor:
    """Stretch the slow frequencies, keep the fast ones, blend in between.

    Source: https://github.com/meta-llama/llama-models/blob/9db4fba/models/llama3/model.py
    (`apply_scaling`).
    """
    low = scaling.original_max_position_embeddings / scaling.low_freq_factor
    high = scaling.original_max_position_embeddings / scaling.high_freq_factor
    wavelength = 2 * math.pi / inv_freq
    smooth = (scaling.original_max_position_embeddings / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    stretched = inv_freq / scaling.factor
    blended = (1 - smooth) * stretched + smooth * inv_freq
    result = torch.where(wavelength > low, stretched, inv_freq)
    return torch.where((wavelength <= low) & (wavelength >= high), blended, result)


def _scale_yarn(inv_freq: Tensor, scaling: YarnScaling, theta: float) -> Tensor:
    """Keep the frequencies that turn often within the original positions, stretch the others.

    Source: https://github.com/jquesnelle/yarn (`YaRNScaledRotaryEmbedding`), as in transformers.
    """
    pairs = len(inv_freq)

    def pair_of(rotations: float) -> float:
        positions = scaling.original_max_position_embeddings / (rotations * 2 * math.pi)
        return 2 * pairs * math.log(positions) / (2 * math.log(theta))

    low, high = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    width = high - low if high != low else 0.001
    stretched = ((torch.arange(pairs, device="cpu") - low) / width).clamp(0, 1)
    return inv_freq / scaling.factor * stretched + inv_freq * (1 - stretched)


def rope_tables(
    inv_freq: Tensor, positions: Tensor, attention_factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute the rotation tables of some positions.

    Args:
        inv_freq: float32 `[D/2]`.
        positions: int64 `[S]`.
        attention_factor: number that cosines and sines are multiplied with.

    Returns:
        Cosines and sines, float32 `[S, D/2]` each.
    """
    angles = positions.to(torch.float32)[:, None] * inv_freq[None, :].to(positions.device)
    return angles.cos() * attention_factor, angles.sin() * attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs `(i, i + D/2)`, as Hugging Face orders them.

    Args:
        x: `[B, H, S, D]`.
        cos: `[S, D/2]`, of x's dtype.
        sin: `[S, D/2]`, of x's dtype.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
