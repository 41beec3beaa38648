"""How many drafted tokens are worth a run, from what held and what runs cost."""

from __future__ import annotations

from itertools import pairwise

import pytest

from llama_export.generation.draft_length import LENGTHS, Acceptance, DraftLength, RunCosts
from llama_export.generation.drafting import NOTHING, Proposal
from llama_export.generation.speculation import Speculator

MOST = LENGTHS[-1]


def measured(slope: float, rows=range(1, MOST + 2), single: float = 0.01) -> RunCosts:
    costs = RunCosts()
    for _ in range(3):
        for each in rows:
            costs.add(each, single * (1 + slope * (each - 1)))
    return costs


def held(share: float, kind: int = 0, *, costs: RunCosts) -> DraftLength:
    """Return a choice that has seen guesses hold so often, each on its own."""
    length = DraftLength()
    length.costs = costs
    rests = 0.0
    for _ in range(120):
        rests += share
        right, rests = (1, rests - 1) if rests >= 1 else (0, rests)
        length.watch(Proposal((7,) * MOST, kind))
        for _ in range(MOST):
            length.see(7 if right else 8, spared=right)
    return length


def test_nothing_is_drafted_before_a_single_row_was_timed():
    assert DraftLength().choose(0, MOST, staked=False) == 0


@pytest.mark.parametrize(
    ("slope", "share", "least", "most"),
    [
        (0.02, 0.9, 11, 15),  # rows cost nearly nothing
        (1.0, 0.9, 0, 0),  # a row costs what a step costs
        (0.2, 0.05, 0, 0),  # nothing holds
        (0.2, 0.5, 7, 15),  # all or nothing: what holds once holds to the end
    ],
)
def test_the_length_follows_the_costs_and_what_holds(slope, share, least, most):
    assert least <= held(share, costs=measured(slope)).choose(0, MOST, staked=False) <= most


def test_no_more_is_chosen_than_there_is():
    assert held(0.9, costs=measured(0.02)).choose(0, 4, staked=False) == 4
    assert held(0.9, costs=measured(0.02)).choose(0, 0, staked=False) == 0


def test_kinds_are_judged_by_themselves():
    length = held(0.95, kind=5, costs=measured(0.2))
    for _ in range(60):
        length.watch(Proposal((7,), 2))
        length.see(8, spared=False)
    assert length.choose(5, MOST, staked=False) > 3
    assert length.choose(2, MOST, staked=False) == 0


def test_a_length_is_tried_after_its_half():
    length = held(0.95, costs=measured(0.1, rows=[1]))
    tried = []
    while len(tried) < 6:
        tried.append(length.choose(0, MOST, staked=False))
        for _ in range(3):
            length.costs.add(1 + tried[-1], 0.01 * (1 + 0.05 * tried[-1]))
    assert tried[:4] == [1, 3, 7, 15]


def test_what_costs_too_much_is_dropped_and_tried_again_much_later():
    length = held(0.4, costs=measured(0.1, rows=[1]))
    assert length.choose(0, 1, staked=False) == 1
    for _ in range(3):
        length.costs.add(2, 0.02)
    assert length.choose(0, 1, staked=False) == 0
    for _ in range(1001):
        length.costs.add(1, 0.01)
    assert length.choose(0, 1, staked=False) == 1


def test_the_first_run_of_a_length_does_not_say_all():
    length = held(0.95, costs=measured(0.1, rows=[1]))
    length.costs.add(2, 0.022)
    assert length.choose(0, 1, staked=False) == 1
    length.costs.add(2, 0.0225)
    length.costs.add(2, 0.0225)
    assert length.choose(0, 1, staked=False) == 0


def test_costs_between_two_known_ones_lie_between_them():
    costs = measured(0.5, rows=[1, 3, 7])
    assert costs.seconds(5) == pytest.approx(0.03)
    assert costs.seconds(1) == pytest.approx(0.01)
    assert RunCosts().seconds(1) is None


def test_one_slow_run_changes_nothing():
    costs = measured(0.2)
    before = costs.seconds(4)
    costs.add(4, 5.0)
    assert costs.seconds(4) == before


def test_what_is_expected_is_what_held():
    acceptance = Acceptance()
    for round_ in range(100):
        acceptance.add(0, held=round_ % 2 == 0)
        if round_ % 2 == 0:
            acceptance.add(1, held=True)
    assert acceptance.expected(1) == pytest.approx(0.5, abs=0.06)
    assert acceptance.expected(2) == pytest.approx(1.0, abs=0.1)
    assert 1.0 < acceptance.expected(MOST) < MOST  # of places never reached, what those before say
    assert acceptance.expected(0) == 0


class Counting:
    """A drafter that costs time, and counts how often it is asked."""

    is_free = False

    def __init__(self) -> None:
        self.asked: list[int] = []

    def begin(self) -> None:
        """Nothing is remembered of a text."""

    def propose(self, tokens, most):
        self.asked.append(most)
        return Proposal((7,) * most)


def test_a_drafter_that_does_not_pay_rests_longer_and_longer():
    drafter = Counting()
    speculator = Speculator(drafter, ())
    speculator.length = held(0.02, costs=measured(1.0))
    asked_at = []
    for step in range(400):
        before = len(drafter.asked)
        speculator.draft([1], MOST)
        speculator.length.see(8, spared=False)
        if len(drafter.asked) > before:
            asked_at.append(step)
    gaps = [later - earlier for earlier, later in pairwise(asked_at)]
    assert gaps == sorted(gaps)
    assert asked_at[0] == 16
    assert 3 <= len(asked_at) <= 5
    assert set(drafter.asked) == {3}


def test_a_drafter_that_pays_again_is_asked_each_time():
    drafter = Counting()
    speculator = Speculator(drafter, ())
    speculator.length = held(0.02, costs=measured(0.2))
    for _ in range(2000):
        speculator.draft([1], MOST)
        speculator.length.see(7, spared=False)
    assert drafter.asked[-50:] == [MOST] * 50
    assert NOTHING.tokens == ()


def steps_of_a_text(length: DraftLength, guesses: list[int], slope: float) -> float:
    """Write a text with drafts of which so many hold, in turns; return the steps that it takes."""
    steps, left, turn = 0.0, 160, 0
    length.begin()
    while left > 0:
        right = guesses[turn % len(guesses)]
        turn += 1
        length.watch(Proposal((7,) * right + (9,) * (MOST - right)))
        count = length.choose(0, min(MOST, left), staked=True)
        steps += 1 + slope * count
        length.stake(1 + count)
        accepted = min(right, count, left - 1)
        for _ in range(accepted):
            length.see(7, spared=True)
        length.see(7 if accepted < right else 8, spared=False)
        left -= accepted + 1
    return steps


@pytest.mark.parametrize("slope", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(
    "guesses",
    [[0], [1, 0, 0], [3, 0, 0, 0, 0, 0], [MOST] * 4 + [0] * 200, [2, 0], [0] * 20 + [6]],
)
def test_a_text_falls_no_further_behind_than_its_stake(slope, guesses):
    # It comes from texts that copied, and expects the best.
    length = held(0.95, costs=measured(slope))
    assert steps_of_a_text(length, guesses, slope) <= 160 * 1.0101 + 1


def test_a_text_that_copies_is_drafted_at_once_and_gains():
    length = held(0.0, costs=measured(0.2))
    assert steps_of_a_text(length, [MOST], 0.2) < 160 / 2.5


def test_what_other_texts_showed_counts_for_less():
    length = held(0.95, costs=measured(0.2))
    assert length.choose(0, MOST, staked=True) > 0
    length.begin()
    for _ in range(12):
        length.watch(Proposal((7,) * MOST))
        length.see(8, spared=False)
    assert length.choose(0, MOST, staked=True) == 0
