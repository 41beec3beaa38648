"""A checkpoint that the weights do not come from is red: its codes, norms and other weights."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from artifacts import packed_weights as packed
from artifacts import tiny
from artifacts.verifiable import Made, hashes_of, make, make_from, stored_in, verify
from safetensors.torch import load_file, save_file

from llama_export.checkpoints.formats import open_checkpoint
from llama_export.verification.rows import CHECKPOINT, WEIGHTS
from llama_quantize.lazy import LazyTensor

pytestmark = pytest.mark.usefixtures("one_thread")

QUERY, NORM = "model.layers.0.self_attn.q_proj", "model.layers.0.input_layernorm.weight"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2"}
KEYS = ("codes_checkpoint", "floats_checkpoint", "rounded_checkpoint")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("kept")
    checkpoint = open_checkpoint(
        packed.write_packed(
            folder / "checkpoint",
            GPTQ,
            lambda module, weight: packed.gptq(packed.rounded(weight, 64), version=2),
        )
    )
    return make_from(checkpoint, checkpoint.recipe, folder)


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("floats"), tiny.TINY)


def changed(made, tmp_path, name, change):
    """Return the checkpoint with another tensor in its file."""
    folder = shutil.copytree(made.checkpoint.folder, tmp_path / "changed")
    path = folder / "model.safetensors"
    state = {key: value.clone() for key, value in load_file(path).items()}
    change(state[name])
    save_file(state, path)
    return open_checkpoint(folder)


def reds(made, **changes):
    return {row.key: row.note for row in verify(made, **changes).failures}


def add(tensor, value=1):
    tensor[(0,) * tensor.ndim] += value


def test_the_checkpoint_that_codes_were_kept_from_is_green(kept):
    report = verify(kept)
    assert report.passed, report.failures
    assert report.row("codes_checkpoint").note == "7 tensors compared"
    assert report.row("floats_checkpoint").note == "3 tensors compared"
    assert report.row("rounded_checkpoint").note == "1 tensor compared"  # the table


@pytest.mark.parametrize(
    ("end", "change", "part"),
    [
        ("qweight", add, "codes"),
        ("scales", lambda scales: add(scales, 0.01), "scales"),
    ],
)
def test_one_other_code_or_scale_in_the_checkpoint_is_red(kept, tmp_path, end, change, part):
    other = changed(kept, tmp_path, f"{QUERY}.{end}", change)
    found = reds(kept, checkpoint=other)
    assert found == {"codes_checkpoint": f"first: {QUERY}.weight: other {part}"}


@pytest.mark.parametrize("which", ["kept", "floats"])
def test_one_other_norm_in_the_checkpoint_is_red(which, tmp_path, request):
    made = request.getfixturevalue(which)
    other = changed(made, tmp_path, NORM, lambda norm: add(norm, 2**-6))
    found = reds(made, checkpoint=other)
    assert found == {"floats_checkpoint": f"first: {NORM}: other numbers"}


def test_kept_codes_are_compared_without_the_weights_too(kept, tmp_path):
    assert verify(kept, weights=None).row("codes_checkpoint").passed
    other = changed(kept, tmp_path, f"{QUERY}.qweight", add)
    assert "codes_checkpoint" in reds(kept, weights=None, checkpoint=other)
    lacking = {name: both for name, both in hashes_of(kept.weights).items() if QUERY not in name}
    report = verify(kept, weights=None, stored=stored_in(kept, quantized=lacking))
    note = f"first: {QUERY}.weight: was not kept quantised"
    assert report.row("codes_checkpoint").note == note


def test_without_the_checkpoint_nothing_of_it_is_proved(kept, floats):
    report = verify(kept, checkpoint=None)
    assert [(report.row(key).made, report.row(key).wants) for key in KEYS] == [
        (False, CHECKPOINT)
    ] * 3
    assert "codes_checkpoint" not in {row.key for row in verify(floats, checkpoint=None).rows}
    assert verify(floats, weights=None).row("floats_checkpoint").wants == WEIGHTS


def test_a_checkpoint_of_floats_has_no_row_of_kept_codes(floats):
    report = verify(floats)
    assert report.passed
    assert "codes_checkpoint" not in {row.key for row in report.rows}
    assert report.row("floats_checkpoint").note == "5 tensors compared"
    assert report.row("rounded_checkpoint").note == "15 tensors compared"


@pytest.mark.parametrize("step", [0.05, 0.01])
def test_other_weights_of_the_same_shape_are_red(floats, tmp_path, step):
    name = f"{QUERY}.weight"
    other = changed(floats, tmp_path, name, lambda weight: weight.add_(step))
    found = reds(floats, checkpoint=other)
    row = "row 0 is not the checkpoint's, rounded"
    assert found == {"rounded_checkpoint": f"first: {name}: {row}"}


@pytest.mark.parametrize("recipe", ["int8", "bf16", "fp16"])
def test_every_recipe_of_the_same_floats_is_green(tmp_path, recipe):
    report = verify(make(tmp_path, tiny.TINY, recipe))
    assert report.passed, report.failures
    rounded = any(row.key == "rounded_checkpoint" for row in report.rows)
    assert rounded == (recipe == "int8")


def test_weights_that_are_computed_may_differ_in_the_last_bit_of_their_sum(tmp_path):
    made = make(tmp_path, tiny.TINY, "bf16")

    class Computed:
        def __init__(self, factor):
            self.factor = factor

        def __getattr__(self, name):
            return getattr(made.checkpoint, name)

        def tensor(self, name):
            whole = made.checkpoint.tensor(name).float() * self.factor
            return LazyTensor(tuple(whole.shape), whole.dtype, 1, whole.__getitem__)

    # Half a step of bfloat16, 2**-8, rounds either way.
    assert not reds(made, checkpoint=Computed(1 + 2**-9))
    assert set(reds(made, checkpoint=Computed(1 + 2**-7))) == {"floats_checkpoint"}


def test_a_method_that_moves_codes_on_purpose_is_not_judged_by_the_nearest(floats, tmp_path):
    summary = floats.weights.summary
    stats = tuple(replace(each, method=each.method and "another") for each in floats.weights.stats)
    weights = replace(floats.weights, summary=replace(summary, stats=stats))
    other = changed(floats, tmp_path, f"{QUERY}.weight", lambda weight: weight.add_(0.05))
    assert not reds(replace(floats, weights=weights), weights=weights, checkpoint=other)


def test_a_number_that_is_none_is_red(floats, tmp_path):
    other = changed(floats, tmp_path, f"{QUERY}.weight", lambda weight: add(weight, torch.nan))
    assert "rounded_checkpoint" in reds(floats, checkpoint=other)
