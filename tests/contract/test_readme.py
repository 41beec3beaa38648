"""What the README and the other pages say holds: commands parse, files exist, exit codes agree."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llama_export import errors
from llama_export.cli.app import app
from llama_export.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# docs/commands.md is the program's own help, forms and all; a test of its own compares it.
COMMAND_PAGE = ROOT / "docs" / "commands.md"
WRITTEN_BY_HAND = [page for page in PAGES if page != COMMAND_PAGE]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAM = "llama-export"
# What ends a command of a shell line.
SHELL_ENDS = {"|", ">", ">>", "<", "2>", "&&", ";"}


def code_lines(page: str) -> list[str]:
    """Return the lines of fenced blocks, continuations joined, and all inline code."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return [line.strip().removeprefix("$ ") for line in lines + re.findall(r"`([^`]+)`", prose)]


def commands_in(page: str) -> list[str]:
    """Return every command line of ours on a page."""
    starts = re.compile(rf"(?:\S+/)?{PROGRAM} +\S")
    return [line for line in code_lines(page) if starts.match(line)]


def parse(line: str) -> list[str]:
    """Parse a command line as the program would, without running it; return the verb, if any.

    Raises an error of click's when it does not parse.
    """
    words = shlex.split(line, comments=True)
    ends = [index for index, word in enumerate(words) if word in SHELL_ENDS]
    arguments = [word for word in words[1 : min(ends, default=len(words))] if word != "--help"]
    asks_help = "--help" in words
    context = click.Context(app, info_name=PROGRAM)
    _, rest, _ = app.make_parser(context).parse_args(list(arguments))
    if not rest:
        if arguments or not asks_help:
            # What prints a script or a version ends the run by itself.
            with contextlib.suppress(click.exceptions.Exit):
                app.make_context(PROGRAM, arguments)
        return []
    name, command, rest = app.resolve_command(context, rest)
    if rest or not asks_help:
        command.make_context(name, rest, parent=context)
    return [name]


COMMANDS = sorted(
    {line for page in WRITTEN_BY_HAND for line in commands_in(page.read_text(encoding="utf-8"))}
)


def test_the_readme_shows_each_command_of_the_program():
    shown = {name for line in commands_in(README) for name in parse(line)}
    assert shown == set(app.commands)
    assert f"{PROGRAM} --target all --model 3.2-1B-Instruct" in COMMANDS


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_on_a_page_parses(line):
    parse(line)


@pytest.mark.parametrize(
    "line",
    [
        f"{PROGRAM} --nonsense",
        f"{PROGRAM} --accuracy-level high",
        f"{PROGRAM} verify",
        f"{PROGRAM} verify one two",
        f"{PROGRAM} generate bundle --max-tokens 0",
        f"{PROGRAM} conjure bundle",
    ],
)
def test_a_wrong_command_does_not_parse(line):
    with pytest.raises((click.UsageError, UsageError)):
        parse(line)


def test_commands_are_found_in_blocks_and_in_prose():
    block = f"```\n$ {PROGRAM} generate \\\n  b --chat\nls\n```\n"
    page = f"Text `{PROGRAM} verify a`.\n\n{block}`{PROGRAM}`\n"
    found = [" ".join(line.split()) for line in commands_in(page)]
    assert found == [f"{PROGRAM} generate b --chat", f"{PROGRAM} verify a"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_and_links_on_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    named = {
        word
        for line in code_lines(text)
        for word in line.split()
        if word.startswith(("tools/", "docs/", "tests/"))
    }
    links = {
        target for target in re.findall(r"\]\(([^)#]+)", text) if not target.startswith("http")
    }
    missing = [name for name in named if not (ROOT / name.rstrip(",.")).exists()]
    missing += [name for name in links if not (page.parent / name).exists()]
    assert missing == []


def test_the_two_commands_are_there():
    lines = code_lines(README)
    for script in ("tools/demo.py", "tools/test.py"):
        assert f"python3 {script}" in lines
        assert (ROOT / script).is_file()


def exit_codes_of_the_program() -> set[int]:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = {value.exit_code for value in classes if issubclass(value, errors.LlamaExportError)}
    others = {errors.NOT_PROVED_EXIT_CODE, errors.OUR_FAULT_EXIT_CODE}
    # Success, failed verification, usage, QuantizationError, SIGINT, SIGTERM.
    return ours | others | {0, 1, 2, 9, 129, 130, 141, 143}


def test_the_table_of_exit_codes_is_complete():
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", page, flags=re.MULTILINE)
    listed = [int(code) for row in rows for code in row.split(",")]
    assert sorted(listed) == sorted(exit_codes_of_the_program())


def test_every_option_of_an_export_is_in_the_table():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    listed = {
        option
        for row in re.findall(r"^\| (`-[^|]+) \|", page, flags=re.MULTILINE)
        for option in re.findall(r"`(--[\w-]+)`", row)
    }
    for parameter in app.params:
        spellings = {*parameter.opts, *parameter.secondary_opts}
        assert spellings & listed, f"docs/options.md has no row for {spellings}"
    known = {name for each in app.params for name in (*each.opts, *each.secondary_opts)}
    assert listed - known == {"--help"}


def test_the_page_of_commands_is_what_the_program_says(tmp_path):
    now = tmp_path / "commands.md"
    # A process of its own: click keeps the option of help in the form that was asked for first.
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("export", "quantize"))
    command = [sys.executable, str(ROOT / "tools" / "command_pages.py"), str(now)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})
    written = COMMAND_PAGE.read_text(encoding="utf-8")
    said = now.read_text(encoding="utf-8")
    assert written == said, "run tools/command_pages.py docs/commands.md"
    assert re.findall(r"^## (.+)$", written, flags=re.MULTILINE) == ["An export", *app.commands]
