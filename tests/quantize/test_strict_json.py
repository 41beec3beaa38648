"""JSON of others: what is taken, what is refused, and in how much time."""

from __future__ import annotations

import os
import time

import pytest

from llama_quantize.strict_json import MOST_LEVELS, JsonFault, parse_json, parse_object, read_object


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"b": {"a": 1, "a": 1}}', "the key 'a' is given twice"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": 1' + "0" * 400 + "}", "401 digits"),
        ("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1), "nested deeper than"),
        ("[" * 200_000, "nested too deep"),
        ('{"a": 1', "delimiter"),
        ("", "Expecting value"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at 7"),
    ],
)
def test_what_has_no_single_meaning_is_refused(text, fault):
    with pytest.raises(JsonFault, match=fault) as caught:
        parse_json(text)
    assert len(str(caught.value)) <= 2000


def test_what_real_files_hold_is_taken():
    assert parse_json('{"model_max_length": 1000000000000000019884624838656}') == {
        "model_max_length": 10**30 + 19884624838656
    }
    assert parse_json("[" * MOST_LEVELS + "]" * MOST_LEVELS)
    assert parse_json('[1e300, -5, "é\\u0000", null, true]') == [1e300, -5, "é\0", None, True]


def test_an_object_is_asked_for_and_a_file_has_a_limit(tmp_path):
    with pytest.raises(JsonFault, match="expected a JSON object, found list"):
        parse_object("[]")
    path = tmp_path / "a.json"
    path.write_text('{"a": "' + "x" * 100 + '"}')
    assert read_object(path)["a"] == "x" * 100
    with pytest.raises(JsonFault, match="longer than 50 bytes"):
        read_object(path, most_bytes=50)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none.json")


def test_a_key_given_twice_among_many_is_found_in_linear_time():
    keys = [f'"k{i:07}":0' for i in range(200_000)]
    began = time.process_time()
    with pytest.raises(JsonFault, match="k0199999"):
        parse_json("{" + ",".join([*keys, keys[-1]]) + "}")
    # Quadratic, it took minutes.
    assert time.process_time() - began < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(JsonFault, match="a pipe"):
        read_object(tmp_path / "x.json")
