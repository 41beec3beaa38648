"""Texts beside each other: widths, titles, and what is not printable."""

from __future__ import annotations

import pytest

from columns import in_columns

TALE = "Once upon a time there lived a king who had three daughters, and a garden with apple trees"
FOUR = [(f"text {number}", TALE.replace("king", f"king{number}")) for number in range(4)]


def columns_of(page: str) -> list[int]:
    """Return how many titles stand in each row of them."""
    return [line.count("text ") for line in page.splitlines() if "text " in line]


@pytest.mark.parametrize(
    ("width", "rows"),
    [(40, [1, 1, 1, 1]), (70, [1, 1, 1, 1]), (71, [2, 2]), (80, [2, 2]), (110, [2, 2]), (145, [4])],
)
def test_as_many_columns_as_have_room_and_never_three_and_one(width, rows):
    page = in_columns(FOUR, width)
    assert columns_of(page) == rows
    assert max(len(line) for line in page.splitlines()) <= width


def test_two_columns_hold_the_whole_of_each_text():
    page = in_columns(FOUR[:2], 80)
    lines = page.splitlines()
    half = (80 - 3) // 2
    for number, words in enumerate((slice(0, half), slice(half + 3, None))):
        column = [line[words].strip() for line in lines]
        assert column[0] == f"text {number}"
        assert " ".join(column[2:]).split() == FOUR[number][1].split()


def test_a_longer_text_goes_on_beside_nothing():
    lines = in_columns([("long", TALE), ("short", "The end.")], 80).splitlines()
    assert lines[0].split() == ["long", "short"]
    assert [("The end." in line) for line in lines].count(True) == 1
    assert lines[2].endswith("The end.")
    assert all(line == line.rstrip() for line in lines)


def test_what_steers_a_terminal_is_not_passed_on():
    page = in_columns([("a", "one\x1b[2Jtwo\nthree\u202efour")], 80)
    assert "one?[2Jtwo three?four" in page
    assert "\x1b" not in page


def test_even_a_terminal_of_a_few_columns_gets_its_text():
    assert "".join(in_columns([("t", "abcdef")], 3).split("-")[-1].split()) == "abcdef"
    assert in_columns([], 80) == ""
