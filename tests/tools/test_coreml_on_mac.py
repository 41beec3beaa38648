"""tools/coreml_on_mac.py without a Mac: what it compares, where it stops, and that it goes red."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from fakes.coreml import CONTEXT, FORMS, VOCAB, FakePackage, expected_logits, spec_of

import coreml_on_mac
from coreml_on_mac import (
    MASKS,
    causal_mask,
    choose,
    cut_prompt,
    examine_bundle,
    follow,
    follow_with_mask,
    main,
    open_mask,
    stock_swift_mask,
)
from llama_export.errors import BundleError, PromptError
from llama_export.targets.coreml.running.session import CoremlSession

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
STEPS = 6


class Noisy(FakePackage):
    """Core ML that rounds a little otherwise, or computes something else."""

    def __init__(self, form, size) -> None:
        super().__init__(form)
        self.size = size

    def predict(self, inputs, state=None, *, function=None):
        results = super().predict(inputs, state, function=function)
        shape = results["logits"].shape
        noise = np.random.default_rng(len(self.calls)).standard_normal(shape)
        results["logits"] = results["logits"].astype(np.float32) + self.size * noise
        return results


class WithoutSlot0(FakePackage):
    """A graph that does not hide the slot that a stock Swift client leaves empty."""

    def _flexible(self, inputs, state, function):
        first = inputs["causalMask"].shape[3] - inputs["inputIds"].shape[1]
        if first > 0 and not state.arrays["keyCache"][0, :, :, 0].any():
            for array in state.arrays.values():
                array[:, :, :, 0] = 0.25
        return super()._flexible(inputs, state, function)


def findings(monkeypatch, form, package, *, units=("cpuOnly", "cpuAndGPU")):
    opened = []

    def open_runtime(path, *, compute_units):
        opened.append(compute_units)
        return package()

    monkeypatch.setattr(coreml_on_mac, "evaluator", lambda path, mode: FakePackage(form))
    monkeypatch.setattr(coreml_on_mac, "CoremlRuntime", SimpleNamespace(open=open_runtime))
    found = list(
        examine_bundle(None, spec_of(form), PROMPT, steps=STEPS, compute_units=list(units))
    )
    assert opened == list(units)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_each_choice_of_compute_units_and_each_mask(monkeypatch, form):
    found = findings(monkeypatch, form, lambda: Noisy(form, 1e-4))
    names = ["Core ML, cpuOnly", "Core ML, cpuAndGPU"]
    if form == "flexible":
        names = [
            line for name in names for line in (name, *(f"{name}, mask {title}" for title in MASKS))
        ]
    assert [finding.name for finding in found] == names
    for finding in found:
        assert finding.passed
        assert finding.metrics.positions == STEPS + 1
        assert finding.metrics.kl_max > 0
        assert finding.line().startswith(f"ok   {finding.name}: KL ")


@pytest.mark.parametrize("form", FORMS)
def test_other_logits_fail(monkeypatch, form):
    found = findings(monkeypatch, form, lambda: Noisy(form, 0.3), units=["cpuOnly"])
    assert not found[0].passed
    assert found[0].line().startswith("FAIL Core ML, cpuOnly: KL ")


def test_a_mask_that_chooses_other_tokens_fails(monkeypatch):
    found = findings(monkeypatch, "flexible", lambda: WithoutSlot0("flexible"), units=["cpuOnly"])
    assert [finding.passed for finding in found] == [True, True, True, False]


def test_what_cannot_be_loaded_fails_and_the_rest_goes_on(monkeypatch):
    def refuse():
        message = "Core ML cannot load it: unknown operator"
        raise BundleError(message, "export the bundle again")

    found = findings(monkeypatch, "io", refuse)
    assert [finding.passed for finding in found] == [False, False]
    assert "unknown operator; export the bundle again" in found[0].line()


def test_the_masks():
    assert causal_mask(3, 5)[0, 0].astype(bool).tolist() == [
        [False, False, False, True, True],
        [False, False, False, False, True],
        [False] * 5,
    ]
    assert causal_mask(3, 5).dtype == np.float16
    assert causal_mask(1, 5).tolist() == open_mask(1, 5).tolist()
    assert open_mask(3, 5).shape == (1, 1, 1, 5)
    assert stock_swift_mask(3, 3).shape == (1, 1, 1, 4)
    assert not stock_swift_mask(3, 3).any()


def test_all_of_them_read_the_same_tokens():
    spec = spec_of("flexible")
    tokens, chosen = choose(CoremlSession(FakePackage("flexible"), spec), PROMPT, STEPS)
    assert tokens == [int(row.argmax()) for row in chosen[:-1]]
    assert np.array_equal(chosen[-1], expected_logits(PROMPT + tokens))
    read = follow(CoremlSession(FakePackage("flexible"), spec), PROMPT, tokens)
    assert np.array_equal(chosen, read)
    for mask in MASKS.values():
        assert np.array_equal(
            chosen, follow_with_mask(FakePackage("flexible"), mask, PROMPT, tokens)
        )


def test_a_prompt_leaves_room_for_the_steps():
    assert cut_prompt(range(100), CONTEXT, STEPS) == list(range(CONTEXT - STEPS - 1))
    assert cut_prompt(PROMPT, CONTEXT, STEPS) == PROMPT
    with pytest.raises(PromptError, match="39 steps do not fit"):
        cut_prompt(PROMPT, CONTEXT, CONTEXT - 1)


# --- The command ---


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    """Return a folder that opens as a bundle whose every token is in the fake's vocabulary."""
    spec = spec_of("flexible")
    manifest = SimpleNamespace(spec=spec, tokenizer={"file": "tokenizer.json"})
    opened = SimpleNamespace(manifest=manifest, artifact=tmp_path / "m", path=lambda name: name)
    tokenizer = SimpleNamespace(
        prefix_ids=(0,), encode=lambda text: [ord(letter) % VOCAB for letter in text]
    )
    monkeypatch.setattr(coreml_on_mac.Bundle, "open", lambda folder: opened)
    monkeypatch.setattr(coreml_on_mac, "load_tokenizer", lambda path: tokenizer)
    return tmp_path


def test_the_command_with_the_evaluator_only(monkeypatch, bundle, capsys):
    modes = []

    def evaluator(path, mode):
        modes.append(mode)
        return FakePackage("flexible")

    monkeypatch.setattr(coreml_on_mac, "evaluator", evaluator)
    assert main([str(bundle), "--evaluator-only", "--steps", "3"]) == 0
    assert modes == ["fp32", "fp16"]
    lines = capsys.readouterr().out.splitlines()
    assert "coremltools" in lines[0]
    assert len(lines) == 2 + len(MASKS)
    assert all(line.startswith("ok   evaluator, float16") for line in lines[1:])

    def worse(path, mode):
        return Noisy("flexible", 0.3 if mode == "fp16" else 0)

    monkeypatch.setattr(coreml_on_mac, "evaluator", worse)
    assert main([str(bundle), "--evaluator-only", "--steps", "3"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_the_command_off_a_mac(monkeypatch, bundle, capsys):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(coreml_on_mac, "evaluator", lambda path, mode: FakePackage("flexible"))
    assert main([str(bundle), "--compute-units", "cpuOnly"]) == 1
    assert "FAIL Core ML, cpuOnly: Core ML runs on macOS only" in capsys.readouterr().out


def test_the_command_without_a_bundle(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == BundleError.exit_code
    assert "does not exist" in capsys.readouterr().err
