"""Choose a form for each of many tensors: least cost within a size, or least size within a cost.

It is the multiple-choice knapsack. Each tensor's choices span a convex hull of size and cost; the
steps along all hulls are taken in the order of what they gain for a byte, until none fits. That is
the optimum but for the one step that did not fit. Then one or two tensors at a time change their
form as long as that lowers the cost. What is chosen is never worse than one form for all that fits.
The result depends on the numbers alone. It knows no model and no method.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llama_quantize.errors import QuantizationError
from llama_quantize.scheme import Scheme

# A change that gains less than this share of the whole is a rounding error.
_ROUNDING = 1e-12
_MOST_CHANGES = 10_000


@dataclass(frozen=True)
class Choice:
    """A form that a tensor could have.

    Args:
        scheme: the form.
        size_bytes: stored bytes of the tensor.
        cost: what the form costs, in any unit, such as nats.
    """

    scheme: Scheme
    size_bytes: int
    cost: float


class OverBudgetError(QuantizationError):
    """No choice is within the limit.

    Args:
        least: size or cost of the choice that has the least.
    """

    def __init__(self, least: float) -> None:
        super().__init__(f"the least possible is {least:g}")
        self.least = least


def least_cost(choices: Mapping[str, Sequence[Choice]], most_bytes: int) -> dict[str, Choice]:
    """Choose the least cost of all tensors together.

    Args:
        choices: forms of each tensor, at least one each.
        most_bytes: most bytes of all tensors together.

    Raises:
        OverBudgetError: even the smallest forms have more bytes.
    """
    return _choose(choices, most_bytes, lambda each: (each.size_bytes, each.cost))


def fewest_bytes(choices: Mapping[str, Sequence[Choice]], most_cost: float) -> dict[str, Choice]:
    """Choose the fewest bytes of all tensors together.

    Args:
        choices: forms of each tensor, at least one each.
        most_cost: most cost of all tensors together.

    Raises:
        OverBudgetError: even the best forms cost more.
    """
    return _choose(choices, most_cost, lambda each: (each.cost, each.size_bytes))


@dataclass(frozen=True)
class _Point:
    """A choice of one item: what it spends of the limit, and what it costs."""

    choice: Choice
    spent: float
    price: float


def _choose(
    choices: Mapping[str, Sequence[Choice]],
    limit: float,
    axes: Callable[[Choice], tuple[float, float]],
) -> dict[str, Choice]:
    items = [
        _useful([_Point(choice, *map(float, axes(choice))) for choice in each])
        for each in choices.values()
    ]
    least = math.fsum(points[0].spent for points in items)
    if least > limit:
        raise OverBudgetError(least)
    search = _Search(items, limit)
    search.climb()
    search.improve()
    for scheme in dict.fromkeys(choice.scheme for each in choices.values() for choice in each):
        search.try_everywhere(scheme)
    return {
        name: points[at].choice
        for name, points, at in zip(choices, items, search.taken, strict=True)
    }


def _useful(points: list[_Point]) -> list[_Point]:
    """Sort by what is spent, and drop what costs no less than something that spends no more."""
    kept: list[_Point] = []
    for point in sorted(points, key=lambda each: (each.spent, each.price)):
        if not kept or point.price < kept[-1].price:
            kept.append(point)
    return kept


def _hull(points: Sequence[_Point]) -> list[int]:
    """Return the indices of the points below which no line between two others runs."""
    hull: list[int] = []
    for index, point in enumerate(points):
        while len(hull) > 1:
            first, middle = points[hull[-2]], points[hull[-1]]
            before = (first.price - middle.price) * (point.spent - middle.spent)
            if before > (middle.price - point.price) * (middle.spent - first.spent):
                break
            hull.pop()
        hull.append(index)
    return hull


class _Search:
    """A choice for each item, and what it spends.

    Args:
        items: points of each item, as `_useful` leaves them.
        limit: most that all of them may spend.
    """

    def __init__(self, items: Sequence[list[_Point]], limit: float) -> None:
        self._items = items
        self._limit = limit
        self.taken = [0] * len(items)

    def climb(self) -> None:
        """Take the steps along the hulls that gain most for what they spend, as far as they fit."""
        steps = []
        for item, points in enumerate(self._items):
            hull = _hull(points)
            for rank, (low, high) in enumerate(itertools.pairwise(hull)):
                more = points[high].spent - points[low].spent
                gain = points[low].price - points[high].price
                steps.append((-gain / more, item, rank, high))
        stopped: set[int] = set()
        left = self._left()
        for _, item, _, high in sorted(steps):
            points = self._items[item]
            more = points[high].spent - points[self.taken[item]].spent
            if item in stopped or more > left:
                stopped.add(item)
                continue
            left -= more
            self.taken[item] = high
        self._settle()

    def improve(self) -> None:
        """Change one item or two at a time, as long as that lowers the price."""
        for _ in range(_MOST_CHANGES):
            changes = self._best_changes()
            if changes is None:
                return
            for item, point in changes:
                self.taken[item] = point

    def try_everywhere(self, scheme: Scheme) -> None:
        """Begin with one form for all items, if that is within the limit and better."""
        found = []
        for points in self._items:
            at = next((i for i, point in enumerate(points) if point.choice.scheme == scheme), None)
            if at is None:
                return
            found.append(at)
        before = self.taken
        price = self._price()
        self.taken = found
        if self._left() < 0 or self._price() >= price:
            self.taken = before
        else:
            self.improve()

    def _settle(self) -> None:
        """Take back the last step of rounding: sums in another order may be over the limit."""
        while self._left() < 0:
            item = max(range(len(self.taken)), key=lambda each: (self.taken[each], each))
            self.taken[item] -= 1

    def _left(self) -> float:
        """Return what may still be spent."""
        return self._limit - math.fsum(
            points[at].spent for points, at in zip(self._items, self.taken, strict=True)
        )

    def _price(self) -> float:
        return math.fsum(
            points[at].price for points, at in zip(self._items, self.taken, strict=True)
        )

    def _best_changes(self) -> tuple[tuple[int, int], ...] | None:
        """Return the change of one item or two that lowers the price most; None: there is none."""
        # A change is what it spends more, what it lowers the price by (negative: raises), where.
        changes = sorted(
            (point.spent - points[at].spent, point.price - points[at].price, item, index)
            for item, (points, at) in enumerate(zip(self._items, self.taken, strict=True))
            for index, point in enumerate(points)
            if index != at
        )
        left = self._left()
        spends = [change[0] for change in changes]
        best: tuple[float, tuple[tuple[int, int], ...]] = (-_ROUNDING * self._price(), ())
        for (spent, price, item, index), pair in zip(
            changes, self._partners(changes, spends, left), strict=True
        ):
            if spent <= left and price < best[0]:
                best = price, ((item, index),)
            if pair is not None and price + pair[1] < best[0]:
                best = price + pair[1], ((item, index), (pair[2], pair[3]))
        return best[1] or None

    @staticmethod
    def _partners(
        changes: list[tuple[float, float, int, int]], spends: list[float], left: float
    ) -> list[tuple[float, float, int, int] | None]:
        """Return for each change the best one of another item that fits beside it."""
        # Of all changes up to a place: the lowest price, and the lowest of another item.
        lowest: list[tuple[int, int]] = []
        first = second = -1
        for place, (_, price, item, _) in enumerate(changes):
            if first < 0 or price < changes[first][1]:
                if first >= 0 and changes[first][2] != item:
                    second = first
                first = place
            elif item != changes[first][2] and (second < 0 or price < changes[second][1]):
                second = place
            lowest.append((first, second))
        found: list[tuple[float, float, int, int] | None] = []
        for spent, _, item, _ in changes:
            place = bisect.bisect_right(spends, left - spent) - 1
            best = -1
            if place >= 0:
                first, second = lowest[place]
                best = first if changes[first][2] != item else second
            found.append(changes[best] if best >= 0 else None)
        return found
