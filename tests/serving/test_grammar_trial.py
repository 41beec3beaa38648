"""A grammar of a stranger that takes minutes and gigabytes is refused, and its process ended."""

from __future__ import annotations

import importlib.util

import pytest

from llama_export.errors import BackendUnavailableError, UsageError
from llama_export.generation.grammar import Grammar
from llama_export.serving import grammar_trial
from llama_export.serving.grammar_trial import GrammarTrial

pytest.importorskip("llguidance", reason="needs the extra `structured`")

# Twenty take half a minute and 8 GB, and each one more doubles that.
BOMB = {"allOf": [{"type": "string", "pattern": f".*{number}.*"} for number in range(40)]}
PLAIN = Grammar.schema({"type": "object", "properties": {"a": {"type": "string"}}})


@pytest.fixture
def trial():
    found = GrammarTrial()
    yield found
    found.close()
    assert found._child is None


def test_what_takes_too_long_is_ended_and_the_next_is_tried(trial):
    trial.require_followable(PLAIN)
    first = trial._child
    with pytest.raises(UsageError, match="takes more than 1 s of processor time"):
        trial.require_followable(Grammar.schema(BOMB))
    assert first.returncode is not None
    trial.require_followable(Grammar.regex("[ab]{3}"))
    assert trial._child.pid != first.pid


def test_a_process_that_cannot_be_started_is_named_and_no_grammar_blamed(trial, monkeypatch):
    monkeypatch.setattr(grammar_trial, "_CHILD", "llama_export.nothing_there")
    with pytest.raises(BackendUnavailableError, match="ended at once, with code 1"):
        trial.require_followable(PLAIN)
    monkeypatch.undo()
    trial.require_followable(PLAIN)


def test_a_process_that_somebody_ended_is_started_again(trial):
    trial.require_followable(PLAIN)
    trial._child.kill()
    trial._child.wait()
    trial.require_followable(Grammar.regex("[ab]{3}"))


def test_modules_of_the_folder_that_it_is_started_in_are_not_read(trial, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('not the one of Python')")
    monkeypatch.chdir(tmp_path)
    trial.require_followable(PLAIN)


def test_a_missing_library_is_not_the_grammars_fault(trial, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="needs llguidance"):
        trial.require_followable(PLAIN)


def test_what_is_wrong_is_told_as_without_a_trial(trial):
    schema = Grammar.schema({"type": "object", "properties": {"a": {"type": "colour"}}})
    with pytest.raises(UsageError, match="at /properties/a: Invalid type: colour") as caught:
        trial.require_followable(schema)
    assert "x-guidance" in caught.value.hint


def test_what_was_found_good_is_not_tried_again(trial):
    trial.require_followable(PLAIN)
    trial.close()
    trial.require_followable(PLAIN)
    assert trial._child is None


def test_tokens_that_only_a_model_has_are_left_to_it(trial):
    trial.require_followable(Grammar.rules("start: <[3846]> /[a-z]+/"))
    with pytest.raises(UsageError, match="grammar cannot be followed"):
        trial.require_followable(Grammar.rules("start: /(/"))
