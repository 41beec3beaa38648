"""The gain over plain rounding beside its limits: calibrated or not, little, or no figure."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from llama_export.llama.config import LlamaConfig
from llama_export.llama.presets import PRESETS
from llama_export.verification.judge.gain import gain_rows
from llama_export.verification.judge.terms import strictly
from llama_export.verification.measure.gain import Gain, OnText
from llama_export.verification.measure.metrics import LogitMetrics, Perplexity, compare_logits
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import CHECKPOINT, Row

VOCAB = 4096
CONFIG = dataclasses.replace(PRESETS["3.2-1B"], vocab_size=VOCAB, bos_token_id=1, eos_token_id=(2,))
PRUNED = dataclasses.replace(CONFIG, tie_word_embeddings=False, head_tokens=(1, 2))
BROKEN = compare_logits(np.zeros((1, 2)), np.full((1, 2), np.nan))
CALIBRATED = ("clip_search", "gptq_descent", "gptq_descent")


def distance(kl: float) -> LogitMetrics:
    same = np.arange(100) % 10 > 0
    return LogitMetrics(100, kl, kl, kl, kl, kl, 0.9, *[0.1] * 4, np.full(100, kl), same)


def shipped(nats: float = 3.5) -> Shipped:
    """Figures of a model that knows its text, or, with many nats, of random weights."""
    loss = Perplexity(100, nats, np.full(100, nats))
    return Shipped(
        lowering=None,
        prefill=None,
        activation=None,
        emulated=None,
        quantisation=None,
        artifact_loss=loss,
        quantised_loss=loss,
        checkpoint_loss=loss,
    )


def judge(
    read: tuple[float, float],
    second: tuple[float, float] = (0.003, 0.01),
    methods=CALIBRATED,
    nats: float = 3.5,
    config: LlamaConfig = CONFIG,
) -> dict[str, Row]:
    texts = (OnText(name, *map(distance, kl)) for name, kl in (("one", read), ("two", second)))
    rows = gain_rows(Gain(*texts), shipped(nats), methods, config=config, quick=False)
    return {row.key: row for row in rows}


@pytest.mark.parametrize(
    ("kl", "passed", "warns"),
    [
        (0.003, True, False),
        (0.006, True, False),
        (0.00601, True, True),
        (0.009, True, True),
        (0.00901, False, False),
        (0.02, False, False),
    ],
)
def test_a_calibrated_method_is_judged_on_each_text_by_itself(kl, passed, warns):
    for texts in ({"read": (kl, 0.01)}, {"read": (0.003, 0.01), "second": (kl, 0.01)}):
        rows = judge(**texts)
        key = "gain_over_rounding" + ("_second" if "second" in texts else "")
        assert (rows[key].passed, rows[key].warns) == (passed, warns)
        assert rows[key].value == pytest.approx(kl / 0.01)
        others = [row for row in rows.values() if row.key != key]
        assert all(row.passed is not False and not row.warns for row in others)


def test_the_row_has_both_figures_and_the_name_of_the_second_text():
    rows = judge((0.003, 0.01))
    share = r"90\.0 ± 1\.4%"
    assert re.match(
        rf"KL 0\.003 against 0\.01, same token {share} against {share}, over 100 positions; ",
        rows["gain_over_rounding"].note,
    )
    assert rows["gain_over_rounding_second"].name == "the same on two"
    assert (rows["kl_rounding"].value, rows["top1_rounding"].value) == (0.01, 0.9)


def test_no_other_method_is_judged_however_bad():
    for methods in (("clip_search",), ("nearest", "clip_search")):
        rows = judge((0.5, 0.01), methods=methods)
        assert all(row.passed is None for row in rows.values())


def test_where_there_is_next_to_nothing_to_gain_nothing_is_judged():
    assert judge((0.0019, 0.0019))["gain_over_rounding"].passed is None
    assert judge((0.0021, 0.0019))["gain_over_rounding"].passed is False
    assert judge((0.0, 0.0))["gain_over_rounding"].value == 1
    assert judge((0.1, 0.0))["gain_over_rounding"].passed is False


def test_random_weights_are_not_judged_and_strict_fails_that():
    row = judge((0.02, 0.01), nats=math.log(VOCAB))["gain_over_rounding"]
    assert row.passed is None
    assert row.note.startswith("not judged: random weights")
    assert strictly([row])[0].passed is False


def test_of_a_pruned_head_what_gained_is_good_and_the_rest_is_not_judged():
    unknown = dataclasses.replace(
        shipped(), artifact_loss=None, quantised_loss=None, checkpoint_loss=None
    )
    for kl, passed in ((0.003, True), (0.02, None)):
        gain = Gain(*(OnText("text", distance(kl), distance(0.01)) for _ in range(2)))
        rows = gain_rows(gain, unknown, CALIBRATED, config=PRUNED, quick=False)
        assert {row.passed for row in rows if row.key.startswith("gain")} == {passed}


def test_what_is_no_number_is_red():
    for weights, rounded in ((BROKEN, distance(0.01)), (distance(0.003), BROKEN)):
        broken, sound = OnText("text", weights, rounded), OnText("two", *[distance(0.01)] * 2)
        rows = gain_rows(Gain(broken, sound), shipped(), CALIBRATED, config=CONFIG, quick=False)
        row = next(row for row in rows if row.key == "gain_over_rounding")
        assert (row.passed, row.value) == (False, math.inf)
        assert "NaN" in row.note


def test_without_the_checkpoint_the_gain_of_a_calibrated_method_is_not_proved():
    def rows(methods, *, quick=False):
        return gain_rows(None, shipped(), methods, config=CONFIG, quick=quick)

    (row,) = rows(CALIBRATED)
    assert (row.key, row.made, row.wants) == ("gain_over_rounding", False, CHECKPOINT)
    assert row.note.endswith("that good (gptq_descent) gained over plain rounding is not proved")
    assert not rows(("clip_search",))
    assert not rows(())
    assert not rows(CALIBRATED, quick=True)
