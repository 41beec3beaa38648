"""What users type for an export and for a bundle, and what is meant by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle

from llama_export.bundle.bundle import Bundle
from llama_export.cli.app import app
from llama_export.cli.plain_form import Typed, plain_form
from llama_export.cli.program import NAME
from llama_export.errors import BundleError, HubError, UsageError
from llama_export.sources.resolve import name_model

pytestmark = pytest.mark.usefixtures("own_process_state")
__all__ = ["demo_bundle"]
PLAIN = ["--target", "onnx", "--model", "demo"]


@pytest.mark.parametrize(
    "words",
    [
        ["export", *PLAIN],
        ["--target", "onnx", "demo"],
        ["-t", "onnx", "--force", "demo"],
        ["demo", "--target", "onnx"],
        ["export", "demo", "-t", "onnx"],
        ["--target", "onnx", "export", "--model", "demo"],
        ["--target=onnx", "demo"],
    ],
)
def test_an_export_in_other_words(words):
    context = app.make_context(NAME, list(words))
    assert (context.params["target"], context.params["model"]) == (("onnx",), "demo")
    assert context.params["force"] is ("--force" in words)


@pytest.mark.parametrize(
    ("words", "said", "to_do"),
    [
        ([*PLAIN, "3.2-1B"], "takes one model, and '3.2-1B' would be", "leave it out"),
        (["--target", "onnx", "demo", "3.2-1B"], "'3.2-1B' would be a second", "leave it out"),
        ([*PLAIN, "coreml"], "coreml is a target", "several stand behind one --target"),
        ([*PLAIN, "inspct"], "no such command 'inspct'", "did you mean inspect?"),
        (["demo"], "'demo' is a model", f"{NAME} --target onnx --model demo"),
        (["meta-llama/x"], "'meta-llama/x' is a model", "--model meta-llama/x"),
        (["inspct"], "no such command 'inspct'", "did you mean inspect?"),
        (["zzz"], "no such command 'zzz'", f"what to do: {NAME} --help shows them all"),
        (["--target", "onnx", "demo", "list"], "before 'list'", "leave"),
        (["export", "list"], "needs both --target and --model", "--target onnx"),
    ],
)
def test_what_cannot_be_meant_is_refused(command, words, said, to_do):
    code, out, err = command(*words, columns=200)
    assert (code, out) == (2, "")
    assert said in err
    assert to_do in err


def test_export_alone_shows_the_page(command):
    assert command("export") == command()
    assert command("export", "--help") == command("--help")


def test_verbs_and_what_follows_a_dash_dash_stay():
    def read(words: list[str]) -> Typed:
        return Typed(words[:1], words[1:], {"target"})

    assert plain_form(["x", "chat", "y"], read, ["chat"]) == ["x", "chat", "y"]
    assert plain_form(["--", "demo"], read, ["chat"]) == ["--", "demo"]


@pytest.mark.parametrize(
    ("typed", "alias"),
    [
        ("3.2-1b", "3.2-1B"),
        ("Llama-3.2-1B", "3.2-1B"),
        ("llama3.2:1b", "3.2-1B"),
        ("Meta-Llama-3-8B-instruct", "3-8B-Instruct"),
        ("SmolLM2:135m", "smollm2-135m"),
    ],
)
def test_a_name_in_other_letters(typed, alias):
    named = name_model(typed)
    assert (named.name, named.is_alias) == (alias, True)


@pytest.mark.parametrize("typed", ["3.2-2B", "lama-3.2-1B", "smolm2-135m"])
def test_one_name_is_suggested_at_most(typed):
    with pytest.raises(HubError, match="did you mean") as caught:
        name_model(typed)
    assert " or " not in caught.value.message
    assert caught.value.hint.startswith("llama-export list shows")
    assert caught.value.hint.count("2") == 1  # the example alone, and not every name


@pytest.mark.parametrize("part", ["model.onnx", "model.onnx_data", "manifest.json", "."])
def test_a_part_of_a_bundle_means_the_bundle(demo_bundle, part):
    assert Bundle.open(demo_bundle / part).folder.resolve() == demo_bundle.resolve()


def test_a_part_without_a_folder_in_its_path(demo_bundle, monkeypatch):
    monkeypatch.chdir(demo_bundle)
    assert Bundle.open(Path("model.onnx")).manifest.target == "onnx"


@pytest.mark.parametrize("part", ["tokenizer.json", "model.pte", "nothing"])
def test_another_file_of_a_bundle_does_not_mean_it(demo_bundle, part):
    with pytest.raises(BundleError, match=r"a bundle is a folder"):
        Bundle.open(demo_bundle / part)


def test_a_bundle_inside_a_bundle_is_meant_by_itself(demo_bundle, tmp_path):
    outer = tmp_path / "outer"
    shutil.copytree(demo_bundle, outer)
    shutil.copytree(demo_bundle, outer / "model.onnx.old")
    assert Bundle.open(outer / "model.onnx.old").folder == outer / "model.onnx.old"


def test_a_damaged_manifest_around_a_file_is_not_its_fault(demo_bundle, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(demo_bundle, copied)
    (copied / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="is a file"):
        Bundle.open(copied / "model.onnx")


@pytest.mark.parametrize("verb", ["inspect", "generate", "bench", "verify"])
def test_every_verb_takes_the_artifact(command, demo_bundle, verb):
    options = {
        "generate": ["-p", "Once", "-n", "2"],
        "bench": ["--quick", "--repeat", "1"],
        "verify": ["--quick"],
    }
    code, _, err = command(verb, demo_bundle / "model.onnx", *options.get(verb, []))
    assert "is a file" not in err
    assert code in (0, 17)


def test_a_prompt_behind_the_bundle(command, demo_bundle):
    options = ["-n", "3", "--temp", "0"]
    code, out, _ = command("generate", demo_bundle, "Once upon", *options)
    assert (code, out) == command("generate", demo_bundle, "-p", "Once upon", *options)[:2]
    assert (code, out[:9]) == (0, "Once upon")
    code, out, _ = command("chat", demo_bundle, "Once upon", *options, stdin=b"")
    assert (code, out) == command("chat", demo_bundle, "-p", "Once upon", *options, stdin=b"")[:2]
    assert out


@pytest.mark.parametrize("verb", ["generate", "chat", "classify"])
def test_two_prompts_are_refused(command, demo_bundle, verb):
    code, _, err = command(verb, demo_bundle, "Once", "-p", "Twice", columns=200)
    assert (code, err.count("\n")) == (15, 2)
    assert "two prompts: --prompt, and 'Once' behind the bundle" in err


def test_the_error_of_two_models_names_the_second():
    with pytest.raises(UsageError, match="'b' would be a second"):
        app.make_context(NAME, ["-t", "onnx", "a", "b"])
