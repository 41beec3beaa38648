"""The head of a GGUF file that lies elsewhere: made of few of its bytes, and read like the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

import pytest
from artifacts.gguf_files import SMALL, key_value, raw_gguf, tensor_info, text, write_gguf

from llama_export.checkpoints.formats import (
    head_place,
    make_head,
    open_checkpoint,
    read_config,
    read_small_files,
    read_tokenizer,
)
from llama_export.checkpoints.gguf import head as head_module
from llama_export.errors import CheckpointError
from llama_export.llama.streamed import whole

PLAIN = replace(SMALL, rope_scaling=None)
TEXT = "the ab of a[PAD261] <|im_end|>"


@dataclass
class Elsewhere:
    """A file of which every part that is read is counted."""

    content: bytes
    size_bytes: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size_bytes = self.size_bytes or len(self.content)

    def read(self, start: int, size_bytes: int) -> bytes:
        assert start >= 0
        assert start + size_bytes <= self.size_bytes
        self.parts.append((start, size_bytes))
        return self.content[start : start + size_bytes]


@pytest.mark.parametrize("first", [24, 1000, 2**20])
@pytest.mark.parametrize("config", [PLAIN, SMALL], ids=["plain", "rope_freqs last"])
def test_a_head_says_what_its_file_says(tmp_path, monkeypatch, config, first):
    monkeypatch.setattr(head_module, "_FIRST_BYTES", first)
    path = write_gguf(tmp_path / "m.gguf", config, "Q8_0")
    content = path.read_bytes() + bytes(2**23)
    elsewhere = Elsewhere(content)
    place = head_place(path)
    place.write_bytes(make_head(path, elsewhere))
    path.unlink()
    read = sum(size_bytes for _, size_bytes in elsewhere.parts)
    assert read < 2**21
    assert place.stat().st_size < 20_000
    found = open_checkpoint(place)
    path.write_bytes(content)
    itself = open_checkpoint(path)
    assert found.config == itself.config == config
    assert found.shapes == itself.shapes
    assert found.notes == itself.notes
    assert found.notes
    assert found.recipe == itself.recipe
    assert found.size_bytes == itself.size_bytes
    assert read_config(place) == config
    assert read_tokenizer(place).encode(TEXT) == read_tokenizer(path).encode(TEXT)
    assert read_small_files(place) == read_small_files(path)
    assert read_small_files(place).chat_templates


def test_a_head_is_no_file_to_read_weights_of(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", forms="Q8_0")
    place = head_place(path)
    place.write_bytes(make_head(path, Elsewhere(path.read_bytes() + bytes(2**20))))
    with pytest.raises(CheckpointError, match="cut off"):
        whole(open_checkpoint(place).tensor("model.embed_tokens.weight"))


LONG = key_value("tokens", 9, struct.pack("<IQ", 8, 2**40))
NUMBERS = key_value("tokens", 9, struct.pack("<IQ", 4, 2**28))
ROPE = tensor_info("rope_freqs.weight", (2**20,), 0, 0)


@pytest.mark.parametrize(
    ("content", "size_bytes", "message"),
    [
        (b"<!doctype html><html>Sign in</html>", 2**33, "is no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n" + bytes(80), 0, "is no GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(24), 2**33, "GGUF of version 1"),
        (raw_gguf((LONG,)), 2**33, "is truncated: tokens needs 8796093022208 bytes"),
        (raw_gguf((NUMBERS,)) + bytes(2**21), 2**33, "its header takes 1.07 GB, which none has"),
        (raw_gguf(counts=(2**20, 0)), 2**33, "the number of tensors is 1048576"),
        (raw_gguf((), (tensor_info("a", (8,), 0, 0),)), 0, "is truncated: a ends at byte"),
        (raw_gguf((), (ROPE,), bytes(2**22)), 0, "rope_freqs.weight takes 4.2 MB"),
        (b"GGUF", 0, "is no GGUF file"),
        (b"", 0, "is no GGUF file"),
    ],
)
def test_what_is_no_header_costs_little(tmp_path, content, size_bytes, message):
    elsewhere = Elsewhere(content, size_bytes)
    with pytest.raises(CheckpointError, match=message):
        make_head(tmp_path / "m.gguf", elsewhere)
    assert sum(size for _, size in elsewhere.parts) <= 2**21


def test_a_header_that_never_ends_is_given_up(tmp_path):
    """Each text that is read asks for one more."""
    endless = key_value("k", 9, struct.pack("<IQ", 8, 2**24)) + text("x" * 56) * 2**21
    elsewhere = Elsewhere(raw_gguf((endless,))[:24] + endless, 2**33)
    with pytest.raises(CheckpointError, match="which none has"):
        make_head(tmp_path / "m.gguf", elsewhere)
    assert sum(size for _, size in elsewhere.parts) <= 2**26


@pytest.mark.parametrize("damage", [lambda head: head[:-9], lambda head: head[:900], lambda _: b""])
def test_a_damaged_head_is_named(tmp_path, damage):
    path = write_gguf(tmp_path / "m.gguf")
    place = head_place(path)
    place.write_bytes(damage(make_head(path, Elsewhere(path.read_bytes()))))
    with pytest.raises(CheckpointError, match=r"m\.gguf\.head"):
        open_checkpoint(place)
