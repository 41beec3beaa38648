"""What a damaged artifact makes a library raise is one error of ours; what is no damage goes on."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from llama_export.errors import BundleError, UsageError
from llama_export.targets.damage import damage_named

WHERE = Path("model.onnx")


class DecodeError(Exception):
    """As a library has its own."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no number"), "no number"),
        (KeyError("length"), "KeyError: 'length'"),
        (IndexError("out of range"), "IndexError: out of range"),
        (TypeError("not a list"), "TypeError: not a list"),
        (OverflowError("too large"), "OverflowError: too large"),
        (RuntimeError("cannot reshape"), "cannot reshape"),
        (RecursionError("too deep"), "too deep"),
        (EOFError(), "EOFError"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (struct.error("bad char"), "error: bad char"),
        (DecodeError("Error parsing message"), "Error parsing message"),
    ],
)
def test_what_damage_raises_names_the_file(error, reason):
    with (
        pytest.raises(BundleError, match=r"model\.onnx is damaged") as caught,
        damage_named(WHERE, DecodeError),
    ):
        raise error
    assert reason in caught.value.message
    assert caught.value.__cause__ is error
    assert caught.value.hint == "export the bundle again"


@pytest.mark.parametrize(
    "error", [MemoryError(), UsageError("no"), KeyboardInterrupt(), DecodeError()]
)
def test_what_is_no_damage_goes_through(error):
    with pytest.raises(type(error)) as caught, damage_named(WHERE):
        raise error
    assert caught.value is error
