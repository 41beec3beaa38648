"""A checkpoint that comes quantised in several forms: every target holds its codes bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from artifacts.opened import stored_in
from artifacts.small_bundle import Silent
from artifacts.tiny import UNTIED, random_llama, write_byte_vocabulary

from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.names import HEAD, TABLE, expected_shapes
from llama_quantize import (
    Float,
    GroupedInt,
    QuantizedTensor,
    QuantizedWeights,
    Scheme,
    keep_codes,
    kept_recipe,
    quantize_to,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FIRST = "model.layers.0"


def scheme_of(name: str) -> Scheme:
    """Rows of int8 for two tables that differ, int4 in groups that differ, floats for the rest."""
    if name in (TABLE, HEAD):
        return GroupedInt(8, None)
    if not name.endswith("_proj.weight"):
        return Float("bfloat16")
    # Of one input, and in different forms: they cannot run as one product.
    if name.endswith("1.self_attn.v_proj.weight"):
        return GroupedInt(4, 128)
    return GroupedInt(4, 32 if name.startswith(FIRST) else 64)


class Foreign:
    """Codes that somebody else chose: all of them occur, and int8's -128 among them."""

    def __init__(self) -> None:
        self.shapes = expected_shapes(UNTIED)
        self.names = tuple(self.shapes)
        self.tied: dict[str, str] = {}
        self._floats = random_llama(UNTIED).state_dict()
        self._generator = torch.Generator().manual_seed(11)

    def tensor(self, name: str) -> torch.Tensor | QuantizedTensor:
        scheme, weight = scheme_of(name), self._floats[name]
        # One linear comes as floats, as checkpoints leave some out: it is quantised here.
        if isinstance(scheme, Float) or name == f"{FIRST}.mlp.up_proj.weight":
            return weight
        rows, columns = weight.shape
        groups = weight.view(rows, scheme.groups(columns), -1)
        low = -8 if scheme.bits == 4 else -128
        # Not bfloat16 values, as foreign scales are not.
        scales = groups.abs().amax(2) * (1.013 / -low)
        codes = (groups / scales.unsqueeze(2)).round().clamp(low, -low - 1).flatten(1)
        codes = codes.to(torch.int8)
        codes[:, 0] = low
        return keep_codes(codes, scales, scheme)


def export(folder: Path, target: str):
    source = Foreign()
    weights = folder / "weights"
    recipe = kept_recipe({name: scheme_of(name) for name in source.names})
    quantize_to(weights, source, recipe)
    (weights / "config.json").write_text(json.dumps(UNTIED.to_hf()))
    write_byte_vocabulary(weights / "tokenizer.model")
    request = ExportRequest(str(weights), (target,), folder / "out", max_context=64)
    return source, weights, export_bundle(request, Silent()).bundles[0]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("onnx", marks=pytest.mark.onnx),
        pytest.param("coreml", marks=pytest.mark.coreml),
        pytest.param("executorch", marks=[pytest.mark.executorch, pytest.mark.slow]),
    ],
)
def test_codes_are_the_same_in_the_artifact(tmp_path, target):
    pytest.importorskip({"coreml": "coremltools"}.get(target, target))
    source, folder, made = export(tmp_path, target)
    assert not made.report.failures
    stored = stored_in(made.bundle).quantized
    weights = QuantizedWeights.open(folder)
    for name in source.names:
        given = source.tensor(name)
        if isinstance(given, QuantizedTensor):
            hashes = given.codes_sha256(), given.scales_sha256()
            assert stored[name] == hashes, name
            assert int(given.unpacked().min()) == (-128 if name in (TABLE, HEAD) else -8)
    assert stored[TABLE] != stored[HEAD]
    kept = {stats.name: stats for stats in weights.stats if stats.method == "kept"}
    assert len(kept) == 15
    # What is lost of kept codes is the rounding of their scales, and it is told.
    assert all(45 < stats.sqnr_db < 70 for stats in kept.values())


def test_another_form_of_one_product_is_no_other_number(tmp_path):
    """The twin: a code that differs by one is seen, wherever it stands."""
    pytest.importorskip("onnx")
    _, folder, made = export(tmp_path, "onnx")
    weights = QuantizedWeights.open(folder)
    name = "model.layers.1.self_attn.v_proj.weight"
    tensor = weights.get(name)
    codes = tensor.codes.clone()
    codes[-1, -1] ^= 1
    changed = QuantizedTensor(tensor.scheme, tensor.shape, codes, tensor.scales)
    assert stored_in(made.bundle).quantized[name] != (
        changed.codes_sha256(),
        changed.scales_sha256(),
    )
