"""What is shown fits screens of 40 to 200 columns: words, figures and names stay whole."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.table import Table

from llama_export.cli.chat.wording import say, say_help
from llama_export.cli.console import CleanConsole
from llama_export.cli.fitting import WordWrap, rows_of_terms, wrapped
from llama_export.cli.output import StreamedText
from llama_export.cli.terminal import show_error

pytestmark = pytest.mark.usefixtures("own_process_state")
WIDTHS = [40, 60, 80, 120, 200]
STORY = (
    "The stars shone on the sea, and the keeper counted them: one, two, three.  "
    "He wrote 2.47 GB of letters.\n\n    indented code stays indented\n- a list, "
    "whose point is longer than a narrow line can be\n"
)
PATH = "/a/long/path/" + "x" * 90 + "/model.onnx"


class Screen(io.StringIO):
    """A terminal that keeps what it is sent."""

    def isatty(self) -> bool:
        return True


def words(text: str) -> list[str]:
    return text.split()


@pytest.fixture
def printed(monkeypatch):
    def call(width: int, show) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        screen = Screen()
        show(CleanConsole(file=screen))
        return re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue())

    return call


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_break_between_words(width):
    lines = wrapped(STORY, width).split("\n")
    assert max(map(len, lines)) <= width
    assert words(" ".join(lines)) == words(STORY)
    assert "    indented code stays indented" in lines
    assert any("2.47 GB" in line for line in lines)


def test_a_word_that_is_longer_than_a_line_stays_whole_on_its_own():
    assert PATH in wrapped(f"the file {PATH} is missing", 40).split("\n")


def test_a_figure_stays_with_its_unit():
    for width in range(6, 40):
        assert "81.01 GB" in wrapped("of which about 81.01 GB free", width)


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_give_the_lines_of_the_whole(width, size):
    wrap = WordWrap()
    pieces = [STORY[at : at + size] for at in range(0, len(STORY), size)]
    shown = "".join(wrap.push(piece, width) for piece in pieces) + wrap.flush(width)
    whole = WordWrap()
    assert shown == whole.push(STORY, width) + whole.flush(width)
    assert max(map(len, shown.split("\n"))) <= width


def test_a_word_is_written_when_it_has_ended_and_not_before():
    wrap = WordWrap()
    assert [wrap.push(piece, 40) for piece in ("Hel", "lo", " wor", "ld.", "\n")] == [
        "",
        "",
        "Hello",
        "",
        " world.\n",
    ]


def test_wide_letters_break_anywhere_and_count_twice():
    wrap = WordWrap()
    shown = wrap.push("日本語" * 10, 40) + wrap.flush(40)
    assert [len(line) for line in shown.split("\n")] == [20, 10]


def test_a_tab_counts_to_its_stop():
    assert wrapped("a\tbb", 9) == "a\nbb"
    assert wrapped("a\tbb", 10) == "a\tbb"


@pytest.mark.parametrize("width", WIDTHS)
def test_an_answer_on_a_terminal_fits_it_and_a_pipe_gets_it_as_it_is(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for screen in (Screen(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", screen)
        shown = StreamedText()
        for letter in STORY:
            shown.write(letter)
        shown.end()
        if screen.isatty():
            assert max(map(len, screen.getvalue().split("\n"))) <= width
            assert words(screen.getvalue()) == words(STORY)
        else:
            assert screen.getvalue() == STORY


@pytest.mark.parametrize("width", WIDTHS)
def test_errors_and_the_help_of_a_chat_fit_a_terminal(printed, width):
    def show(console):
        show_error(console, "a thing that has many words went wrong, and here is why" * 3, STORY)
        say_help(console)
        say(console, STORY)

    text = printed(width, show)
    assert max(map(len, text.split("\n"))) <= width
    assert "/system TEXT" in text
    assert "off ends it" in re.sub(r"\s+", " ", text)


def test_what_is_broken_off_an_error_cannot_begin_a_line_as_ours(printed):
    text = printed(40, lambda console: show_error(console, "x " * 19 + "error: all is well", ""))
    assert [line[:2] for line in text.splitlines()[1:]] == ["  "]


def test_a_pipe_gets_a_message_in_one_line():
    file = io.StringIO()
    show_error(CleanConsole(file=file), "word " * 60, "")
    assert file.getvalue().count("\n") == 1


def figures() -> Table:
    table = Table(title="What all of it takes, and what is left of it in the end")
    table.add_column("")
    for name in ("onnx", "executorch", "coreml"):
        table.add_column(name, justify="right")
    table.add_row("memory when it is full", "1.74 GB", "1.28 GB", "878.8 MB")
    table.add_row("the bundle's own name", *["smollm2-1.7b-instruct"] * 3)
    return table


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_keeps_its_figures_and_names_whole(printed, width):
    text = printed(width, lambda console: console.print(figures()))
    assert max(map(len, text.split("\n"))) <= width
    for cell in ("1.74 GB", "1.28 GB", "878.8 MB", "executorch"):
        assert cell in text
    assert text.count("smollm2-1.7b-instruct") == 3
    assert "…" not in text
    assert ("│" in text) is (width >= 120)


def test_a_narrow_table_breaks_a_text_between_words(printed):
    table = Table("file", "what", show_header=True)
    table.add_row("model.pte", "the program, its delegates and 89.3 MB of weights")
    text = printed(40, lambda console: console.print(table))
    assert "│ model.pte │" in text
    assert max(map(len, text.split("\n"))) <= 40
    assert "89.3 MB" in text


def test_a_table_without_headings_becomes_lines(printed):
    table = Table(show_header=False)
    table.add_row("download", f"2.47 GB to {PATH}")
    text = printed(40, lambda console: console.print(table))
    assert text == f"download: 2.47 GB to\n  {PATH}\n"


@pytest.mark.parametrize(("width", "line"), [(80, "one    what it is"), (40, "    what it is")])
def test_terms_stand_beside_their_meaning_or_above_it(width, line):
    assert line in rows_of_terms([("one", "what it is"), ("three", "x")], width).split("\n")
