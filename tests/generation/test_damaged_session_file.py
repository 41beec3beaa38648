"""Saved conversations that somebody or something changed: named, and no memory taken for them."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from llama_export.errors import PromptError
from llama_export.generation.session_file import (
    BundleIdentity,
    SavedSession,
    Turn,
    read_session_file,
    write_session_file,
)

OURS = BundleIdentity("tiny", "ab" * 32)
LAYERS, SHAPE = 2, (2, 5, 8)


@pytest.fixture
def saved(tmp_path) -> Path:
    rows = np.random.default_rng(0).normal(size=(LAYERS, 2, *SHAPE)).astype(np.float32)
    layers = [(key, value) for key, value in rows]
    turns = (Turn("user", "Hello"),)
    path = tmp_path / "talk.chat"
    write_session_file(path, SavedSession(OURS, (1, 2, 3, 4, 5), layers, turns, max_tokens=9))
    return path


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, parts: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, how)


def refused(path: Path) -> str:
    with pytest.raises(PromptError, match="damaged") as caught:
        read_session_file(path, OURS)
    assert caught.value.hint
    return caught.value.message


def test_what_was_written_comes_back(saved):
    found = read_session_file(saved, OURS)
    assert found.token_ids == (1, 2, 3, 4, 5)
    assert found.layers[1][0].shape == SHAPE
    rewrite(saved, entries(saved))
    assert np.array_equal(read_session_file(saved, OURS).layers[1][1], found.layers[1][1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_are_refused(saved, value):
    parts = entries(saved)
    rows = np.load(io.BytesIO(parts["key.1.npy"]))
    rows[1, 3, 5] = value
    stream = io.BytesIO()
    np.save(stream, rows)
    rewrite(saved, {**parts, "key.1.npy": stream.getvalue()})
    assert "key.1.npy: it holds what is not a finite number" in refused(saved)


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5, 8), \\ \n",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 5, 8), }\n",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 5, 8), }\n",
    b"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 5, 8), }\n",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 5, 8), }\n",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5, -8), }\n",
    b"(" * 100_000,
    b"\x00" * 60,
    b"",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_another_header_of_an_array_is_refused(saved, header):
    parts = entries(saved)
    content = b"\x93NUMPY\x01\x00" + (len(header) % 65536).to_bytes(2, "little") + header
    rewrite(saved, {**parts, "key.0.npy": content + parts["key.0.npy"][128:]})
    assert "key.0.npy" in refused(saved)


def test_an_entry_that_says_to_be_larger_than_the_file_is_refused(saved):
    """A central directory that points to the same bytes many times, or to a size of its own."""
    data = bytearray(saved.read_bytes())
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")  # the size when unpacked
    saved.write_bytes(data)
    refused(saved)


def test_compressed_entries_are_refused(saved):
    """What is compressed can be a thousand times its size."""
    parts = entries(saved)
    rewrite(saved, {**parts, "more": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    assert "the file has" in refused(saved)
    rewrite(saved, parts, zipfile.ZIP_DEFLATED)
    refused(saved)


def values(raw: object, where: tuple = ()):
    yield where
    if isinstance(raw, dict | list):
        for key in raw if isinstance(raw, dict) else range(len(raw)):
            yield from values(raw[key], (*where, key))


ODD = (None, True, -1, 2.5, 10**39, 2**70, "", "\ud800", "\x1b[2J", [], [[]], [None], {}, {"a": 1})


def test_a_record_of_any_shape_is_read_or_named(saved):
    parts = entries(saved)
    record = json.loads(parts["conversation.json"])
    for place in values(record):
        for odd in ODD:
            raw = {"record": json.loads(parts["conversation.json"])}
            owner, last = raw, "record"
            for step in place:
                owner, last = owner[last], step
            owner[last] = odd
            rewrite(saved, {**parts, "conversation.json": json.dumps(raw["record"]).encode()})
            try:
                found = read_session_file(saved, OURS)
            except PromptError:
                continue
            assert 0 <= found.max_tokens < 2**31
            json.dumps([turn.text for turn in found.turns]).encode()


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"[" * 100_000, b'{"a": 1, "a": 2}', b"\xff", b'{"rows": NaN}', b"null"]
)
def test_a_record_that_is_no_such_json_is_named(saved, record):
    rewrite(saved, {**entries(saved), "conversation.json": record})
    refused(saved)


def test_changed_bytes_are_named_or_change_nothing(saved):
    """Of 400 changes, with any of the file's parts hit."""
    good, rnd = saved.read_bytes(), random.Random(7)
    whole = read_session_file(saved, OURS)
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rnd.choice((1, 1, 3))):
            at, length = rnd.randrange(len(data)), rnd.choice((1, 1, 2, 4, 8))
            data[at : at + length] = rnd.randbytes(length)
        saved.write_bytes(data[: rnd.choice((len(data), len(data), rnd.randrange(len(data))))])
        try:
            found = read_session_file(saved, OURS)
        except PromptError:
            continue
        assert found.token_ids == whole.token_ids
        for pair, expected in zip(found.layers, whole.layers, strict=True):
            assert all(map(np.array_equal, pair, expected))
