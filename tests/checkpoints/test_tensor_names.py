"""Tensors under other names than the model's, and what a user is told where that does not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from artifacts.tiny import TINY, UNTIED, random_llama, write_checkpoint
from safetensors.torch import load_file, save_file

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import CheckpointError
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.llama.names import HEAD, TABLE

QUERY = "model.layers.0.self_attn.q_proj."


def rewritten(folder: Path, change: Callable[[dict], object], config=TINY) -> Path:
    write_checkpoint(folder, config)
    state = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    changed = change(state)
    save_file(changed if isinstance(changed, dict) else state, folder / "model.safetensors")
    return folder


def set_keys(folder: Path, **keys: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | keys))


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        HfCheckpoint.open(folder)
    return caught.value


def doubled(state: dict) -> dict:
    return {f"model.{name}": value for name, value in state.items()}


def inner_doubled(state: dict) -> dict:
    return {name.replace("model.", "model.model."): value for name, value in state.items()}


def head_alone(state: dict) -> None:
    state[HEAD] = state.pop(TABLE)


@pytest.mark.filterwarnings("ignore")  # of the library's own, about its next version
@pytest.mark.parametrize(
    ("change", "config"),
    [(doubled, TINY), (doubled, UNTIED), (inner_doubled, UNTIED), (head_alone, TINY)],
)
def test_names_that_transformers_reads_are_read(tmp_path, change, config):
    transformers = pytest.importorskip("transformers", reason="needs transformers, the oracle")
    folder = rewritten(tmp_path / "model", change, config)
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    state = random_llama(config).state_dict()
    found = HfCheckpoint.open(folder)
    assert (HEAD in found.names) is not config.tie_word_embeddings
    for name in found.names:
        assert torch.equal(found.tensor(name).float(), theirs[name]), name
        assert torch.equal(theirs[name], state[name]), name


def test_an_untied_model_needs_its_table(tmp_path):
    folder = rewritten(tmp_path / "model", lambda s: {k: v for k, v in s.items() if k != TABLE})
    set_keys(folder, tie_word_embeddings=False)
    assert f"{TABLE} is missing" in refusal(folder).message


def test_a_negative_zero_is_a_zero(tmp_path):
    zeros = {f"{QUERY}bias": -torch.zeros(256), "lm_head.bias": -torch.zeros(9).bfloat16()}
    assert HfCheckpoint.open(rewritten(tmp_path / "model", lambda s: s.update(zeros))).notes == ()
    for value in (torch.full((3,), -1e-30), torch.full((3,), 2.0**-126).bfloat16()):
        folder = rewritten(tmp_path / "odd", lambda s, v=value: s.update({"lm_head.bias": v}))
        assert "lm_head.bias is not zero" in refusal(folder).message


def test_a_dry_run_refuses_a_tied_head_that_differs(tmp_path):
    folder = rewritten(tmp_path / "model", lambda s: s.update({HEAD: s[TABLE] + 1}))
    with pytest.raises(CheckpointError, match=r"a lm_head\.weight that differs") as caught:
        plan_export(ExportRequest(str(folder), ("onnx",), tmp_path / "out"), to_show=True)
    assert "set tie_word_embeddings to false" in caught.value.hint


def longer(rows: int, *names: str) -> Callable[[dict], None]:
    def change(state: dict) -> None:
        for name in names:
            state[name] = torch.cat([state[name], state[name][:rows]])

    return change


def with_adapter(state: dict) -> None:
    state |= {f"{QUERY}lora_A.weight": torch.ones(4, 128)}


@pytest.mark.parametrize(
    ("change", "keys", "hint"),
    [
        (longer(8, TABLE, HEAD), {}, "set vocab_size to 520"),
        (longer(8, HEAD), {}, "same model"),
        (with_adapter, {}, "merge the adapter first"),
        (dict, {"attention_bias": True}, "set attention_bias or mlp_bias to false"),
        (dict, {"num_hidden_layers": 3}, "same model"),
    ],
)
def test_what_to_do_is_said_by_what_is_wrong(tmp_path, change, keys, hint):
    folder = rewritten(tmp_path / "model", change, UNTIED)
    set_keys(folder, **keys)
    assert hint in refusal(folder).hint
