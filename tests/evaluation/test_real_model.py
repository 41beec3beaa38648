"""SmolLM2 as a bundle in floats has the scores that lm-eval gives its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifacts.lm_eval_tasks import lm_eval_checkpoint, write_tasks
from artifacts.real_model import find_real_model
from artifacts.small_bundle import Silent

from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.generation.opening import open_session

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("lm_eval", reason="needs the extra evaluate")
pytestmark = [
    pytest.mark.onnx,
    pytest.mark.slow,
    # Of lm-eval, datasets and what they import.
    pytest.mark.filterwarnings("ignore"),
]

CONTEXT = 256
TASKS = ("capitals", "capitals_text", "capitals_written")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Return the real model as a checkpoint in bfloat16, which a bundle can hold exactly."""
    import torch
    import transformers
    from safetensors.torch import save_file

    file = find_real_model()
    folder = tmp_path_factory.mktemp("smollm2")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).to(torch.bfloat16)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("chat_template", [False, True])
def test_the_scores_are_those_of_transformers(checkpoint, tmp_path, monkeypatch, chat_template):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from llama_export.evaluation.tasks import TaskRequest, score_tasks

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = write_tasks(tmp_path / "tasks")
    request = ExportRequest(
        str(checkpoint),
        ("onnx",),
        tmp_path / "out",
        recipe="bf16",
        max_context=CONTEXT,
        verify=False,
    )
    bundle = export_bundle(request, Silent()).output / "onnx"
    with open_session(bundle) as session:
        asked = TaskRequest(TASKS, chat_template=chat_template, include_path=folder)
        found = score_tasks(session, asked, Silent())
    wanted = simple_evaluate(
        lm_eval_checkpoint(checkpoint, checkpoint, CONTEXT),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        apply_chat_template=chat_template,
        log_samples=False,
    )["results"]
    assert found.shortened == 0
    assert {each.task for each in found.scores} == set(TASKS)
    for each in found.scores:
        assert each.value == pytest.approx(wanted[each.task][f"{each.metric},none"], rel=1e-4)
    right = next(each.value for each in found.scores if each.task == "capitals")
    assert right > 0.6  # of three choices: it knows its capitals
