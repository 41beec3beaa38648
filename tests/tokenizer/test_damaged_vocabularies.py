"""Vocabularies damaged in any way: always a TokenizerError, at once and in a few words."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_export.errors import TokenizerError
from llama_export.tokenizer.tokenizer import load_tokenizer

MOST_S = 1.0
MOST_CHARACTERS = 1000
LONG = "\x1b[31m" + "n" * 100_000


@pytest.fixture(scope="module")
def document(small_folder) -> str:
    return (small_folder / "tokenizer.json").read_text(encoding="utf-8")


def refusal(path: Path) -> str:
    begun = time.process_time()
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(path)
    assert time.process_time() - begun < MOST_S
    assert len(caught.value.message) < MOST_CHARACTERS
    assert "\x1b" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


# Whatever JSON can say, in the place of what belongs there.
VALUES = (
    None, True, 0, -1, 5.0, 1e300, 10**39, "", "5", "\ud800", LONG, [], [[]], [1], {}, {"a": {}},
)  # fmt: skip


def places(node: object, path: tuple = ()) -> list[tuple]:
    """List where values stand, the first three of each list and object."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in list(inner)[:3]:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*path, key))
    return found


KEYS = ("added_tokens", "normalizer", "pre_tokenizer", "decoder", "model")


def test_any_value_in_any_place_is_read_or_named(document, tmp_path):
    """Some are harmless (an added token's `lstrip`); no other error may come of the rest."""
    original = json.loads(document)
    spots = [spot for key in KEYS for spot in [(key,), *places_of(original, key)]]
    draw = random.Random(5)
    messages = []
    for spot in spots:
        for value in draw.sample(VALUES, 5):
            changed = json.loads(document)
            place = changed
            for key in spot[:-1]:
                place = place[key]
            place[spot[-1]] = value
            (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
            try:
                load_tokenizer(tmp_path)
            except TokenizerError as error:
                messages.append(error.message)
    assert len(messages) > 2 * len(spots)
    assert max(map(len, messages)) < MOST_CHARACTERS


def places_of(original: dict, key: str) -> list[tuple]:
    node = original[key]
    return places(node, (key,)) if isinstance(node, (dict, list)) else []


SPECIAL: dict[str, tuple[Callable[[list], object], str]] = {
    "id infinite": (lambda t: t[3].update(id="@inf"), "too large"),
    "id NaN": (lambda t: t[3].update(id="@nan"), "NaN is not a JSON number"),
    "id a float": (lambda t: t[3].update(id=290.0), "id must be a whole number"),
    "id true": (lambda t: t[3].update(id=True), "id must be a whole number"),
    "id text": (lambda t: t[3].update(id="290"), "id must be a whole number"),
    "id negative": (lambda t: t[3].update(id=-1), "id must be a whole number"),
    "id of gigabytes": (lambda t: t[255].update(id=10**9), "whole number below"),
    "id of 39 digits": (lambda t: t[255].update(id=10**38), "whole number below"),
    "name a number": (lambda t: t[3].update(content=7), "name must be"),
    "name a list": (lambda t: t[3].update(content=["a"]), "name must be"),
    "name empty": (lambda t: t[3].update(content=""), "name must be"),
    "name too long": (lambda t: t[3].update(content=LONG), "name must be"),
    "name half a pair": (lambda t: t[3].update(content="\ud800"), "name must be"),
    "name twice": (lambda t: t[3].update(content=t[2]["content"]), "given twice"),
    "too many": (
        lambda t: t.extend(
            {"id": 543 + i, "content": f"<{i}>", "special": True} for i in range(40_000)
        ),
        "expected at most",
    ),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_tokens_that_none_can_be(document, tmp_path, name):
    change, match = SPECIAL[name]
    changed = json.loads(document)
    change(changed["added_tokens"])
    text = json.dumps(changed).replace('"@inf"', "1e999").replace('"@nan"', "NaN")
    (tmp_path / "tokenizer.json").write_text(text)
    assert match in refusal(tmp_path)


VOCABULARY: dict[str, tuple[Callable[[str], str], str]] = {
    "a rank that is a float": (lambda t: t.replace('":5,', '":5.0,', 1), "whole number"),
    "a rank that is true": (lambda t: t.replace('":1,', '":true,', 1), "whole number"),
    "a rank that is infinite": (lambda t: t.replace('":5,', '":1e999,', 1), "too large"),
    "a rank of gigabytes": (lambda t: t.replace('":5,', '":5000000000,', 1), "an id must be"),
    "a rank below 0": (lambda t: t.replace('":5,', '":-5,', 1), "an id must be"),
    "a token twice": (lambda t: t.replace('"vocab":{', '"vocab":{"#":2,', 1), "given twice"),
    "a key twice": (lambda t: t.replace('{"version"', '{"model":1,"version"', 1), "given twice"),
    "a token of 100 kB": (
        lambda t: t.replace('"vocab":{', '"vocab":{"%s":9,' % ("a" * 100_000), 1),
        "a token of 100000 characters",
    ),
    "nested deep": (lambda t: t.replace(":null", ":" + "[" * 200_000, 1), "nested"),
    "no text": (lambda t: t.replace("vocab", "voc\x00ab", 1), "not valid JSON"),
}


@pytest.mark.parametrize("name", VOCABULARY)
def test_vocabularies_that_are_none(document, tmp_path, name):
    change, match = VOCABULARY[name]
    changed = change(document)
    assert changed != document
    (tmp_path / "tokenizer.json").write_text(changed)
    assert match in refusal(tmp_path)


def line(token: bytes, rank: object) -> bytes:
    return b"%s %s\n" % (base64.b64encode(token), str(rank).encode())


BYTES = b"".join(line(bytes([byte]), byte) for byte in range(256))


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (b"YWI= 1e9\n", "line 257"),
        (b"YWI= 256.0\n", "line 257"),
        (b"YWI= -1\n", "line 257"),
        (b"YWI= +256\n", "line 257"),
        (b"YWI= 2_5_6\n", "line 257"),
        (b"YWI= inf\n", "line 257"),
        (b"YWI= " + b"9" * 5000 + b"\n", "line 257"),
        (b"YWI= 1000000000\n", "line 257"),
        (b"YWI= 999999999\n", "not 0 to 256"),
        (b"YWI= 255\n", "not 0 to 256"),
        (b"YWI 256\n", "line 257"),
        (b"Y=WI 256\n", "line 257"),
        (b"== 256\n", "line 257"),
        (b" 256\n", "line 257"),
        (b"YWI= 256 7\n", "line 257"),
        (b"YQ== 256\n", "stands there twice"),
        (b"\x00\xff\n", "line 257"),
        (line(b"x" * 100_000, 256), "a token of 100000 bytes"),
        (b"\n" * 1_100_000, "too large for a vocabulary"),
    ],
)
def test_rank_lines_that_are_none(tmp_path, more, match):
    (tmp_path / "tokenizer.model").write_bytes(BYTES + more)
    assert match in refusal(tmp_path)


def test_the_bytes_alone_are_a_vocabulary(tmp_path):
    """The twin: what the lines above are added to is read."""
    (tmp_path / "tokenizer.model").write_bytes(BYTES + line(b"ab", 256))
    assert load_tokenizer(tmp_path).encode("ab") == [256]


@pytest.mark.parametrize("head", [b"{", BYTES])
def test_a_file_of_gigabytes_is_not_read_whole(tmp_path, head):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(2**34)
    message = refusal(path)
    assert "longer than" in message or "too large" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    assert "holds no tokenizer" in refusal(tmp_path)
    assert "a pipe" in refusal(tmp_path / "tokenizer.json")
