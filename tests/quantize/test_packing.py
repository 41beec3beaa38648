from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_quantize import (
    GroupedInt,
    QuantizationError,
    QuantizedTensor,
    find_method,
    pack_int4,
    unpack_int4,
)


def int8(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int8)


def random_codes(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 8, (rows, columns), generator=generator, dtype=torch.int8)


def test_golden_bytes_even_element_is_the_low_nibble():
    packed = pack_int4(int8([[-8, 7, 0, 1], [7, -8, -1, -2]]))
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0xF0, 0x98], [0x0F, 0x67]]
    swapped = pack_int4(int8([[7, -8, 1, 0], [-8, 7, -2, -1]]))
    assert not torch.equal(packed, swapped)


def test_golden_codes():
    assert unpack_int4(torch.tensor([[0xF0, 0x98]], dtype=torch.uint8)).tolist() == [[-8, 7, 0, 1]]


def test_every_byte_goes_round():
    packed = torch.arange(256, dtype=torch.uint8).view(4, 64)
    assert torch.equal(pack_int4(unpack_int4(packed)), packed)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 9), half=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_any_codes_go_round(rows, half, seed):
    codes = random_codes(rows, 2 * half, seed)
    packed = pack_int4(codes)
    assert packed.shape == (rows, half)
    assert torch.equal(unpack_int4(packed), codes)


def test_rows_beyond_one_chunk_and_strided_input():
    codes = random_codes(3000, 128)
    assert torch.equal(unpack_int4(pack_int4(codes)), codes)
    strided = random_codes(64, 40).t()
    assert torch.equal(unpack_int4(pack_int4(strided)), strided)


@pytest.mark.parametrize("code", [8, -9, 127, -128])
def test_codes_beyond_four_bits_are_refused(code):
    with pytest.raises(QuantizationError, match="-8 to 7"):
        pack_int4(int8([[0, code]]))


def test_wrong_tensors_are_refused():
    with pytest.raises(QuantizationError, match="even length"):
        pack_int4(int8([[1, 2, 3]]))
    with pytest.raises(QuantizationError, match="int8 matrix"):
        pack_int4(torch.zeros(2, 2))
    with pytest.raises(QuantizationError, match="uint8 matrix"):
        unpack_int4(torch.zeros(2, 2))


def quantized(bits: int = 4) -> QuantizedTensor:
    torch.manual_seed(3)
    scheme = GroupedInt(bits, 32)
    codes, scales = find_method("clip_search").quantize(torch.randn(6, 96), scheme)
    return QuantizedTensor(scheme, (6, 96), pack_int4(codes) if bits == 4 else codes, scales)


@pytest.mark.parametrize("bits", [4, 8])
def test_tensor_dequantizes_whole_and_in_rows(bits):
    tensor = quantized(bits)
    whole = tensor.dequantize()
    expected = tensor.unpacked().float() * tensor.scales.float().repeat_interleave(32, 1)
    assert torch.equal(whole, expected)
    assert torch.equal(tensor.dequantize(rows=slice(2, 5)), whole[2:5])
    assert torch.equal(tensor.dequantize(torch.bfloat16), whole.bfloat16())


def test_hashes_are_of_the_stored_codes_and_of_scales():
    tensor = quantized()
    rows = tensor.unpacked().tolist()
    pairs = [pair for row in rows for pair in zip(row[::2], row[1::2], strict=True)]
    codes = bytes((even + 8) | (odd + 8) << 4 for even, odd in pairs)
    assert tensor.codes_sha256() == hashlib.sha256(codes).hexdigest()
    table = quantized(8)
    codes = bytes(code % 256 for row in table.unpacked().tolist() for code in row)
    assert table.codes_sha256() == hashlib.sha256(codes).hexdigest()
    words = tensor.scales.view(torch.int16).flatten().tolist()
    scales = b"".join(word.to_bytes(2, "little", signed=True) for word in words)
    assert tensor.scales_sha256() == hashlib.sha256(scales).hexdigest()


def test_hashes_change_with_one_nibble_and_with_one_scale():
    tensor = quantized()
    swapped = tensor.codes.clone()
    swapped[4, 3] = (int(swapped[4, 3]) >> 4) | (int(swapped[4, 3]) << 4 & 0xF0)
    assert not torch.equal(swapped, tensor.codes)
    scaled = tensor.scales.clone()
    scaled[5, 2] *= 1.01
    other = QuantizedTensor(tensor.scheme, tensor.shape, swapped, scaled)
    assert other.codes_sha256() != tensor.codes_sha256()
    assert other.scales_sha256() != tensor.scales_sha256()


def test_tensor_refuses_parts_that_do_not_fit():
    tensor = quantized()
    with pytest.raises(QuantizationError, match="expected"):
        QuantizedTensor(tensor.scheme, (6, 64), tensor.codes, tensor.scales)
    with pytest.raises(QuantizationError, match="expected"):
        QuantizedTensor(tensor.scheme, tensor.shape, tensor.codes, tensor.scales.float())
