"""What the real libraries wrote is read as they read it themselves, bit for bit.

The files are small and were written once; `fixtures/packed/README.md` says how.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from llama_export.checkpoints.packed.methods import find_method
from llama_export.checkpoints.packed.packing import Found, Packing, dequantise, keep
from llama_export.checkpoints.packed.settings import Settings
from llama_export.checkpoints.safetensors_header import read_header
from llama_quantize.scheme import GroupedInt

FOLDER = Path(__file__).parents[1] / "fixtures" / "packed"
KEPT = {
    "gptq_g32": GroupedInt(4, 32),
    "gptq_v2_g64": GroupedInt(4, 64),
    "awq_symmetric_g64": GroupedInt(4, 64),
    "ct_w4a16_g32": GroupedInt(4, 32),
    "ct_w8a16_channel": GroupedInt(8, None),
    "ct_w8a8": GroupedInt(8, None),
    "bnb_int8": GroupedInt(8, None),
    "ao_int4_g32": GroupedInt(4, 32),
    "ao_int8": GroupedInt(8, None),
    "ao_int8_rows": GroupedInt(8, None),
}
FILES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def read(name):
    """Return packing, tensors by the ends of their names, and the library's own floats."""
    path = FOLDER / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    expected = tensors.pop("expected")
    tensors = {key.removeprefix("proj."): value for key, value in tensors.items()}
    header = {key.removeprefix("proj."): entry for key, entry in read_header(path).items()}
    del header["expected"]
    settings = Settings(json.loads(metadata.pop("settings")), "config.json")
    method = find_method(settings)
    found = Found(
        "proj", tuple(expected.shape), header, lambda end: numpy_of(tensors[end]), lambda: metadata
    )
    parts = method.parts(found)
    assert {end for end, part in parts.items() if part.needed} <= set(tensors) <= set(parts)
    for end, entry in header.items():
        assert entry.dtype in parts[end].dtypes
        assert entry.shape in parts[end].shapes
    packing: Packing = method.packing(found)
    return packing, tensors, expected


def numpy_of(tensor):
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def test_every_library_is_there():
    assert {name.split("_")[0] for name in FILES} == {"gptq", "awq", "ct", "bnb", "ao"}
    assert len(FILES) == 22


@pytest.mark.parametrize("name", FILES)
def test_it_is_read_as_the_library_reads_it(name):
    packing, tensors, expected = read(name)
    assert packing.kept == KEPT.get(name)
    assert bool(packing.lost) == (packing.kept is None)
    found = dequantise(packing, tensors.__getitem__, slice(0, len(expected)))
    if packing.kept is None:
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    else:
        # The codes are the file's; the scale is rounded once to bfloat16.
        stored = keep(packing, packing.kept, tensors.__getitem__, tuple(expected.shape))
        error = (stored.dequantize() - expected.float()).norm() / expected.float().norm()
        assert float(error) < 2.0**-8
        assert torch.allclose(found.float(), expected.float(), rtol=2.0**-7, atol=0)
    rows = torch.tensor([3, 3, 0, 15])
    assert torch.equal(dequantise(packing, tensors.__getitem__, rows), found[rows])
    assert np.isfinite(found.float().numpy()).all()


def swapped(tensor):
    """Swap the two halves of every byte."""
    octets = tensor.contiguous().view(torch.uint8)
    return (octets << 4 | octets >> 4).view(tensor.dtype)


def in_order(words):
    """Put AWQ's columns in the order of their numbers, which is not how they are read."""
    places = [words >> (4 * place) & 15 for place in (0, 4, 1, 5, 2, 6, 3, 7)]
    return sum(each << (4 * place) for place, each in enumerate(places))


TWINS = {
    "one too many on a v2 file": ("gptq_v2_g64", "qzeros", lambda words: words + 0x11111111),
    "one too few on a v1 file": ("gptq_asym_g64", "qzeros", lambda words: words - 0x11111111),
    "order ignored": ("gptq_act_order", "g_idx", lambda order: order.sort()[0]),
    "AWQ's nibbles in order": ("awq_g64", "qweight", in_order),
    "AWQ's zeros in order": ("awq_g64", "qzeros", in_order),
    "nf4 low nibble first": ("bnb_nf4", "weight", swapped),
    "fp4 low nibble first": ("bnb_fp4", "weight", swapped),
    "high nibble first": ("ct_w4a16_g32", "weight_packed", swapped),
    "scales transposed": ("ct_w4a16_g32", "weight_scale", lambda s: s.t().reshape(s.shape)),
    "zeros transposed": (
        "ct_w4a16_asym_g64",
        "weight_zero_point",
        lambda z: z.t().reshape(z.shape),
    ),
    "blocks transposed": ("ct_fp8_block", "weight_scale", lambda s: s.t()),
    "nested scale ignored": ("bnb_nf4_double", "weight.nested_absmax", torch.ones_like),
}


@pytest.mark.parametrize("twin", TWINS)
def test_each_mistake_gives_other_numbers(twin):
    name, end, change = TWINS[twin]
    packing, tensors, expected = read(name)
    tensors[end] = change(tensors[end])
    found = dequantise(packing, tensors.__getitem__, slice(0, len(expected)))
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    assert float(error) > 0.05
