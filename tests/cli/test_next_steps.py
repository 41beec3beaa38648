"""After an export, what is proposed first is what the model was made for."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import pytest
from artifacts.demo_bundle import demo_bundle
from rich.console import Console

from llama_export.bundle.bundle import Bundle
from llama_export.cli.next_steps import show_next_steps

__all__ = ["demo_bundle"]
pytestmark = pytest.mark.onnx


def proposed(bundle: Bundle, verify: str | None = "llama-export verify it") -> list[str]:
    shown = io.StringIO()
    show_next_steps(Console(file=shown, width=300), bundle, verify=verify)
    return [line.strip() for line in shown.getvalue().splitlines()[2:]]


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "generate {} --prompt"),
        ({"name": "3.2-1B-Instruct"}, "chat {}"),
        # A head of few tokens alone makes no judge of a model: its template does.
        ({"name": "two", "reading": {"head_tokens": ["yes", "no"]}}, "chat {}"),
    ],
)
def test_what_the_model_was_made_for(demo_bundle, changes, command):
    opened = Bundle.open(demo_bundle)
    model = replace(opened.manifest.model, **changes)
    first, then = proposed(Bundle(opened.folder, replace(opened.manifest, model=model)))
    assert first.startswith(f"llama-export {command.format(demo_bundle)}")
    assert then == "llama-export verify it"


def test_a_model_that_is_asked_for_categories_judges(demo_bundle, tmp_path):
    folder = shutil.copytree(demo_bundle, tmp_path / "guard")
    settings = folder / "tokenizer_config.json"
    template = "{{ messages[0].content }}\nS1: Violent Crimes.\nsafe or unsafe?"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    first, _ = proposed(Bundle(folder, Bundle.open(demo_bundle).manifest))
    assert first.startswith(f"llama-export classify {folder} --prompt")


def test_what_does_not_run_here_is_looked_at(demo_bundle):
    opened = Bundle.open(demo_bundle)
    elsewhere = Bundle(opened.folder, replace(opened.manifest, runs_here=False))
    assert proposed(elsewhere, None) == [f"llama-export inspect {demo_bundle}"]
