"""Words of other programs and misspelt ones: what the error says is what was most likely meant."""

from __future__ import annotations

import shutil

import pytest
from artifacts.demo_bundle import demo_bundle

from llama_export.cli.app import app
from llama_export.cli.misspelt import _COMMANDS, _OPTIONS, EXPORT, meant_command
from llama_export.cli.program import NAME
from llama_export.sources.resolve import DEMO_FOLDER

pytestmark = pytest.mark.usefixtures("own_process_state")
__all__ = ["demo_bundle"]
EXPORTS = f"{NAME} --target onnx --model"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "page"),
    [
        (["help"], ["--help"]),
        (["help", "chat"], ["chat", "--help"]),
        (["help", "export"], ["--help"]),
        (["help", "help"], ["--help"]),
    ],
)
def test_help_is_a_word_too(command, words, page):
    assert command(*words) == command(*page)
    assert command(*words)[0] == 0


@pytest.mark.parametrize(
    ("words", "to_do"),
    [
        (["run", "demo/onnx"], f"did you mean chat? {NAME} chat BUNDLE talks, generate BUNDLE"),
        (["models"], "did you mean list?"),
        (["show", "x"], "did you mean inspect?"),
        (["convert"], f"an export does that: {EXPORTS} 3.2-1B\n"),
        (["quantize", "demo"], f"an export does that: {EXPORTS} demo\n"),
        (["convert", "demo", "--target", "onnx"], f"an export does that: {EXPORTS} demo\n"),
        (["quantize", "-t", "onnx"], "leave it out: an export needs none"),
        (["quantise", "-t", "onnx", "-m", "demo"], "leave it out: an export needs none"),
        (["run", "-t", "onnx"], "did you mean chat?"),
        (["help", "zzz"], f"what to do: {NAME} --help shows them all"),
    ],
)
def test_a_command_of_other_programs(command, here, words, to_do):
    code, out, err = command(*words, columns=200)
    assert (code, out) == (2, "")
    assert "no such command" in err
    assert to_do in err


def test_a_folder_of_that_name_may_be_a_model(here):
    (here / "convert").mkdir()
    assert app.make_context(NAME, ["-t", "onnx", "convert"]).params["model"] == "convert"


def test_every_word_means_what_there_is():
    assert {meant_command(word, app.commands) for word in _COMMANDS} <= {*app.commands, EXPORT}
    assert not set(_COMMANDS) & {*app.commands, EXPORT}
    known = {
        name for verb in (app, *app.commands.values()) for each in verb.params for name in each.opts
    }
    assert set(_OPTIONS.values()) <= known
    assert not set(_OPTIONS) & known


@pytest.mark.parametrize(
    ("words", "to_do"),
    [
        (["export", "demo"], f"{EXPORTS} demo\n"),
        (["export", "my model"], f"{EXPORTS} 'my model'\n"),
        (["--target", "coreml"], f"{NAME} --target coreml --model 3.2-1B\n"),
    ],
)
def test_what_an_export_lacks_is_added_to_what_was_typed(command, words, to_do):
    code, _, err = command(*words, columns=200)
    assert code == 2
    assert f"what to do: {to_do}" in err


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["--quantise", "int4"], "--quantize"),
        (["--quant", "int4"], "--quantize"),
        (["--precision", "int4"], "--quantize"),
        (["--outtype", "q8_0"], "--quantize"),
        (["chat", "x", "--max-new-tokens", "3"], "--max-tokens"),
        (["list", "--jsn"], "--json"),
        (["list", "--precision"], ""),
        (["-q"], ""),
    ],
)
def test_an_option_that_is_none_gets_one_guess(command, words, guess):
    code, out, err = command(*words, columns=200)
    assert (code, out) == (2, "")
    assert "no such option" in err
    assert err.count("did you mean") == bool(guess)
    assert f"did you mean {guess}? {NAME}" in err or not guess


def test_a_recipe_that_is_none_names_the_options_that_there_are(command):
    code, _, err = command("-t", "onnx", "-m", "demo", "--quantize", "Q4_0", columns=200)
    assert (code, err.count("\n")) == (2, 2)
    assert "--quantize: expected int4, int8, bf16, fp16, found 'Q4_0'" in err
    assert "did you mean int4? --quality says" in err
    assert "--recipe takes" in err


@pytest.mark.parametrize("verb", ["generate", "chat", "verify", "bench", "inspect", "pack"])
def test_a_model_in_place_of_a_bundle(command, here, verb):
    code, out, err = command(verb, "3.2-1b", columns=200)
    assert (code, out) == (2, "")
    assert f"{verb} takes a bundle, which an export makes, and 3.2-1b names a model" in err
    assert f"what to do: {EXPORTS} 3.2-1b, and then {NAME} {verb} 3.2-1B/onnx\n" in err


@pytest.mark.parametrize(
    "words", [["-m", "demo"], ["--model", "demo"], ["--model=demo"], ["x", "-m", "demo"]]
)
def test_an_option_for_the_model_of_a_bundle(command, here, words):
    code, _, err = command("generate", *words, columns=200)
    assert code == 2
    assert f"what to do: {EXPORTS} demo, and then {NAME} generate demo/onnx\n" in err


def test_an_option_for_a_bundle(command, demo_bundle):
    code, _, err = command("chat", "-m", demo_bundle, columns=300)
    assert code == 2
    assert f"a bundle stands without an option: {NAME} chat {demo_bundle}\n" in err


def test_a_bundle_that_is_not_made_yet(command, here):
    code, _, err = command("chat", "3.2-1B/coreml", columns=200)
    assert (code, err.count("\n")) == (8, 2)
    assert f"what to do: {NAME} --target coreml --model 3.2-1B makes it\n" in err


def test_a_checkpoint_is_no_bundle_and_an_output_called_as_its_model_is(command, here, demo_bundle):
    shutil.copytree(DEMO_FOLDER, here / "mine")
    assert "mine names a model" in command("verify", "mine")[2]
    shutil.copytree(demo_bundle, here / "demo" / "onnx")
    assert "did you mean demo/onnx?" in command("verify", "demo")[2]
    assert "did you mean demo/onnx?" in command("verify", "demo/onxx")[2]
