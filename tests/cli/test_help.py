"""The help pages: options under headings, defaults, examples that parse, 80 columns, a pipe."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from llama_export.cli.app import app
from llama_export.cli.program import NAME
from llama_export.cli.verb import Verb
from llama_export.targets import registry
from llama_export.targets.options import option_specs

pytestmark = pytest.mark.usefixtures("own_process_state")

VERBS = ["", *app.commands]
HEADINGS = {
    "": [
        "Model and output",
        "Reading the checkpoint",
        "Weights",
        "Artifact",
        "ONNX",
        "ExecuTorch",
        "Core ML",
        "Hub",
        "Run",
    ],
    "generate": ["Arguments", "Prompt", "Form", "Sampling", "Speed", "Run"],
    "chat": ["Arguments", "Conversation", "Sampling", "Speed", "Run"],
    "serve": ["Arguments", "Server", "Speed", "Run"],
    "classify": ["Arguments", "Conversation", "Judgement", "Run"],
    "pack": ["Arguments", "Options"],
    "push": ["Arguments", "Repository", "Options"],
    "verify": ["Arguments", "Compare with", "Checks", "Run"],
    "bench": ["Arguments", "What is measured", "Run"],
    "evaluate": ["Arguments", "Tasks", "Text", "Run"],
    "inspect": ["Arguments", "Options"],
    "compare": [
        "Arguments",
        "Model",
        "Reading the checkpoint",
        "Recipes",
        "Text that is read",
        "Answer",
        "Run",
    ],
    "sensitivity": ["Model", "Reading the checkpoint", "Text that is read", "Recipe", "Run"],
    "list": ["Options"],
}


@pytest.fixture
def page(command):
    def call(verb: str, **settings: int) -> str:
        code, out, err = command(*filter(None, [verb]), "--help", **settings)
        assert (code, err) == (0, "")
        return out

    return call


def command_of(verb: str) -> Verb:
    found = app.commands[verb] if verb else app
    assert isinstance(found, Verb)
    return found


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("verb", VERBS)
def test_options_stand_under_headings(page, verb):
    text = page(verb)
    found = re.findall(r"^(\S.*):$", text, flags=re.MULTILINE)
    expected = [*HEADINGS[verb], *(["Commands"] if not verb else [])]
    assert found[: len(expected)] == expected
    assert found[len(expected) :] in (["Example"], ["Examples"])
    assert text.startswith(f"Usage: {NAME} {verb}".rstrip())


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_on_its_page_with_its_help(page, verb):
    text = one_line(page(verb))
    for option in command_of(verb).params:
        if isinstance(option, click.Option):
            name = max(option.opts, key=len)
            shown = f"--[no-]{name[2:]}" if option.secondary_opts else name
            assert f"{shown} " in text
            assert one_line(str(option.help)) in text


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_is_on_the_page_once(page, verb):
    names = re.findall(r"^  (?:-\w, |    )(?:--\S+, )*(--\S+)", page(verb), flags=re.MULTILINE)
    assert sorted(set(names)) == sorted(names)
    assert len(names) == sum(isinstance(each, click.Option) for each in command_of(verb).params) + 1


def test_the_page_says_what_is_so_by_default(page):
    text = one_line(page(""))
    for default in (
        "[default: ./MODEL]",
        "[int4, int8, bf16, fp16; default: int4]",
        "[int8, int4; default: int8]",
        "[default: 8192 for onnx, 2048 for executorch and coreml]",
        "default: io for onnx, state for executorch and coreml]",
        "[4, 1; default: 4]",
        "[default: HF_TOKEN, or the saved login]",
    ):
        assert default in text
    text = one_line(page("generate"))
    for default in (
        "[at least 1; default: 256]",
        "[default: the model's own, or 0.7]",
        "default: a fresh one]",
    ):
        assert default in text


def test_the_page_has_each_option_that_a_target_declares(page):
    text = page("")
    for target in registry.TARGETS:
        for spec in option_specs(registry.get(target).Options):
            shown = f"--[no-]{spec.flag[2:]}" if spec.default is True else spec.flag
            assert f" {shown}" in text
            for choice in spec.choices:
                assert str(choice) in text


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("columns", [40, 47, 60, 64, 80, 120, 200])
def test_a_page_fits_the_screen(page, verb, columns):
    lines = page(verb, columns=columns).splitlines()
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("verb", ["", "sensitivity"])
def test_what_an_export_needs_is_marked(page, verb):
    text = one_line(page(verb))
    needed = re.findall(r"--(\S+) [A-Z]+ (?:(?! --).)*?\[required", text)
    assert needed == (["model"] if verb else ["target", "model"])


@pytest.mark.parametrize("verb", VERBS)
def test_an_example_on_a_narrow_screen_is_the_same_command(page, verb):
    _, _, shown = page(verb, columns=40).partition("\nExample")
    lines = shown.partition("\n")[2].replace("\\\n", " ").splitlines()
    assert [one_line(line) for line in lines] == list(command_of(verb).examples)


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_is_plain_text_in_a_pipe_and_coloured_on_a_terminal(page, verb, monkeypatch):
    assert "\x1b" not in page(verb)
    context = command_of(verb).make_context(verb or NAME, [], resilient_parsing=True)
    assert "\x1b[1m" in command_of(verb).get_help(context)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in command_of(verb).get_help(context)


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_parse(verb):
    for example in command_of(verb).examples:
        program, *words = shlex.split(example)
        assert program == NAME
        if verb:
            assert words.pop(0) == verb
        command_of(verb).make_context(verb or NAME, words)


def test_every_name_of_an_option_is_shown_as_one(page):
    assert "      --temp, --temperature T\n" in page("chat")
    assert "  -t, --target TARGET " in page("")


def test_the_short_option_gives_the_same_page(command, page):
    assert command("-h")[1] == page("")
    assert command("chat", "-h")[1] == page("chat")


def test_without_a_word_the_page_is_shown_and_it_is_a_mistake(command, page):
    code, out, err = command()
    assert (code, out, err) == (2, page(""), "")


def test_the_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert re.fullmatch(rf"{NAME} \d+\.\d+\S*\n", out)


@pytest.mark.parametrize(
    ("words", "said", "to_do"),
    [
        (["generat"], "no such command 'generat'", f"did you mean generate? {NAME} --help"),
        (["--targt", "onnx"], "'--targt'", f"did you mean --target? {NAME} --help"),
        (["generate"], "missing argument 'BUNDLE'", f"{NAME} generate --help"),
        (["verify", "one", "two"], "unexpected extra argument", f"{NAME} verify --help"),
        (["--target"], "'--target' requires an argument", f"{NAME} --help"),
        (["--force=3"], "'--force' does not take a value", f"{NAME} --help"),
        (["bench", "b", "--repeat", "x"], "'--repeat': 'x' is not a valid", f"{NAME} bench --help"),
        (["chat", "b", "--overflow", "x"], "'ask', 'stop', 'drop-oldest'", f"{NAME} chat --help"),
    ],
)
def test_a_line_that_does_not_parse_says_what_to_do(command, words, said, to_do):
    code, out, err = command(*words, columns=200)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert f"what to do: {to_do} shows" in err
