"""What a form of a linear costs, foretold from curvature and inputs, against what it does cost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from artifacts.tiny import TINY, random_llama, write_checkpoint
from torch.nn import functional

from llama_export.calibration import curvature
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.sensitivity import measure_costs
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_quantize import GroupedInt, dequantize_groups, find_method

pytestmark = pytest.mark.usefixtures("one_thread")

FORMS = (GroupedInt(4, 32), GroupedInt(4, 128), GroupedInt(4, 256), GroupedInt(8, None))
FIRST = "model.layers.0"


@dataclass(frozen=True)
class Known:
    """Curvature that a test gives."""

    found: dict[str, torch.Tensor]

    def of(self, name):
        found = self.found.get(name)
        return found if found is not None and found.ndim == 2 else None

    def diagonal(self, name):
        found = self.found.get(name)
        return found if found is None or found.ndim == 1 else found.diagonal()


def windows_of(count: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, length), generator=generator)


def linears_of(model):
    return {
        f"{path}.weight": module for path, module in model.named_modules() if path.endswith("_proj")
    }


def run(model, windows):
    return model(windows)[0] if isinstance(model(windows), tuple) else model(windows)


def curvature_by_autograd(model, windows, draws=4):
    """The mean of `g gᵀ` at every linear's output, by the whole model's own backward pass."""
    generator = torch.Generator().manual_seed(0)
    found, outputs = {}, {}
    linears = linears_of(model)
    for name, module in linears.items():
        module.register_forward_hook(
            lambda _, __, output, name=name: outputs.__setitem__(name, output)
        )
    logits = run(model, windows).flatten(0, 1)
    for _ in range(draws):
        labels = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        gradients = torch.autograd.grad(
            loss, [outputs[name] for name in linears], retain_graph=True
        )
        for name, gradient in zip(linears, gradients, strict=True):
            rows = gradient.flatten(0, 1)
            found[name] = found.get(name, 0) + rows.t() @ rows / len(rows) / draws
    return Known(found)


def rounded(weight, scheme):
    method = find_method("nearest" if scheme.group_size is None else "clip_search")
    codes, scales = method.quantize(weight, scheme)
    return dequantize_groups(codes, scales, torch.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return HfCheckpoint.open(write_checkpoint(tmp_path_factory.mktemp("tiny")))


def test_a_cost_is_half_the_trace_over_inputs_and_gradients(tiny):
    """Against the sums taken one token at a time, from the whole model's own pass."""
    model, windows = random_llama(TINY), windows_of(3, 20)
    inputs = {}
    for name, module in linears_of(model).items():
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.__setitem__(name, given[0].flatten(0, -2))
        )
    generator = torch.Generator().manual_seed(3)
    found = {}
    with torch.no_grad():
        run(model, windows)
    for name, module in linears_of(model).items():
        rows = module.weight.shape[0]
        root = torch.randn(rows, rows, generator=generator)
        # Some are known by their diagonal alone.
        found[name] = (root @ root.t()) if "up_proj" not in name else root[0].square()
    seen = []
    costs = measure_costs(tiny, windows, Known(found), FORMS, lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    assert list(costs) == list(linears_of(model))
    for name, module in linears_of(model).items():
        # Groups of 256 divide the rows of `down` and of `o` alone.
        fitting = [form for form in FORMS if module.weight.shape[1] % (form.group_size or 1) == 0]
        assert [choice.scheme for choice in costs[name]] == fitting
        for choice in costs[name]:
            error = module.weight.detach() - rounded(module.weight.detach(), choice.scheme)
            lost = (inputs[name] @ error.t()).double()
            curvature = found[name].double()
            weighted = lost @ curvature if curvature.ndim == 2 else lost * curvature
            expected = float((weighted * lost).sum()) / 2 / len(lost)
            assert choice.cost == pytest.approx(expected, rel=2e-4)
            assert choice.size_bytes == choice.scheme.size_bytes(tuple(module.weight.shape))


def test_costs_foretell_what_each_linear_does_to_the_answers(tiny):
    model, windows = random_llama(TINY), windows_of(8, 64)
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    model.model.embed_tokens.weight.requires_grad_()
    costs = measure_costs(tiny, windows, curvature_by_autograd(model, windows), FORMS[:1])
    plain = random_llama(TINY)
    with torch.no_grad():
        reference = run(plain, windows).log_softmax(-1)
    ratios = []
    for name, module in linears_of(plain).items():
        kept = module.weight.data
        module.weight.data = rounded(kept, FORMS[0])
        with torch.no_grad():
            answers = run(plain, windows).log_softmax(-1)
        module.weight.data = kept
        measured = float((reference.exp() * (reference - answers)).sum(-1).mean())
        ratios.append(costs[name][0].cost / measured)
    # The last value's 0.49: its errors at several tokens meet in one attention, and add up there.
    assert 0.4 < min(ratios) < max(ratios) < 1.5
    assert sum(0.85 < ratio < 1.2 for ratio in ratios) >= len(ratios) - 2


def test_a_linear_of_unknown_curvature_is_an_error_of_ours(tiny):
    with pytest.raises(LookupError, match=rf"{FIRST}\.self_attn\.q_proj\.weight"):
        measure_costs(tiny, windows_of(1, 8), Known({}), FORMS)


def test_the_streamed_curvature_is_that_of_the_whole_models_backward_pass(
    tiny, tmp_path, monkeypatch
):
    """Labels are drawn, so the two agree as two drawings of one mean do."""
    model, windows = random_llama(TINY), windows_of(16, 64)
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    model.model.embed_tokens.weight.requires_grad_()
    expected = curvature_by_autograd(model, windows, draws=6)
    found = streamed_curvature(tiny, windows, tmp_path / "whole")
    for name in linears_of(model):
        streamed, whole = found.of(name).double(), expected.found[name].double()
        assert 0.85 < float(streamed.trace() / whole.trace()) < 1.18
        assert float((streamed * whole).sum() / streamed.norm() / whole.norm()) > 0.75
    # Of wide outputs the diagonal alone is kept.
    monkeypatch.setattr(curvature, "_MOST_ROWS", 200)
    narrow = streamed_curvature(tiny, windows, tmp_path / "diagonal")
    for name, module in linears_of(model).items():
        assert (narrow.of(name) is None) == (module.weight.shape[0] > 200)
        torch.testing.assert_close(narrow.diagonal(name), found.of(name).diagonal())
    assert found.diagonal("model.norm.weight") is None


def streamed_curvature(checkpoint, windows, folder):
    return curvature.measure_curvature(
        checkpoint.config, checkpoint.tensor, windows, 0, Scratch(folder, "")
    )
