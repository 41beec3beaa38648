"""After an export, what is proposed first is what the model was made for."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle
from rich.console import Console

from llama_export.bundle.bundle import Bundle
from llama_export.cli.next_steps import _PAGES, show_next_steps

__all__ = ["demo_bundle"]
pytestmark = pytest.mark.onnx


PROOF = "llama-export verify it"


def proposed(*bundles: Bundle, verify: str | None = PROOF) -> list[str]:
    shown = io.StringIO()
    show_next_steps(Console(file=shown, width=300), [(bundle, verify) for bundle in bundles])
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
    first, then, *_ = proposed(Bundle(opened.folder, replace(opened.manifest, model=model)))
    assert first.startswith(f"llama-export {command.format(demo_bundle)}")
    assert then == PROOF


def test_a_model_that_is_asked_for_categories_judges(demo_bundle, tmp_path):
    folder = shutil.copytree(demo_bundle, tmp_path / "guard")
    settings = folder / "tokenizer_config.json"
    template = "{{ messages[0].content }}\nS1: Violent Crimes.\nsafe or unsafe?"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    first, *_ = proposed(Bundle(folder, Bundle.open(demo_bundle).manifest))
    assert first.startswith(f"llama-export classify {folder} --prompt")


def test_what_does_not_run_here_is_looked_at(demo_bundle):
    opened = Bundle.open(demo_bundle)
    elsewhere = Bundle(opened.folder, replace(opened.manifest, runs_here=False))
    assert proposed(elsewhere, verify=None)[0] == f"llama-export inspect {demo_bundle}"


def test_every_target_is_proved_and_has_its_way_into_an_app(demo_bundle):
    opened = Bundle.open(demo_bundle)
    pte, package = (
        Bundle(opened.folder.parent / name, replace(opened.manifest, target=name))
        for name in ("executorch", "coreml")
    )
    lines = proposed(opened, pte, package)
    assert lines[0].startswith(f"llama-export generate {demo_bundle}")
    assert lines[1:4] == [PROOF] * 3
    assert lines[4:] == [
        f"{pte.folder} in an Android app: docs/android.md of the project",
        f"{package.folder} in an iPhone app: docs/ios.md of the project",
    ]
    # Another target is named where an app's first choice was not made.
    assert proposed(opened)[2:] == [
        f"{demo_bundle} in an Android app: docs/android.md of the project",
        f"{demo_bundle} in an iPhone app: docs/ios.md of the project",
    ]


def test_the_pages_that_are_named_are_there():
    docs = Path(__file__).resolve().parents[2]
    for _, page in _PAGES.values():
        assert (docs / page).is_file()
