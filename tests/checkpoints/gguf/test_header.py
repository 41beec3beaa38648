"""The header of a GGUF file: read as the `gguf` package reads it, and refused where it lies."""

from __future__ import annotations

import struct

import pytest
from artifacts.gguf_files import key_value, raw_gguf, tensor_info, text, write_gguf

from llama_export.checkpoints.gguf.header import read_header
from llama_export.checkpoints.gguf.stored import StoredArray
from llama_export.errors import CheckpointError

F32, Q8_0 = 0, 8
ONE = tensor_info("a", (8,), F32, 0)


def write(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_reads_what_the_packages_reader_reads(tmp_path):
    from gguf import GGUFReader

    path = write_gguf(tmp_path / "model.gguf", forms="Q8_0", keys={"general.alignment": 64})
    header, reader = read_header(path), GGUFReader(path)
    assert [
        (name, each.type.number, list(reversed(each.shape)), each.start, each.size_bytes)
        for name, each in header.tensors.items()
    ] == [
        (each.name, each.tensor_type, each.shape.tolist(), each.data_offset, each.n_bytes)
        for each in reader.tensors
    ]
    fields = {name: each for name, each in reader.fields.items() if not name.startswith("GGUF.")}
    assert set(fields) == set(header.metadata)
    for name, value in header.metadata.items():
        if isinstance(value, StoredArray):
            value = value.texts() if value.is_text else value.numbers()
        assert value == fields[name].contents(), name


def test_version_2_has_the_same_layout(tmp_path):
    key = key_value("k", 4, struct.pack("<I", 7))
    start = b"GGUF" + struct.pack("<I", 2)
    path = write(tmp_path, raw_gguf((key,), (ONE,), bytes(32), start=start))
    header = read_header(path)
    assert header.metadata == {"k": 7}
    assert header.tensors["a"].shape == (8,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF" + struct.pack("<I", 1) + bytes(24), "GGUF of version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(24), "is a big-endian GGUF file"),
        (b"GGUF" + struct.pack("<I", 4) + bytes(24), "GGUF of version 4"),
        (b"GGUF", "is no GGUF file"),
        (b"version https://git-lfs", "is no GGUF file"),
        (raw_gguf(counts=(1, 0))[:20], "is truncated"),
        (raw_gguf(counts=(2**63, 0)), "number of tensors"),
        (raw_gguf(counts=(0, 2**40)), "number of keys"),
        (raw_gguf((struct.pack("<Q", 2**60),), counts=(0, 1)), "length of a key"),
        (raw_gguf((key_value("k", 8, struct.pack("<Q", 2**23)),)), "is truncated: k"),
        (raw_gguf((key_value("k", 8, text(b"\xff")),)), "k is not UTF-8"),
        (raw_gguf((key_value("k", 99, b""),)), "k has the unknown type 99"),
        (
            raw_gguf((key_value("k", 9, struct.pack("<IQ", 9, 1)),)),
            "array of the unknown type 9",
        ),
        (raw_gguf((key_value("k", 9, struct.pack("<IQ", 4, 2**61)),)), "is truncated: k"),
        (raw_gguf((key_value("k", 9, struct.pack("<IQ", 8, 2**61)),)), "is truncated: k"),
        (
            raw_gguf((key_value("k", 9, struct.pack("<IQQ", 8, 1, 2**40)),)),
            "is truncated: k",
        ),
        (raw_gguf((key_value("k", 4, bytes(4)),) * 2), "the key k is given twice"),
        (raw_gguf((key_value("general.alignment", 4, struct.pack("<I", 24)),)), "no alignment"),
        (raw_gguf((), (tensor_info("a", (1,) * 5, F32, 0),)), "the rank of a is 5"),
        (raw_gguf((), (tensor_info("a", (2**50,), F32, 0),)), "a dimension of a"),
        (raw_gguf((), (tensor_info("a", (8,), 77, 0),), bytes(32)), "the type 77"),
        (raw_gguf((), (tensor_info("a", (8,), Q8_0, 0),), bytes(64)), "no multiple of 32"),
        (raw_gguf((), (ONE, ONE), bytes(64)), "the tensor a is given twice"),
        (raw_gguf((), (ONE, tensor_info("b", (8,), F32, 16)), bytes(64)), "b overlaps a"),
        (raw_gguf((), (ONE, tensor_info("b", (8,), F32, 64)), bytes(96)), "b leaves a gap after a"),
        (raw_gguf((), (tensor_info("a", (8,), F32, 8),), bytes(64)), "leaves a gap after"),
        (raw_gguf((), (ONE, tensor_info("b", (8,), F32, 32)), bytes(40)), "is truncated: b ends"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read_header(write(tmp_path, content))


def test_a_long_vocabulary_is_passed_over_and_read_when_asked_for(tmp_path):
    words = [f"word{number}" for number in range(128_000)]
    array = struct.pack("<IQ", 8, len(words)) + b"".join(map(text, words))
    header = read_header(write(tmp_path, raw_gguf((key_value("tokens", 9, array),))))
    stored = header.metadata["tokens"]
    assert (stored.count, stored.is_text) == (len(words), True)
    assert stored.texts() == words


def test_every_type_has_ggmls_size():
    from gguf.constants import GGML_QUANT_SIZES

    from llama_export.checkpoints.gguf.types import TYPES

    assert {each.number: (each.name, each.block, each.block_bytes) for each in TYPES.values()} == {
        kind.value: (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()
    }
