"""Text of others, made fit to be shown."""

from __future__ import annotations

import pytest

from llama_export.errors import BundleError
from llama_quantize.errors import QuantizationError
from llama_quantize.printable import MOST_CHARACTERS, clipped, printable, shown_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("\x1b]0;pwned\x07", r"\x1b]0;pwned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("a\r\nb", "a\\x0d\nb"),
        ("a\u2028b", r"a\u2028b"),
        ("half \ud800", r"half \ud800"),
        ("\U000e0041", r"\U000e0041"),
        (
            "Größe, 日本語, 👩\u200d🚀, \u0645\u06cc\u200c\u062e",
            "Größe, 日本語, 👩\u200d🚀, \u0645\u06cc\u200c\u062e",
        ),
    ],
)
def test_every_character_is_visible(text, shown):
    assert printable(text) == shown


def test_a_name_is_one_short_line():
    assert shown_name("a\nb\t") == r"a\x0ab\x09"
    assert len(shown_name("x" * 1000)) == 80


def test_a_long_text_keeps_its_ends():
    text = "begin" + "x" * 10_000 + "end"
    cut = clipped(text)
    assert len(cut) <= MOST_CHARACTERS
    assert cut.startswith("begin")
    assert cut.endswith("end")
    assert "characters more" in cut
    assert clipped("short") == "short"


@pytest.mark.parametrize("kind", [BundleError, QuantizationError])
def test_an_error_quotes_nobody_raw_and_at_no_length(kind):
    error = kind("the key \x1b[31m" + "x" * 3_000_000, "remove \x07it")
    assert "\x1b" not in str(error)
    assert len(error.message) <= MOST_CHARACTERS
    assert error.hint == r"remove \x07it"
