"""Decide how many drafted tokens are worth running, by what was seen to hold and what it cost.

A run of several rows takes longer than one of a single row: how much longer depends on the runtime,
the machine and the model, so it is measured while texts are written. How often a guess holds is
counted for each kind of guess. It knows numbers only; it neither guesses nor runs anything.
"""

from __future__ import annotations

import copy
import statistics
from collections import deque

from llama_export.generation.drafting import Proposal

# Numbers of drafted tokens to choose from. Few, so that each one's cost is soon known.
LENGTHS = (1, 2, 3, 5, 7, 11, 15)
MOST_DRAFTED = LENGTHS[-1]

_KEPT_SAMPLES = 9
# A cost that was not seen for so many runs is forgotten, so that a length gets another try.
_FORGOTTEN_AFTER = 1000
# What a row more is taken to cost before it was tried, in steps of a single row: so little that
# it is tried where it may pay. One run then says what it is.
_HOPED_ROW = 0.05
# Draft only where this much faster: below it is the noise of the costs.
_LEAST_GAIN = 1.08
# Before anything was seen, a guess counts as this likely, with the weight of so many guesses.
_HOPED_SHARE, _HOPED_WEIGHT = 0.5, 2
# One guess weighs at least so much: a text changes its ways.
_LEAST_WEIGHT = 1 / 24
# What other texts showed counts as so many guesses, once a new one has begun.
_CARRIED_COUNT = 4
# How far a text may fall behind what it would be without drafts: so many steps of a single row at
# first, and so much of a step more with each token. Of what drafts gained, a little may be lost.
_FIRST_STAKE, _STAKE_PER_TOKEN, _MOST_STAKE = 1.0, 0.01, 4.0


class RunCosts:
    """Seconds that a run takes, by its number of rows; what it took to draft them included."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._seen_at: dict[int, int] = {}
        # The median of each, which is asked for at every step.
        self._known: dict[int, float] = {}
        self._runs = 0

    def add(self, rows: int, elapsed_s: float) -> None:
        """Take in what a run took."""
        self._runs += 1
        self._seen_at[rows] = self._runs
        samples = self._samples.setdefault(rows, deque(maxlen=_KEPT_SAMPLES))
        samples.append(elapsed_s)
        self._known[rows] = statistics.median_low(samples)
        oldest = self._runs - _FORGOTTEN_AFTER
        for each in [rows for rows, at in self._seen_at.items() if at < oldest and rows != 1]:
            del self._samples[each], self._seen_at[each], self._known[each]

    @property
    def longest(self) -> int:
        """Largest number of rows whose cost is known; 0: none is."""
        return max(self._known, default=0)

    def seconds(self, rows: int) -> float | None:
        """Estimate a run; None, as long as the cost of a single row is not known."""
        known = self._known
        if 1 not in known:
            return None
        if rows == 1:
            return known[1]
        if rows in known:
            # The first run of a length may also plan its memory: it gets another try.
            once = len(self._samples[rows]) == 1
            return (known[rows] + self._hoped(known, rows)) / 2 if once else known[rows]
        above = min((each for each in known if each > rows), default=None)
        if above is None:
            return self._hoped(known, rows)
        below = max(each for each in known if each < rows)
        share = (rows - below) / (above - below)
        return known[below] + share * (known[above] - known[below])

    @staticmethod
    def _hoped(known: dict[int, float], rows: int) -> float:
        """Estimate from the next lower number of rows alone."""
        below = max(each for each in known if each < rows)
        return known[below] + _HOPED_ROW * known[1] * (rows - below)


class Acceptance:
    """How often guesses of one kind hold: for each place, the share where those before it held."""

    def __init__(self) -> None:
        self._shares = [0.0] * MOST_DRAFTED
        self._counts = [0] * MOST_DRAFTED

    def add(self, place: int, *, held: bool) -> None:
        """Take in whether the guess at a place held, given that all before it did."""
        self._counts[place] += 1
        weight = max(1 / self._counts[place], _LEAST_WEIGHT)
        self._shares[place] += weight * (held - self._shares[place])

    def fade(self) -> None:
        """Let what was seen count for less: another text begins."""
        self._counts = [min(count, _CARRIED_COUNT) for count in self._counts]

    def expected(self, length: int) -> float:
        """Return the mean number of guesses that hold, of so many."""
        reached, share, total = 1.0, _HOPED_SHARE, 0.0
        for place in range(length):
            # Of a place that was seldom reached, the one before it says more.
            weight = min(self._counts[place], 1 / _LEAST_WEIGHT)
            seen = self._shares[place] * weight
            share = (seen + share * _HOPED_WEIGHT) / (weight + _HOPED_WEIGHT)
            reached *= share
            total += reached
        return total


class _Watched:
    """A proposal that the text is held against."""

    def __init__(self, proposal: Proposal) -> None:
        self.proposal = proposal
        self.place = 0


class DraftLength:
    """The choice, from everything that was seen in a session."""

    def __init__(self) -> None:
        self.costs = RunCosts()
        self._acceptance: dict[int, Acceptance] = {}
        self._watched: list[_Watched] = []
        self._stake = _FIRST_STAKE

    def begin(self) -> None:
        """Begin another text: what was proposed for the last one is not seen to the end."""
        self._watched = []
        self._stake = _FIRST_STAKE
        for each in self._acceptance.values():
            each.fade()

    def watch(self, proposal: Proposal) -> None:
        """Hold what comes against a proposal, whether it is run or not."""
        if proposal.tokens:
            self._watched.append(_Watched(proposal))

    def stake(self, rows: int) -> None:
        """Pay for a run of so many rows; `see` pays back what it spares."""
        self._stake -= self._steps(rows) - 1

    def see(self, token: int, *, spared: bool) -> None:
        """Take in the token that came.

        Args:
            token: the token.
            spared: whether it was drafted, so that it took no run of its own.
        """
        self._stake = min(self._stake + _STAKE_PER_TOKEN + spared, _MOST_STAKE)
        going_on = []
        for each in self._watched:
            guess = each.proposal.tokens
            held = guess[each.place] == token
            self._of(each.proposal.kind).add(each.place, held=held)
            each.place += 1
            if held and each.place < len(guess):
                going_on.append(each)
        self._watched = going_on

    def choose(self, kind: int, most: int, *, staked: bool) -> int:
        """Return how many of a kind of guesses to run; 0: none is worth it.

        Args:
            kind: the kind.
            most: largest number of them.
            staked: whether a run must be one that the text can afford even if none of them holds.
        """
        if self.costs.seconds(1) is None:
            return 0  # a step alone is measured first
        acceptance = self._of(kind)
        best, best_gain = 0, _LEAST_GAIN
        # A length is tried after its half: what the half cost says whether it may pay.
        most = min(most, 2 * self.costs.longest - 1)
        for length in (*(each for each in LENGTHS if each < most), most):
            steps = self._steps(1 + length)
            if length < 1 or (staked and steps - 1 > self._stake):
                continue
            gain = (1 + acceptance.expected(length)) / steps
            if gain > best_gain:
                best, best_gain = length, gain
        return best

    def fork(self) -> DraftLength:
        """Return a copy that has seen the same."""
        other = copy.deepcopy(self)
        other.begin()
        return other

    def _steps(self, rows: int) -> float:
        """Return what a run takes, in steps of a single row."""
        single, seconds = self.costs.seconds(1), self.costs.seconds(rows)
        return 1.0 if single is None or seconds is None else seconds / single

    def _of(self, kind: int) -> Acceptance:
        return self._acceptance.setdefault(kind, Acceptance())
