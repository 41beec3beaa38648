"""`llama-export evaluate`: scores on tasks and texts, as a table and as JSON, and its refusals."""

from __future__ import annotations

import json
import sys

import pytest
from artifacts.demo_bundle import demo_bundle
from artifacts.lm_eval_tasks import CAPITALS, write_tasks

from llama_export.evaluation.scores import FIRST_LINE

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("lm_eval", reason="needs the extra evaluate")
pytestmark = [
    pytest.mark.onnx,
    # Of lm-eval, datasets and what they import.
    pytest.mark.filterwarnings("ignore"),
]
__all__ = ["demo_bundle"]


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return write_tasks(tmp_path / "tasks")


def test_three_kinds_of_tasks_in_a_table_and_in_json(command, demo_bundle, tasks, tmp_path):
    names = "capitals,capitals_text,capitals_written"
    written = tmp_path / "score.json"
    words = ["evaluate", demo_bundle, "--tasks", names, "--include-path", tasks, "-o", written]
    code, out, err = command(*words)
    assert code == 0, err
    assert "capitals_text" in out
    assert "byte_perplexity" in out
    assert "Scoring: done" in err
    text = written.read_text()
    assert text.startswith(f"{FIRST_LINE}\n")
    code, out, _ = command(*words, "--json", "--limit", 4, "--num-fewshot", 2)
    assert code == 0
    found, before = json.loads(out), json.loads(text)
    # An earlier result is replaced.
    assert json.loads(written.read_text()) == found
    assert [each["documents"] for each in before["scores"]] == [len(CAPITALS)] * 3
    assert [each["documents"] for each in found["scores"]] == [4] * 3
    assert found["settings"]["limit"] == 4
    scores = {each["task"]: each for each in found["scores"]}
    assert scores["capitals"]["num_fewshot"] == 2
    assert scores["capitals"]["metric"] == "acc"
    assert 0 <= scores["capitals"]["value"] <= 1
    assert scores["capitals_text"]["value"] > 1
    assert found["bundle"]["target"] == "onnx"
    assert found["settings"]["harness"]["lm_eval"]
    assert found["made"]["command"].startswith("llama-export evaluate")


def test_a_text_needs_no_harness(command, demo_bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    text = tmp_path / "tale.txt"
    text.write_text("Once upon a time there was a king. " * 12)
    code, out, err = command("evaluate", demo_bundle, "--text", text, "--context", 64)
    assert code == 0, err
    assert "perplexity" in out
    assert "±" in out
    code, out, _ = command("evaluate", demo_bundle, "--text", text, "--context", 64, "--json")
    found = json.loads(out)
    assert found["max_context"] == 64
    assert found["text"]["perplexity"]["value"] > 1
    assert found["text"]["error_unit"] == "block of 32 tokens"
    assert found["scores"] == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "needs --tasks or --text"),
        (["--limit", 3, "--text", "a.txt"], 2, "--limit has no use without the name of a task"),
        (["--chat-template"], 2, "--chat-template has no use"),
        (["--tasks", "capitals", "--include-path", "nowhere"], 2, "there is no folder nowhere"),
        (["--text", "nothing.txt"], 15, "nothing.txt cannot be read"),
        (["--tasks", "capitals", "--output", "no/such.json"], 11, "there is no folder"),
    ],
)
def test_what_makes_no_request_is_refused(command, demo_bundle, words, code, said):
    found, out, err = command("evaluate", demo_bundle, *words, columns=200)
    assert (found, out) == (code, "")
    assert said in err


def test_a_task_that_asks_for_a_data_sets_code_is_refused(command, demo_bundle, tasks):
    file = tasks / "capitals.yaml"
    file.write_text(
        file.read_text().replace("dataset_kwargs:", "dataset_kwargs:\n  trust_remote_code: true")
    )
    words = ["evaluate", demo_bundle, "--tasks", "capitals", "--include-path", tasks]
    code, out, err = command(*words, columns=200)
    assert (code, out) == (2, "")
    assert "capitals asks for trust_remote_code" in err


def test_a_fault_of_a_task_is_not_ours(command, demo_bundle, tasks):
    file = tasks / "capitals.yaml"
    file.write_text(file.read_text().replace('"{{answer}}"', '"{{answer.nothing.there}}"'))
    words = ["evaluate", demo_bundle, "--tasks", "capitals", "--include-path", tasks]
    code, out, err = command(*words, columns=200)
    assert (code, out) == (10, "")
    assert "lm-eval cannot run a task: capitals: UndefinedError" in err


def test_data_that_cannot_be_had(command, demo_bundle, tasks, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    file = tasks / "capitals.yaml"
    head, _, rest = file.read_text().partition("dataset_kwargs:")
    head = head.replace("dataset_path: json", "dataset_path: somebody/capitals")
    file.write_text(head + rest[rest.index("test_split:") :])
    words = ["evaluate", demo_bundle, "--tasks", "capitals", "--include-path", tasks]
    code, out, err = command(*words, columns=200)
    assert (code, out) == (12, "")
    assert "the data of a task cannot be had: capitals" in err
    assert "--include-path" in err


def test_without_lm_eval_the_extra_is_named(command, demo_bundle, monkeypatch):
    monkeypatch.setattr("llama_export.evaluation.tasks.HARNESS", "no_such_package")
    code, out, err = command("evaluate", demo_bundle, "--tasks", "arc_easy", columns=200)
    assert (code, out) == (6, "")
    assert "pip install 'llama-export[evaluate]'" in err
