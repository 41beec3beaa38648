"""Texts in windows and blocks: what is cut, what blocks add up to, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from artifacts import tiny

from llama_export.errors import LlamaExportError
from llama_export.llama.streamed import reference_logits
from llama_export.verification.measure.metrics import TokenLoss, compare_logits
from llama_export.verification.measure.yardstick import (
    TextWindows,
    Yardstick,
    block_positions,
    exponential,
    losses,
    read_beside,
    read_both_ways,
    weighted_mean,
)

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = 37


def rows_of(seed: int):
    """Return made-up logits of a window's positions, the same at every call."""
    table = np.random.default_rng(seed).normal(0, 2, (4, 400, VOCABULARY)).astype(np.float32)
    return lambda window, positions: table[window, positions]


def text(windows: int, length: int, blocks: int) -> TextWindows:
    ids = torch.randint(0, VOCABULARY, (windows * length + 1,)).tolist()
    return TextWindows.cut("text", ids, windows * length, window=length, blocks=blocks)


def test_every_window_begins_with_the_prefix_and_goes_on_where_the_last_one_ended():
    cut = TextWindows.cut("text", list(range(100, 131)), 25, window=8, prefix_ids=(7,))
    assert cut.ids.tolist() == [
        [7, *range(100, 107)],
        [7, *range(107, 114)],
        [7, *range(114, 121)],
    ]
    assert cut.targets.tolist() == [
        [*range(100, 108)],
        [*range(107, 115)],
        [*range(114, 122)],
    ]
    with pytest.raises(ValueError, match="text: 5 positions, at least 8"):
        TextWindows.cut("text", list(range(100)), 5, window=8)


def test_blocks_are_as_alike_as_can_be_and_cover_a_window():
    slices = text(2, 301, 4).block_slices()
    assert [each.stop - each.start for each in slices] == [75, 75, 76, 75]
    assert [slices[0].start, slices[-1].stop] == [0, 301]


def test_blocks_add_up_to_what_all_positions_give():
    read, reference, model = text(3, 301, 4), rows_of(1), rows_of(2)
    reading = read_beside(read, reference, model)
    own, found = (
        np.concatenate([f(w, slice(0, 301)) for w in range(3)]) for f in (reference, model)
    )
    whole, loss = compare_logits(own, found), TokenLoss()
    loss.add(found, read.targets.flatten().numpy())
    assert reading.mean_kl.value == pytest.approx(whole.kl_mean, rel=1e-12)
    assert reading.top1.value == pytest.approx(whole.top1, rel=1e-12)
    assert reading.perplexity.value == pytest.approx(loss.result().perplexity, rel=1e-12)
    np.testing.assert_array_equal(reading.kl_of_positions, whole.kl)
    # A mean of blocks that forgets their lengths is another number.
    assert reading.kl.mean() != pytest.approx(whole.kl_mean, rel=1e-9)
    assert reading.mean_kl.error == pytest.approx(reading.kl.std(ddof=1) / math.sqrt(12), rel=0.05)


def test_a_ratio_has_the_error_of_the_differences():
    read, reference, model = text(3, 300, 3), rows_of(1), rows_of(2)
    own = losses(read, reference)
    reading = read_beside(read, reference, model)
    over = reading.perplexity_over(own)
    wanted = exponential(weighted_mean(own, block_positions(read)))
    assert over.value == pytest.approx(reading.perplexity.value / wanted.value, rel=1e-12)
    itself = read_beside(read, reference, reference)
    assert (itself.perplexity_over(own).value, itself.perplexity_over(own).error) == (1, 0)
    assert itself.mean_kl.value == 0
    assert itself.perplexity.error > 0


def test_two_models_are_held_against_each_other_in_one_reading():
    read, one, other = text(2, 200, 2), rows_of(1), rows_of(2)
    there, back = read_both_ways(read, one, other)
    for found, wanted in (
        (there, read_beside(read, one, other)),
        (back, read_beside(read, other, one)),
    ):
        np.testing.assert_array_equal(found.kl, wanted.kl)
        np.testing.assert_array_equal(found.nats, wanted.nats)
    assert there.mean_kl.value != pytest.approx(back.mean_kl.value, rel=1e-3)


def test_a_checkpoint_is_read_as_the_eager_model_reads_it():
    llama, other = tiny.random_llama(tiny.TINY), tiny.random_llama(tiny.TINY, seed=3)
    states = [dict(each.state_dict()) for each in (llama, other)]
    ids = tiny.random_tokens(tiny.TINY, 301)
    read = TextWindows.cut("text", ids, 300, window=100, blocks=2)
    yardstick = Yardstick(tiny.TINY, states[0].__getitem__, [read])
    (reading,) = yardstick.read(states[1].__getitem__)
    own, found = (
        reference_logits(tiny.TINY, each.__getitem__, read.ids).flatten(0, 1).numpy()
        for each in states
    )
    assert reading.mean_kl.value == pytest.approx(compare_logits(own, found).kl_mean, rel=1e-4)
    loss = TokenLoss()
    loss.add(own, ids[1:])
    assert yardstick.perplexities == pytest.approx([loss.result().perplexity], rel=1e-5)


def test_a_logit_that_is_no_number_is_named_with_its_block():
    table = rows_of(1)(0, slice(0, 200)).copy()
    table[150, 3] = np.nan
    with pytest.raises(LlamaExportError, match="text, block 2 of 2: the candidate's logits hold 1"):
        read_beside(text(1, 200, 2), rows_of(1), lambda _, positions: table[positions])
