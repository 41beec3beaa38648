"""What is shown cannot steer a terminal: on consoles, in streamed text, in JSON; and no way around.

`HOSTILE` sets a terminal's title, and turns the direction of what follows.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle
from artifacts.resealing import reseal
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from llama_export.cli import output
from llama_export.cli.chat.wording import say
from llama_export.cli.console import CleanConsole
from llama_export.cli.terminal import TerminalProgress, _TimeLeft, show_error, show_note

pytestmark = pytest.mark.usefixtures("own_process_state")
__all__ = ["demo_bundle"]
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b]0;pwned\x07\u202e\x9b31m"
# rich takes the bell out of a `Text` by itself, and nothing else of these.
DRAWN = r"\x1b]0;pwned\u202e\x9b31m"
SHOWN = r"\x1b]0;pwned\x07\u202e\x9b31m"


class Screen(io.StringIO):
    """A terminal that keeps what it is sent."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch) -> Screen:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return Screen()


def is_clean(text: str) -> bool:
    """Whether a text has no escape but those with which rich sets colours and moves its bars."""
    titles = "\x1b]" in text or "\x07" in text
    return not titles and "\u202e" not in text and "\x9b" not in text


def cell_table(text: str) -> Table:
    table = Table(text, "", title=text, caption=text)
    table.add_row(text, Text(text))
    return table


@pytest.mark.parametrize(
    "drawn",
    [
        HOSTILE,
        Text(HOSTILE, style="bold"),
        Padding(HOSTILE, 1),
        Panel(HOSTILE, title=HOSTILE),
        cell_table(HOSTILE),
    ],
    ids=lambda drawn: type(drawn).__name__,
)
def test_whatever_is_drawn_is_clean(screen, drawn):
    CleanConsole(file=screen).print(drawn)
    text = screen.getvalue()
    assert is_clean(text)
    assert DRAWN in text.replace(r"\x07", "")


def test_the_check_sees_what_rich_itself_lets_through(screen):
    from rich.console import Console

    Console(file=screen).print(cell_table(HOSTILE))
    assert not is_clean(screen.getvalue())


@pytest.mark.parametrize("text", ["[/]", "[bold]x[/bold]", "a[red", ":smile:", "[link=x]y"])
def test_a_bracket_is_a_bracket(screen, text):
    """rich's own console refuses the first, and swallows or changes the others."""
    console = CleanConsole(file=screen)
    console.print(text)
    console.print(cell_table(text))
    assert screen.getvalue().count(text) == 6


def test_joiners_line_breaks_and_other_scripts_stay(screen):
    text = "Größe\n日本語 \u0645\u06cc\u200c\u062e 👩\u200d🚀"
    CleanConsole(file=screen).print(text, soft_wrap=True)
    assert screen.getvalue() == f"{text}\n"


def test_a_cell_and_a_message_are_bounded(screen):
    long = "\x1b" * 3_000_000
    table = Table("name", "size")
    table.add_row(long, "3")
    CleanConsole(file=screen).print(table)
    show_error(CleanConsole(file=screen), long, long)
    assert len(screen.getvalue()) < 12_000
    assert len(screen.getvalue().split("error:")[1]) < 2100
    assert "characters more" in screen.getvalue()


def test_labels_notes_and_words_of_a_chat_are_clean(screen):
    console = CleanConsole(file=screen)
    with TerminalProgress(console).step(f"Opening {HOSTILE}"):
        pass
    show_note(console, HOSTILE)
    show_error(console, HOSTILE, HOSTILE)
    say(console, f"taken back: {HOSTILE}", "dim")
    text = screen.getvalue()
    assert is_clean(text)
    assert text.count(f"Opening {SHOWN}") >= 1
    assert text.replace(f"Opening {SHOWN}", "").count(SHOWN) == 4


@pytest.mark.parametrize("pieces", [[HOSTILE], list(HOSTILE), ["\x1b", "]0;", "pwned\x07\u202e"]])
def test_a_streamed_text_cannot_steer_a_terminal_in_pieces_either(screen, monkeypatch, pieces):
    monkeypatch.setattr(sys, "stdout", screen)
    for piece in pieces:
        output.write_text(piece)
    output.write_text("a\tb\nc\u200dd")
    assert "\x1b" not in screen.getvalue()
    assert is_clean(screen.getvalue())
    assert screen.getvalue().endswith("a\tb\nc\u200dd")


def test_a_pipe_gets_a_streamed_text_as_it_is(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    output.write_text(HOSTILE)
    assert file.getvalue() == HOSTILE


def test_json_is_ascii_without_control_characters(monkeypatch):
    file = Screen()
    monkeypatch.setattr(sys, "stdout", file)
    value = {HOSTILE: ["\x7f", "\udcff"]}
    output.write_json(value)
    assert file.getvalue().isascii()
    assert file.getvalue().replace("\n", "").isprintable()
    assert json.loads(file.getvalue()) == value


def hostile_bundle(bundle: Path, folder: Path) -> Path:
    """Copy a bundle, and make hostile what a manifest does not judge: a text, and other names."""
    shutil.copytree(bundle, folder)
    (folder / "NOTICE").write_text(f"licence {HOSTILE}")
    reseal(folder)
    (folder / f"not listed {HOSTILE}").write_text("")
    return folder


@pytest.mark.parametrize("options", [[], ["--hashes"], ["--json"]])
def test_inspect_shows_a_hostile_bundle(command, tmp_path, demo_bundle, options):
    bundle = hostile_bundle(demo_bundle, tmp_path / HOSTILE)
    code, out, err = command("inspect", bundle, *options, columns=400)
    assert code == 0
    assert is_clean(out + err)
    assert "pwned" in out + err


@pytest.mark.parametrize(
    "words",
    [
        ("list", "X", "--", HOSTILE),
        ("list", HOSTILE),
        ("bench", "X", "--quick", "--verbose", HOSTILE),
        ("verify", "X", f"--{HOSTILE}"),
        ("generate", "X", "-p", "x", "-n", HOSTILE),
        ("--target", HOSTILE, "--model", "demo"),
        ("--model", HOSTILE, "--target", "onnx", "--verbose"),
        (HOSTILE,),
    ],
)
def test_a_command_line_that_is_refused_is_shown_clean(command, words):
    code, out, err = command(*words, columns=400)
    assert code != 0
    assert "pwned" in out + err
    assert is_clean(out + err)


@pytest.mark.onnx
def test_a_terminal_shows_a_models_text_by_name_and_a_pipe_gets_it(demo_bundle):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    words = ["generate", str(demo_bundle), "-p", f"x{HOSTILE}", "-n", "1", "--threads", "1"]
    command = [sys.executable, "-m", "llama_export", *words]
    environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    on_screen = os.read(master, 4096)
    _, _ = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0
    assert on_screen.decode().startswith(f"x{SHOWN}")
    piped = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert piped.stdout.decode().startswith(f"x{HOSTILE}")


# No way around the two places that print.

PRINTING = {
    "cli/console.py",
    "cli/output.py",
    # Click's help pages are ours alone; the bare words of a run that did not begin; a prompt.
    "cli/program.py",
    "cli/main.py",
    "cli/endings.py",
    "cli/chat/input.py",
    # To the pipe of the server that started it, which reads JSON there: no screen.
    "serving/grammar_trial_child.py",
}
CALLS = {"print", "echo", "secho", "echo_via_pager", "Console", "from_markup", "render_markup"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}


def ways_to_print(source: str) -> list[str]:
    """Name what a module calls that prints on its own, or reads markup."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        owner = getattr(called, "value", None)
        if isinstance(owner, ast.Attribute) and owner.attr in STREAMS and name.startswith("write"):
            found.append(f"{owner.attr}.{name}")
        # `console.print` is a method of a console that cleans.
        if name in CALLS and not (name == "print" and isinstance(called, ast.Attribute)):
            found.append(name)
        if any(keyword.arg == "markup" for keyword in node.keywords) and name != "TextColumn":
            found.append(f"{name}(markup=...)")
    return found


def test_nothing_is_printed_but_through_the_two_places_that_clean():
    packages = [ROOT / name for name in ("export", "quantize", "integrations")]
    paths = [path for package in packages for path in sorted(package.rglob("*.py"))]
    assert len(paths) > 100
    found = {
        path.as_posix(): ways
        for path in paths
        if (ways := ways_to_print(path.read_text(encoding="utf-8")))
        and path.as_posix().partition("export/llama_export/")[2] not in PRINTING
    }
    assert found == {}


def test_the_walk_sees_what_it_forbids():
    assert ways_to_print("print(x)") == ["print"]
    assert ways_to_print("click.echo(x)\nclick.secho(x)") == ["echo", "secho"]
    assert ways_to_print("sys.stdout.write(x)") == ["stdout.write"]
    assert ways_to_print("sys.stdout.buffer.flush()") == []
    assert ways_to_print("Console(stderr=True)") == ["Console"]
    assert ways_to_print("console.print(x)") == []
    assert ways_to_print("console.print(x, markup=True)") == ["print(markup=...)"]
    assert ways_to_print("Text.from_markup(x)") == ["from_markup"]


def test_a_step_that_lasts_says_how_much_is_left():
    now = [0.0]
    bars = Progress(_TimeLeft(), get_time=lambda: now[0], speed_estimate_period=900, disable=True)
    task = bars.add_task("", total=None)

    def left(at_s: float, done: int) -> str:
        now[0] = at_s
        bars.update(task, completed=done, total=100)
        return str(_TimeLeft().render(bars.tasks[0]))

    assert left(1.0, 10) == ""
    assert left(2.0, 20) == ""
    assert left(10.0, 30) == "32 s left"
    assert left(100.0, 40) == "3 min left"
    assert left(200.0, 100) == ""


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_in_a_log_is_a_line_of_words(fails):
    file, now = io.StringIO(), iter([0.0, 30.0, 61.0, 90.0, 110.0, 126.0])
    progress = TerminalProgress(CleanConsole(file=file), clock=lambda: next(now))
    with contextlib.suppress(KeyError), progress.step("Quantising to int4") as advance:
        for done in (10, 25, 30, 100):
            advance(done, 100)
        if fails:
            raise KeyError
    done_lines = [] if fails else ["Quantising to int4: done in 2 min"]
    assert file.getvalue().splitlines() == ["Quantising to int4: 25% after 61 s", *done_lines]
