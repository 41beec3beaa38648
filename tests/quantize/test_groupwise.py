from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_quantize import (
    GroupedInt,
    QuantizationError,
    dequantize_groups,
    find_method,
)
from llama_quantize import groupwise as groupwise_module

MIN_SCALE = 2.0**-17
MAX_SCALE = 65280.0
METHODS = ("nearest", "clip_search")
FIXED_SUM = 1e-5  # float32 sums of the search against float64 sums here, relative


def quantize_groups(
    weight: torch.Tensor, scheme: GroupedInt, method: str = "clip_search"
) -> tuple[torch.Tensor, torch.Tensor]:
    return find_method(method).quantize(weight, scheme)


def to_scale(values: torch.Tensor) -> torch.Tensor:
    return values.bfloat16().float().clamp(MIN_SCALE, MAX_SCALE)


def group_errors(
    weight: torch.Tensor, scales: torch.Tensor, code_range: tuple[int, int] = (-8, 7)
) -> torch.Tensor:
    """Squared error of each group `[n, group]` under `scales [n]`, in double precision."""
    wide, step = weight.double(), scales.double().unsqueeze(1)
    codes = (wide / step).round().clamp(*code_range)
    return (wide - codes * step).square().sum(1)


def stored_errors(weight: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    values = dequantize_groups(codes, scales, torch.float64)
    groups = scales.numel()
    return (weight.double() - values).square().view(groups, -1).sum(1)


def nearest_errors(weight: torch.Tensor, group: int, scheme: GroupedInt) -> torch.Tensor:
    groups = weight.float().reshape(-1, group)
    high = scheme.code_range[1]
    return group_errors(groups, to_scale(groups.abs().amax(1) / high), scheme.code_range)


def exhaustive_errors(groups: torch.Tensor) -> torch.Tensor:
    """Try every bf16 scale from peak/5.5 down to about peak/18."""
    peak = groups.abs().amax(1)
    start = (peak / 5.5).bfloat16().view(torch.int16)
    best = torch.full(peak.shape, torch.inf, dtype=torch.float64)
    for step in range(220):
        scales = (start - step).view(torch.bfloat16).float()
        best = torch.minimum(best, group_errors(groups, scales))
    return best


def decibels(larger: torch.Tensor, smaller: torch.Tensor) -> float:
    return float(10 * torch.log10(larger.sum() / smaller.sum()))


def sample(kind: str, rows: int, columns: int) -> torch.Tensor:
    torch.manual_seed(7)
    if kind == "gaussian":
        values = torch.randn(rows, columns)
    else:
        values = torch.distributions.StudentT(3.0).sample((rows, columns))
    return (values * 0.02).bfloat16()


matrices = st.tuples(
    st.sampled_from([8, 32, 64, 128]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-30, 2e-7, 2.0**-17, 1e-3, 0.05, 1.0, 5e3]),
    st.sampled_from(["gaussian", "one outlier", "all negative", "few values", "cubed"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)


def build(
    parts: tuple[int, int, int, int, float, str, torch.dtype],
) -> tuple[torch.Tensor, int]:
    group, rows, groups, seed, size, kind, dtype = parts
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, group * groups, generator=generator).clamp_(-5, 5)
    if kind == "one outlier":
        weight[:, ::group] *= 10
    elif kind == "all negative":
        weight = -weight.abs()
    elif kind == "few values":
        weight = weight.round()
    elif kind == "cubed":
        weight = (weight / 2) ** 3
    return (weight * size).to(dtype), group


@settings(max_examples=150, deadline=None)
@given(parts=matrices, bits=st.sampled_from([4, 8]))
def test_no_group_is_worse_than_rounding_to_nearest(parts, bits):
    weight, group = build(parts)
    scheme = GroupedInt(bits, group)
    codes, scales = quantize_groups(weight, scheme)
    found = stored_errors(weight, codes, scales)
    nearest = nearest_errors(weight, group, scheme)
    assert (found <= nearest * (1 + FIXED_SUM)).all()


@settings(max_examples=150, deadline=None)
@given(parts=matrices, bits=st.sampled_from([4, 8]), method=st.sampled_from(METHODS))
def test_codes_and_scales_are_storable_and_codes_are_the_nearest(parts, bits, method):
    weight, group = build(parts)
    scheme = GroupedInt(bits, group)
    codes, scales = quantize_groups(weight, scheme, method)
    low, high = scheme.code_range
    assert codes.dtype == torch.int8
    assert scales.dtype == torch.bfloat16
    assert int(codes.min()) >= low
    assert int(codes.max()) <= high
    assert float(scales.min()) >= MIN_SCALE
    assert torch.equal(scales.half().float(), scales.float()), "scales are not exact in fp16"
    best = group_errors(weight.float().view(-1, group), scales.float().view(-1), (low, high))
    found = stored_errors(weight, codes, scales)
    assert (found <= best * (1 + FIXED_SUM)).all(), "a code is not the nearest one"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "group", "least_gain_db"),
    [
        ("gaussian", 32, 1.0),
        ("heavy tails", 32, 0.7),
        ("gaussian", 64, 1.05),
        ("gaussian", 128, 1.2),
        ("heavy tails", 128, 0.9),
        ("gaussian", 256, 1.5),
    ],
)
def test_search_is_near_the_optimum_and_clearly_better_than_nearest(kind, group, least_gain_db):
    weight = sample(kind, 30_000 // group, group)  # small: one thread, and in cache
    scheme = GroupedInt(4, group)
    found = stored_errors(weight, *quantize_groups(weight, scheme))
    optimum = exhaustive_errors(weight.float())
    nearest = nearest_errors(weight, group, scheme)
    assert decibels(nearest, found) > least_gain_db
    assert decibels(found, optimum) < 0.01
    assert decibels(nearest, optimum) > decibels(nearest, found) - 0.01


def test_negative_peak_uses_code_minus_eight():
    positive = torch.full((1, 32), 0.25)
    positive[0, 3] = 1.0
    # -8 * 0.125 and 2 * 0.125 are exact; the positive peak cannot be.
    codes, scales = quantize_groups(-positive, GroupedInt(4, 32))
    assert float(scales) == 0.125
    assert codes[0, :4].tolist() == [-2, -2, -2, -8]
    assert float(stored_errors(-positive, codes, scales)) == 0
    assert float(stored_errors(positive, *quantize_groups(positive, GroupedInt(4, 32)))) > 0


def test_zeros_and_tiny_values_take_the_smallest_scale():
    weight = torch.zeros(3, 64)
    weight[1] = 3e-7
    weight[2, 32:] = 2.0**-17 * 5
    for method in METHODS:
        codes, scales = quantize_groups(weight, GroupedInt(4, 32), method)
        assert (scales[:2] == MIN_SCALE).all()
        assert (scales[2, 0], codes[:2].any(), codes[2, :32].any()) == (MIN_SCALE, False, False)
        assert stored_errors(weight, codes, scales)[4:].sum() == 0


def test_int8_rows_match_plain_arithmetic():
    weight = sample("gaussian", 50, 300)
    codes, scales = quantize_groups(weight, GroupedInt(8, None), "nearest")
    expected = (weight.float().abs().amax(1) / 127).bfloat16()
    assert scales.shape == (50, 1)
    assert torch.equal(scales[:, 0], expected)
    wanted = (weight.float() / expected.float().unsqueeze(1)).round().clamp(-127, 127)
    # A product with 1/scale may fall on the other side of a tie than the quotient does.
    assert (codes.float() - wanted).abs().max() <= 1
    assert (codes.float() != wanted).float().mean() < 1e-3


def test_dequantize_is_the_product_and_a_wrong_scale_is_seen():
    weight = sample("gaussian", 8, 64)
    codes, scales = quantize_groups(weight, GroupedInt(4, 32))
    values = dequantize_groups(codes, scales)
    assert torch.equal(values, codes.float() * scales.float().repeat_interleave(32, 1))
    found = stored_errors(weight, codes, scales).sum()
    wrong = scales.clone()
    wrong[3, 1] *= 1.01
    assert not torch.equal(dequantize_groups(codes, wrong), values)
    assert stored_errors(weight, codes, wrong).sum() > found
    swapped = codes.view(-1, 2).flip(1).reshape(codes.shape)
    assert stored_errors(weight, swapped, scales).sum() > 10 * found


def test_dequantize_refuses_shapes_that_do_not_match():
    codes = torch.zeros(4, 64, dtype=torch.int8)
    for shape in ((4, 3), (3, 2), (4, 0), (8,)):
        with pytest.raises(QuantizationError, match="do not match"):
            dequantize_groups(codes, torch.ones(shape, dtype=torch.bfloat16))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e6])
def test_unusable_values_are_named_with_their_place(value, method, monkeypatch):
    monkeypatch.setattr(groupwise_module, "BLOCK_WEIGHTS", 64 * 100)
    weight = torch.randn(300, 64)
    weight[251, 17] = value
    with pytest.raises(QuantizationError, match=r"\[251, 17\]") as caught:
        quantize_groups(weight, GroupedInt(4, 32), method)
    assert caught.value.hint


def test_wrong_inputs_are_refused():
    with pytest.raises(QuantizationError, match=r"rows of 48 weights .* groups of 32"):
        quantize_groups(torch.zeros(2, 48), GroupedInt(4, 32))
    with pytest.raises(QuantizationError, match="float matrix"):
        quantize_groups(torch.zeros(2, 2, 32), GroupedInt(4, 32))
    with pytest.raises(QuantizationError, match="float matrix"):
        quantize_groups(torch.zeros(2, 32, dtype=torch.int8), GroupedInt(4, 32))
    with pytest.raises(QuantizationError, match="even number"):
        quantize_groups(torch.zeros(2, 33), GroupedInt(4, None))
    with pytest.raises(QuantizationError, match="5 bits"):
        GroupedInt(5, 32)


def test_rows_and_blocks_do_not_change_the_result(monkeypatch):
    weight = sample("heavy tails", 700, 192)
    scheme = GroupedInt(4, 64)
    codes, scales = quantize_groups(weight, scheme)
    monkeypatch.setattr(groupwise_module, "BLOCK_WEIGHTS", 192 * 150)
    monkeypatch.setattr(groupwise_module, "CHUNK_WEIGHTS", 1000)
    again, scales_again = quantize_groups(weight.t().contiguous().t(), scheme)
    assert torch.equal(codes, again)
    assert torch.equal(scales, scales_again)


def test_thread_settings_are_left_as_they_were(monkeypatch):
    monkeypatch.setattr(groupwise_module, "BLOCK_WEIGHTS", 64)
    before = torch.get_num_threads()
    quantize_groups(torch.randn(8, 64), GroupedInt(4, 32))
    assert torch.get_num_threads() == before
    with pytest.raises(QuantizationError):
        quantize_groups(torch.full((8, 64), torch.nan), GroupedInt(4, 32))
    assert torch.get_num_threads() == before
    assert threading.active_count() < 50


# Integers, because random floats themselves depend on the vector width.
_HASH = """
import hashlib, torch
from llama_quantize import GroupedInt, find_method

def digest():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-1000, 1001, (2048, 640), generator=generator) / 1000
    found = hashlib.sha256()
    for group in (32, 128):
        method = find_method("clip_search")
        for part in method.quantize(weight * weight * weight, GroupedInt(4, group)):
            found.update(part.view(torch.uint8).numpy())
    return found.hexdigest()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "threads"), [("default", 1), ("avx2", 3)])
def test_bytes_do_not_depend_on_vector_width_or_threads(capability, threads):
    here: dict[str, Callable[[], str]] = {}
    exec(_HASH, here)
    root = Path(__file__).parents[2] / "quantize"
    found = subprocess.run(
        [sys.executable, "-c", f"{_HASH}\ntorch.set_num_threads({threads})\nprint(digest())"],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == here["digest"]()
