"""Headers of safetensors files, held against the library: what it refuses and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llama_export.checkpoints.safetensors_header import (
    MAX_HEADER_BYTES,
    TensorEntry,
    read_header,
    read_metadata,
)
from llama_export.errors import CheckpointError

DATA_BYTES = 12


def entry(start: int, end: int, dtype: str = "F32", shape: object = None) -> dict:
    shape = [(end - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


A, B = entry(0, 4), entry(4, 12)
WHOLE = {"a": entry(0, DATA_BYTES)}


def raw(header: object) -> bytes:
    return header if isinstance(header, bytes) else json.dumps(header).encode()


def write(folder: Path, header: object, data_bytes: int = DATA_BYTES) -> Path:
    content = raw(header)
    path = folder / "x.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(data_bytes))
    return path


def library_refuses(path: Path) -> bool:
    try:
        with safe_open(path, framework="np"):
            return False
    except SafetensorError:
        return True


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert path.name in caught.value.message
    assert len(caught.value.message) < 600
    return caught.value.message


def twice(first: dict, second: dict) -> bytes:
    """Return a header with two entries of one name, and another between them."""
    entries = [
        f'"{name}": {json.dumps(each)}'
        for name, each in zip("aba", (first, B, second), strict=True)
    ]
    return ("{" + ", ".join(entries) + "}").encode()


# What the library refuses we refuse, in words of its own or of ours.
REFUSED = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, "invalid offset for tensor `b`"),
    "the same range": ({**WHOLE, "b": entry(0, 12)}, "invalid offset for tensor"),
    "one in another": ({**WHOLE, "b": entry(4, 8)}, "invalid offset for tensor `b`"),
    "gap": ({"a": A, "b": entry(8, 12)}, "invalid offset for tensor `b`"),
    "gap in front": ({"a": entry(4, 12)}, "invalid offset for tensor `a`"),
    "cut off": ({"a": entry(0, 16)}, "is truncated: the tensors take 16 bytes, found 12"),
    "more data": ({"a": entry(0, 8)}, "bytes after its last tensor: the tensors take 8 bytes"),
    "another size": ({"a": entry(0, 12, shape=[2])}, "invalid shape, data type, or offset"),
    "a size of 2^124": ({"a": entry(0, 12, shape=[2**62, 2**62])}, "overflow"),
    "no size of 2^124": (
        {"a": entry(0, 0, shape=[2**62, 2**62, 0]), "b": entry(0, 12)},
        "overflow",
    ),
    "negative size": ({"a": entry(0, 12, shape=[-3])}, "must hold a dtype"),
    "fractions": ({"a": entry(0, 12, shape=[3.0])}, "must hold a dtype"),
    "true": ({"a": entry(0, 12, shape=[True, 3])}, "must hold a dtype"),
    "text as shape": ({"a": entry(0, 12, shape="3")}, "must hold a dtype"),
    "unknown dtype": ({"a": entry(0, 12, "F31")}, "a is of type F31, which is unknown"),
    "dtype in small letters": ({"a": entry(0, 12, "f32")}, "a is of type f32, which is unknown"),
    "dtype a number": ({"a": {**A, "dtype": 7}}, "must hold a dtype"),
    "no dtype": ({"a": {"shape": [3], "data_offsets": [0, 12]}}, "must hold a dtype"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 12]}}, "must hold a dtype"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [3]}}, "must hold a dtype"),
    "one offset": ({"a": {**A, "data_offsets": [0]}}, "must hold a dtype"),
    "three offsets": ({"a": {**A, "data_offsets": [0, 4, 4]}}, "must hold a dtype"),
    "turned offsets": ({"a": {**A, "data_offsets": [12, 0]}}, "must hold a dtype"),
    "negative offset": ({"a": {**A, "data_offsets": [-4, 8]}}, "must hold a dtype"),
    "an offset of 2^64": ({"a": {**A, "data_offsets": [0, 2**64]}}, "is truncated"),
    "null": ({"a": None}, "must hold a dtype"),
    "a list": ({"a": []}, "must hold a dtype"),
    "metadata of numbers": ({"__metadata__": {"x": 1}, **WHOLE}, "invalid type"),
    "metadata as a list": ({"__metadata__": [], **WHOLE}, "invalid type"),
    "metadata twice": (b'{"__metadata__": {}, "__metadata__": {}}', "is given twice"),
    "a field twice": (b'{"a": {"dtype": "I32", "dtype": "F32"}}', "'dtype' is given twice"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "half a surrogate": (b'{"\\ud800": ' + raw(entry(0, 12)) + b"}", "is damaged"),
    "no JSON": (b"{x", "not valid JSON"),
    "no UTF-8": (b'{"\xff": 1}', "not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + raw(WHOLE), "not valid JSON"),
    "something behind": (raw(WHOLE) + b"x", "not valid JSON"),
    "zeros behind": (raw(WHOLE) + b"\0\0", "not valid JSON"),
    "nested deep": (b"[" * 99999, "not valid JSON"),
    "a list of numbers": ([1, 2], "JSON object"),
    "a number": (b"12", "JSON object"),
}
# What the library lets pass, and ours does not: readers differ on it, or it is there to cost.
PASSES = {
    "a name twice": (twice(A, A), "'a' is given twice"),
    "a name twice, otherwise": (twice({**A, "dtype": "I32"}, A), "'a' is given twice"),
    "a name of metadata twice": (
        b'{"__metadata__": {"x": "1", "x": "2"}, "a": ' + raw(WHOLE["a"]) + b"}",
        "'x' is given twice",
    ),
    "a rank of 9": ({"a": entry(0, 12, shape=[3] + [1] * 8)}, "must hold a dtype"),
    "a rank of 1000": ({"a": entry(0, 12, shape=[3] + [1] * 999)}, "must hold a dtype"),
    "a header of 8 MiB": (raw(WHOLE) + b" " * MAX_HEADER_BYTES, "claims a header of"),
}
SOUND = {
    "one": WHOLE,
    "in another order": {"__metadata__": {"format": "pt"}, "b": B, "a": A},
    "empty tensors": {"a": entry(0, 0), "b": entry(0, 12), "c": entry(12, 12)},
    "a scalar": {"a": entry(0, 4, shape=[]), "b": B},
    "metadata null": {"__metadata__": None, **WHOLE},
    "more fields": {"a": {**WHOLE["a"], "more": 1}},
    "blanks around": b" \n" + raw(WHOLE) + b"   ",
    "an empty name": {"": WHOLE["a"]},
    "a name of zeros": {"\0": WHOLE["a"]},
    "two bytes": {"a": entry(0, 12, "BF16", [6])},
    "a byte": {"a": entry(0, 12, "F8_E4M3", [12])},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_library_refuses_we_refuse(tmp_path, case):
    header, match = REFUSED[case]
    path = write(tmp_path, header)
    assert library_refuses(path)
    assert match in refusal(path)


@pytest.mark.parametrize("case", PASSES)
def test_what_the_library_lets_pass_and_we_do_not(tmp_path, case):
    """Where one goes red the library has learnt it, and our own check may go."""
    header, match = PASSES[case]
    path = write(tmp_path, header)
    assert not library_refuses(path)
    assert match in refusal(path)


@pytest.mark.parametrize("case", SOUND)
def test_what_both_accept_is_read_alike(tmp_path, case):
    path = write(tmp_path, SOUND[case])
    found = read_header(path)
    with safe_open(path, framework="np") as opened:
        assert set(opened.keys()) == set(found)
        for name, each in found.items():
            view = opened.get_slice(name)
            assert (view.get_dtype(), tuple(view.get_shape())) == (each.dtype, each.shape)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it is 0 bytes with no header"),
        (b"1234567", "it is 7 bytes with no header"),
        (bytes(8), "it is 8 bytes with no header"),
        (b"\1" + bytes(7) + b"{", "with no header"),
        ((2**63).to_bytes(8, "little") + b"{}", "claims a header of 9223372036854775808 bytes"),
        (b"\x32" + bytes(7) + b"{}", "claims a header of 50 bytes"),
        (b"<!doctype html><p>Access denied", "but a text that begins with '<!doctype html>"),
    ],
)
def test_another_file_is_named_as_that(tmp_path, content, match):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert library_refuses(path)
    assert match in refusal(path)


def test_where_a_tensor_lies(tmp_path):
    path = write(tmp_path, SOUND["in another order"])
    found = read_header(path)
    assert found["a"] == TensorEntry("F32", (1,), 0, 4)
    assert found["b"] == TensorEntry("F32", (2,), 4, 12)
    assert found["b"].size_bytes == 8
    assert read_metadata(path) == {"format": "pt"}


def test_a_dtype_of_four_bits_is_read_where_the_library_knows_it(tmp_path):
    path = write(tmp_path, {"a": entry(0, 12, "F4", [24])})
    if library_refuses(path):
        assert "a is of type F4, which is unknown" in refusal(path)
    else:
        assert read_header(path)["a"].shape == (24,)


def test_what_the_library_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"x": "y"})
    found = read_header(tmp_path / "x.safetensors")
    assert {name: each.shape for name, each in found.items()} == {"a": (2, 3), "b": (4,)}
