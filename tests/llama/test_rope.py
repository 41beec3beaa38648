"""The rotary frequencies and tables against transformers and against plain rotation."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tolerances import FREQUENCY_REL
from transformers import LlamaConfig as HfConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from llama_export.llama.presets import PRESETS
from llama_export.llama.rope import inverse_frequencies, rope_tables, rotate


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_frequencies_equal_those_of_transformers(name):
    config = PRESETS[name]
    expected = LlamaRotaryEmbedding(HfConfig(**config.to_hf())).inv_freq
    torch.testing.assert_close(inverse_frequencies(config), expected, rtol=FREQUENCY_REL, atol=0)


def test_unscaled_frequencies_differ_from_the_scaled_ones():
    config = PRESETS["3.2-1B"]
    unscaled = inverse_frequencies(dataclasses.replace(config, rope_scaling=None))
    scaled = inverse_frequencies(config)
    assert scaled[0] == unscaled[0]  # the fastest is kept
    assert scaled[-1] * 32 == pytest.approx(float(unscaled[-1]), rel=FREQUENCY_REL)
    blended = (scaled < unscaled * 0.999) & (scaled > unscaled / 32 * 1.001)
    assert blended.any()


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_scaling_keeps_its_bands(factor):
    preset = PRESETS["3.2-1B"]
    scaling = dataclasses.replace(preset.rope_scaling, factor=factor)
    config = dataclasses.replace(preset, rope_scaling=scaling)
    plain = inverse_frequencies(dataclasses.replace(config, rope_scaling=None))
    wavelength = 2 * math.pi / plain
    ratio = inverse_frequencies(config) / plain
    assert torch.all(ratio[wavelength < 8192 / 4] == 1)
    torch.testing.assert_close(
        ratio[wavelength > 8192], torch.full_like(ratio[wavelength > 8192], 1 / factor)
    )
    assert torch.all(ratio.diff() <= 1e-6)


def test_rotation_equals_transformers_beyond_8192():
    config = PRESETS["3.2-1B"]
    positions = torch.arange(9000, 9016)
    x = torch.randn(1, 4, 16, 64, generator=torch.Generator().manual_seed(0))
    cos, sin = LlamaRotaryEmbedding(HfConfig(**config.to_hf()))(x, positions[None])
    expected, _ = apply_rotary_pos_emb(x, x, cos, sin)
    inv_freq = inverse_frequencies(config)
    torch.testing.assert_close(rotate(x, *rope_tables(inv_freq, positions)), expected)
    late = rotate(x, *rope_tables(inv_freq, positions + 1))
    assert (late - expected).abs().max() > 0.1


def test_scores_depend_on_the_distance_alone():
    inv_freq = inverse_frequencies(PRESETS["3.2-1B"])
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, 1, 64, generator=generator)

    def score(query_at: int, key_at: int) -> float:
        rotated = [
            rotate(x, *rope_tables(inv_freq, torch.tensor([at])))
            for x, at in ((query, query_at), (key, key_at))
        ]
        return float((rotated[0] * rotated[1]).sum())

    assert score(107, 100) == pytest.approx(score(7, 0), abs=1e-3)
    assert abs(score(108, 100) - score(7, 0)) > 0.1


def test_frequencies_stay_on_the_cpu_inside_a_meta_block():
    with torch.device("meta"):
        assert inverse_frequencies(PRESETS["3.2-1B"]).device.type == "cpu"
