"""What a method gained over plain rounding: measured on two texts, and judged where calibrated."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from artifacts import tiny
from artifacts.verifiable import Made, make, make_from, verify

from llama_export.checkpoints.formats import open_checkpoint
from llama_export.llama.names import TABLE
from llama_export.sources.manifest_fields import describe_quantization
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.verification.judge.gain import calibration_rows
from llama_export.verification.measure import gain as gain_module
from llama_export.verification.measure.nearest import methods_of_linears
from llama_export.verification.rows import PASSED
from llama_quantize.checkpoint.files import RECORD_FILE
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, recipe

pytestmark = pytest.mark.usefixtures("one_thread")

ON_TEXTS = ("gain_over_rounding", "gain_over_rounding_second")
SAID = {"tokens": "32768", "ids_sha256": "5a" * 32, "seed": "0"}


class Noisy:
    """A checkpoint whose linears are off by a share of their size."""

    def __init__(self, checkpoint, share: float) -> None:
        self._checkpoint, self._share = checkpoint, share

    def __getattr__(self, name):
        return getattr(self._checkpoint, name)

    def tensor(self, name):
        tensor = self._checkpoint.tensor(name)
        if "_proj" not in name:
            return tensor
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
        floats = tensor.float()
        return (floats + self._share * floats.std() * noise).to(tensor.dtype)


def by(method: str) -> QuantRecipe:
    base = recipe("int4", 32)
    grouped, *others = base.rules
    return QuantRecipe(base.name, (dataclasses.replace(grouped, method=method), *others))


@pytest.fixture(scope="module")
def demo():
    return open_checkpoint(DEMO_FOLDER)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, demo) -> Made:
    return make_from(demo, by("clip_search"), tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def nearest(tmp_path_factory, demo) -> Made:
    return make_from(demo, by("nearest"), tmp_path_factory.mktemp("nearest"))


@pytest.fixture(scope="module")
def worse(tmp_path_factory, demo) -> Made:
    made = make_from(Noisy(demo, 0.1), by("clip_search"), tmp_path_factory.mktemp("worse"))
    return dataclasses.replace(made, checkpoint=demo)


def calibrated(made: Made, said=SAID, method="gptq_descent") -> Made:
    """Return weights whose record says that a calibrated method chose the codes of the linears."""
    path = made.weights.folder / RECORD_FILE
    before = path.read_text()
    record = json.loads(before)
    for each in [*record["recipe"]["rules"], *record["tensors"]]:
        if each.get("method") == "clip_search":
            each["method"] = method
    record["calibration"] = said
    path.write_text(json.dumps(record))
    try:
        weights = QuantizedWeights.open(made.weights.folder)
    finally:
        path.write_text(before)
    # As the export of such weights would have described them.
    described = describe_quantization(weights)
    manifest = dataclasses.replace(made.bundle.manifest, quantization=described)
    bundle = dataclasses.replace(made.bundle, manifest=manifest)
    return dataclasses.replace(made, weights=weights, bundle=bundle)


def full(made: Made, **changes):
    return verify(made, quick=False, **{"text": None, **changes})


@pytest.fixture(scope="module")
def of_searched(searched):
    return full(searched)


@pytest.fixture(scope="module")
def of_nearest(nearest):
    return full(nearest)


def test_of_weights_that_were_rounded_to_nearest_the_ratio_is_exactly_one(of_nearest):
    assert [of_nearest.row(key).value for key in ON_TEXTS] == [1.0, 1.0]
    assert of_nearest.row("kl_rounding").value == of_nearest.row("kl_quantisation").value
    assert of_nearest.row("top1_rounding").value == of_nearest.row("top1_quantisation").value


def test_the_ratio_is_to_weights_that_plain_rounding_made(of_searched, of_nearest):
    searched, nearest = (each.row("kl_quantisation").value for each in (of_searched, of_nearest))
    assert of_searched.row("kl_rounding").value == pytest.approx(nearest, rel=1e-6)
    assert of_searched.row(ON_TEXTS[0]).value == pytest.approx(searched / nearest, rel=1e-6)
    found = of_searched.measurements
    assert found["rounding_second"] == of_nearest.measurements["rounding_second"]
    assert found["quantisation_second"]["positions"] == 64
    second = found["quantisation_second"]["kl_mean"]
    assert second != pytest.approx(searched, rel=0.01)  # another text
    ratio = second / found["rounding_second"]["kl_mean"]
    assert of_searched.row(ON_TEXTS[1]).value == pytest.approx(ratio)


def test_what_is_not_calibrated_is_not_judged(of_searched):
    for key in ON_TEXTS:
        row = of_searched.row(key)
        assert (row.passed, row.threshold) == (None, None)
        assert 0.5 < row.value < 1
        assert row.note.endswith("the method is not calibrated")
    assert not [row for row in of_searched.rows if row.key == "calibration"]
    assert not of_searched.warnings


def test_a_calibrated_method_that_gains_little_passes_with_a_warning(searched):
    report = full(calibrated(searched))
    for key in ON_TEXTS:
        row = report.row(key)
        assert (row.passed, row.threshold, row.warns) == (True, 0.9, True)
        assert 0.6 < row.value < 0.9
        assert row.note.startswith("warning: little gained: KL 0.0")
        assert "over 64 positions" in row.note
    assert report.verdict == PASSED, report.failures
    assert [row.key for row in report.warnings] == list(ON_TEXTS)


def test_a_calibrated_method_that_is_worse_than_plain_rounding_is_red(worse):
    report = full(calibrated(worse))
    assert all(report.row(key).passed is False for key in ON_TEXTS)
    assert all(report.row(key).value > 0.9 for key in ON_TEXTS)
    assert report.row("kl_quantisation").passed  # its limit is far away


def test_where_something_else_is_rounded_the_ratio_of_nearest_is_not_one(nearest, monkeypatch):
    """The twin of the test that it is: it sees a yardstick that rounds the wrong tensors."""
    rounded = gain_module.rounded_to_nearest

    def others_too(weights, original):
        read = rounded(weights, original)
        return lambda name: original(name) if name == TABLE else read(name)

    monkeypatch.setattr(gain_module, "rounded_to_nearest", others_too)
    report = full(nearest)
    assert report.row(ON_TEXTS[0]).value != 1.0
    assert report.row(ON_TEXTS[0]).value == pytest.approx(1.0, rel=0.1)


def test_a_quick_check_shows_the_record_of_a_calibration_and_leaves_the_gain_out(searched):
    report = verify(calibrated(searched))
    row = report.row("calibration")
    assert row.name == "tokens that good (gptq_descent) was calibrated on"
    assert (row.value, row.passed) == (32768, None)
    assert row.note == f"the model's own text; their ids have the sha256 {'5a' * 32}"
    assert not {row.key for row in report.rows} & {*ON_TEXTS, "kl_rounding", "top1_rounding"}


def test_windows_of_a_user_are_said(searched):
    said = SAID | {"user_windows": "32"}
    (row,) = calibration_rows(calibrated(searched, said).weights, ["gptq_descent"])
    assert row.note.startswith("the model's own text, and 32 windows of a user's; their ids")


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"tokens": "32768"},
        {"tokens": "32768", "ids_sha256": "5A" * 32},
        {"tokens": "many\x1b[31m", "ids_sha256": "5a" * 32},
        {"tokens": "9" * 5000, "ids_sha256": "5a" * 32},
    ],
)
def test_a_record_that_does_not_say_what_it_was_calibrated_on_is_said(searched, said):
    (row,) = calibration_rows(calibrated(searched, said).weights, ["gptq_descent"])
    assert not row.made
    assert row.note == "not checked: the weights' record does not name them"


def test_a_method_of_any_name_is_shown_clean(searched):
    weights = calibrated(searched, method="\x1b[31mred").weights
    (row,) = calibration_rows(weights, methods_of_linears(weights).values())
    assert "red" in row.name
    assert "\x1b" not in row.name


def test_what_has_no_groups_has_nothing_to_gain(tmp_path):
    report = full(make(tmp_path, tiny.TINY, "bf16"))
    assert not {row.key for row in report.rows} & {*ON_TEXTS, "kl_rounding", "calibration"}


def test_random_weights_are_not_judged(tmp_path):
    made = make(tmp_path, tiny.TINY)
    row = full(calibrated(made)).row(ON_TEXTS[0])
    assert (row.passed, row.threshold) == (None, None)
    assert row.note.startswith("not judged: random weights")
