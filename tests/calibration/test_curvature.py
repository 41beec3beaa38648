"""The curvature at each linear's output, against the backward pass of transformers' whole model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from artifacts.tiny import TINY, UNTIED, random_tokens
from fakes.checkpoint import FakeCheckpoint
from torch.nn import functional
from transformers import LlamaConfig as HfConfig
from transformers import LlamaForCausalLM

from llama_export.calibration import curvature as module
from llama_export.calibration import layer_streams
from llama_export.calibration.curvature import Curvature, measure_curvature
from llama_export.calibration.scratch import Scratch
from llama_export.llama.names import HEAD, TABLE

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = torch.tensor([random_tokens(TINY, 100, seed) for seed in range(3)])
SEED = 7
SAME = 1e-3
BIASED = replace(UNTIED, attention_bias=True, mlp_bias=True)


def measured(config, folder, seed=SEED, progress=lambda done, total: None) -> Curvature:
    read = FakeCheckpoint(config).tensor
    return measure_curvature(config, read, WINDOWS, seed, Scratch(folder, "key"), progress)


def drawn_labels(logits: torch.Tensor) -> torch.Tensor:
    """Draw as the module does: from the same generator, as many positions at a time."""
    generator = torch.Generator().manual_seed(SEED)
    shares = logits.softmax(1).split(module._HEAD_TOKENS)
    return torch.cat([torch.multinomial(each, 1, generator=generator)[:, 0] for each in shares])


def by_autograd(config, *, labels_of_the_text: bool = False) -> dict[str, torch.Tensor]:
    """The mean of `g gᵀ` at each linear's output."""
    checkpoint = FakeCheckpoint(config)
    model = LlamaForCausalLM(HfConfig(**config.to_hf())).eval()
    state = {name: checkpoint.tensor(name) for name in checkpoint.names}
    model.load_state_dict({**state, HEAD: state.get(HEAD, state[TABLE])})
    outputs = {}
    for path, linear in model.named_modules():
        if path.endswith("_proj"):
            linear.register_forward_hook(
                lambda _, __, output, path=path: outputs.__setitem__(f"{path}.weight", output)
            )
    logits = model(WINDOWS).logits.flatten(0, 1)
    labels = drawn_labels(logits.detach())
    if labels_of_the_text:
        labels = WINDOWS.roll(-1, 1).flatten()
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    gradients = torch.autograd.grad(loss, list(outputs.values()))
    rows = {name: each.flatten(0, 1) for name, each in zip(outputs, gradients, strict=True)}
    return {name: each.t() @ each / len(each) for name, each in rows.items()}


def difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


@pytest.mark.parametrize("config", [TINY, BIASED], ids=["tied", "untied with biases"])
def test_it_is_that_of_the_whole_models_backward_pass(tmp_path, config):
    assert WINDOWS.numel() > module._HEAD_TOKENS, "labels are drawn in two goes"
    found, expected = measured(config, tmp_path), by_autograd(config)
    assert len(expected) == 14
    for name, curvature in expected.items():
        assert difference(curvature, found.of(name)) < SAME, name


def test_other_labels_give_another_curvature(tmp_path):
    """The twins: the text's own labels, and another drawing."""
    found = measured(TINY, tmp_path / "one")
    text = by_autograd(TINY, labels_of_the_text=True)
    other = measured(TINY, tmp_path / "other", seed=SEED + 1)
    for name in text:
        assert difference(text[name], found.of(name)) > 50 * SAME, name
        assert difference(other.of(name), found.of(name)) > 50 * SAME, name


def test_chunks_do_not_change_it(tmp_path, monkeypatch):
    found = measured(TINY, tmp_path / "one")
    monkeypatch.setattr(layer_streams, "_CHUNK_TOKENS", 100)
    monkeypatch.setattr(module, "_HEAD_ROWS", 33)
    parts = measured(TINY, tmp_path / "parts")
    for name in found.shapes:
        assert difference(found.of(name), parts.of(name)) < SAME, name


def test_the_same_seed_gives_the_same_bytes_and_progress_goes_there_and_back(tmp_path):
    told: list[tuple[int, int]] = []
    one = measured(TINY, tmp_path / "one")
    again = measured(
        TINY, tmp_path / "again", progress=lambda done, total: told.append((done, total))
    )
    assert all(torch.equal(one.of(name), again.of(name)) for name in one.shapes)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert one.of("model.embed_tokens.weight") is None


def test_a_method_gets_what_two_halves_of_the_tokens_agree_on(tmp_path):
    found, again = measured(TINY, tmp_path), measured(TINY, tmp_path)
    for name, factor in found.agreement.items():
        raw, agreed, kept = found.of(name), found.agreed(name), again.agreed(name)
        assert raw is not None
        assert agreed is not None
        assert kept is not None
        assert 0.0 <= factor < 1.0
        assert torch.equal(agreed.diagonal(), raw.diagonal())
        apart = ~torch.eye(len(raw), dtype=torch.bool)
        assert torch.allclose(agreed[apart], factor * raw[apart])
        assert torch.equal(agreed, kept), "what an interrupted run measured is taken whole"
    assert found.agreed("model.norm.weight") is None
