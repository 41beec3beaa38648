"""Options typed before a verb are refused: they apply to an export, and the verb has its own."""

from __future__ import annotations

import pytest

from llama_export.cli.app import app

pytestmark = pytest.mark.usefixtures("own_process_state")

WITHOUT_BUNDLE = ("list", "sensitivity", "compare")


@pytest.fixture
def refused(command):
    def call(*words: str) -> str:
        code, out, err = command(*words, columns=240)
        assert (code, out) == (2, "")
        return err

    return call


def test_an_exports_options_before_list(refused):
    err = refused("--target", "nonsense", "--model", "demo", "list")
    said = "--target and --model before 'list' apply to an export and would be ignored by 'list'"
    assert f"error: {said}" in err
    assert "what to do: leave --target and --model out; llama-export list --help lists" in err


def test_an_exports_options_before_a_verb_with_an_argument(refused):
    err = refused("--max-context", "99", "--force", "inspect", "BUNDLE")
    assert "--max-context" in err
    assert "--force" in err
    assert "apply to an export" in err
    assert "would be ignored by 'inspect'" in err


WITH_JSON = [
    name
    for name, verb in app.commands.items()
    if any("--json" in option.opts for option in verb.params)
]


def test_an_option_that_the_verb_has_not_is_left_out(refused):
    assert [name for name in app.commands if name not in WITH_JSON] == ["serve"]
    assert "what to do: leave --json out;" in refused("--json", "serve", "BUNDLE")


@pytest.mark.parametrize("verb", WITH_JSON)
def test_an_option_that_the_verb_has_too_belongs_after_it(refused, verb):
    err = refused("--json", verb, *([] if verb in WITHOUT_BUNDLE else ["BUNDLE"]))
    assert f"error: --json before {verb!r} applies to an export" in err
    assert f"what to do: write --json after {verb!r}; llama-export {verb} --help lists" in err


@pytest.mark.parametrize("verb", app.commands)
def test_verbose_is_for_every_verb_and_may_stand_before_it(command, monkeypatch, verb):
    asked = []

    def note(**options: object) -> None:
        asked.append(options["verbose"])

    monkeypatch.setattr(app.commands[verb], "callback", note)
    bundle = [] if verb in WITHOUT_BUNDLE else ["BUNDLE"]
    bundle += ["OWNER/NAME"] if verb == "push" else []
    for words in (["--verbose", verb], [verb, "--verbose"], [verb]):
        assert command(*words, *bundle)[0] == 0
    assert asked == [True, True, False]


def test_options_of_both_kinds(refused):
    err = refused("--json", "--no-verify", "--kv-cache", "io", "verify", "BUNDLE")
    hint = err.split("what to do: ")[1]
    assert hint.startswith("write --json after 'verify', and leave --")
    assert "--no-verify" in hint
    assert "--kv-cache" in hint


@pytest.mark.parametrize(
    "words",
    [
        ["-t", "onnx"],
        ["-m", "demo"],
        ["--output", "x"],
        ["--quantize", "int4"],  # the default, but typed
        ["--keep-weights"],
        ["--no-keep-weights"],
        ["--all-logits"],
        ["--no-share-table"],
        ["--accuracy-level", "4"],
        ["--dry-run"],
    ],
)
def test_no_option_is_dropped(refused, words):
    assert "before 'list' applies to an export" in refused(*words, "list")


def test_help_of_the_verb_is_no_way_around(refused):
    assert "--json before 'list'" in refused("--json", "list", "--help")


def test_a_verb_without_options_before_it_runs(command):
    code, out, _ = command("list", "--json")
    assert code == 0
    assert '"name": "demo"' in out
