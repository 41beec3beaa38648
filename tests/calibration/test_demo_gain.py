"""The calibrated methods on the demo, which has learnt a language: what they leave of the error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llama_export.calibration.curvature import measure_curvature
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_export.checkpoints.formats import open_checkpoint, read_tokenizer
from llama_export.llama.streamed import ReadWeight, reference_logits
from llama_export.sources.resolve import DEMO_FOLDER
from llama_quantize import QuantizedWeights, QuantRecipe, find_method, quantize_to, recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

WINDOW = 512


def windows_of(path: Path, count: int) -> torch.Tensor:
    """Cut windows from all over a text."""
    text = path.read_text(encoding="utf-8")
    tokenizer, step = read_tokenizer(DEMO_FOLDER), len(text) // count
    parts = [text[at * step : at * step + 8 * WINDOW] for at in range(count)]
    return torch.tensor([tokenizer.encode(part)[:WINDOW] for part in parts])


class Demo:
    """The demo, its text, and its own answers to another one."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        self.checkpoint = open_checkpoint(DEMO_FOLDER)
        self.folder, self.made = folder, 0
        self.text = windows_of(corpus / "fairy-tales-train.txt", 16)
        self.held_out = windows_of(corpus / "fairy-tales-valid.txt", 8)
        self.answers = self.logits(self.checkpoint.tensor).log_softmax(-1)
        config, read = self.checkpoint.config, self.checkpoint.tensor
        place = Scratch(folder / "curvature", "key")
        self.curvature = measure_curvature(config, read, self.text, 0, place)

    def logits(self, read: ReadWeight) -> torch.Tensor:
        return reference_logits(self.checkpoint.config, read, self.held_out)

    def divergence(self, chosen: QuantRecipe) -> float:
        """Quantise, and return the mean divergence from the demo's own answers, in nats."""
        self.made += 1
        methods = {rule.method for rule in chosen.rules}
        calibration, needs = None, max(find_method(name).needs for name in methods)
        if needs:
            inputs = CalibrationInputs(self.text, needs, self.curvature.of)
            place = Scratch(self.folder / f"scratch-{self.made}", "key")
            calibration = StreamedCalibration(self.checkpoint, inputs, place)
        folder = self.folder / f"{self.made}"
        quantize_to(folder, self.checkpoint, chosen, calibration)
        found = self.logits(QuantizedWeights.open(folder).get).log_softmax(-1)
        return float((self.answers.exp() * (self.answers - found)).sum(-1).mean())


@pytest.fixture(scope="module")
def demo(shared_data, tmp_path_factory, one_thread) -> Demo:
    return Demo(shared_data / "corpus", tmp_path_factory.mktemp("demo"))


def to_nearest(name: str, group_size: int) -> QuantRecipe:
    chosen = recipe(name, group_size)
    rules = tuple(
        replace(rule, method="nearest")
        if rule.method == "clip_search" and "proj" in rule.pattern
        else rule
        for rule in chosen.rules
    )
    return replace(chosen, rules=rules)


@pytest.mark.parametrize(
    ("name", "group_size", "most"),
    [
        ("int4", 32, {"good": 0.46, "best": 0.42}),
        ("int4", 128, {"good": 0.5}),
        ("int8", 32, {"good": 0.9}),
    ],
)
def test_a_calibrated_method_leaves_a_share_of_the_error(demo, name, group_size, most):
    nearest = demo.divergence(to_nearest(name, group_size))
    searched = demo.divergence(recipe(name, group_size, quality="fast"))
    shares = {
        quality: demo.divergence(recipe(name, group_size, quality=quality)) / nearest
        for quality in most
    }
    assert searched < nearest
    for quality, share in shares.items():
        assert share < most[quality]
        assert share < searched / nearest
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
