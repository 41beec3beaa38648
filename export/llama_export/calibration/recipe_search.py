"""From what each form of each linear costs to a recipe within a budget.

It adds up, chooses and names; it knows no model and no file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from llama_export.errors import UsageError
from llama_quantize.budget import Choice, OverBudgetError, fewest_bytes, least_cost
from llama_quantize.recipe_file import WrittenRecipe, WrittenRule
from llama_quantize.scheme import GroupedInt, Scheme

_MEGABYTE = 1e6
GAINS: Mapping[str, float] = {"fast": 1.0, "good": 0.47, "best": 0.39}
"""Share of the cost of searched scales that is left by each quality: measured on the demo and on
SmolLM2-135M in groups of 32. It scales what is foretold; it changes no choice within a size."""
_WEIGHT = ".weight"


@dataclass(frozen=True)
class Budget:
    """What a recipe has to keep to; one of the two.

    Args:
        most_bytes: most bytes of all the quantised weights, tables and norms included.
        most_kl: most nats that the answers may change by, as foretold.
    """

    most_bytes: int | None = None
    most_kl: float | None = None

    def __post_init__(self) -> None:
        if (self.most_bytes is None) == (self.most_kl is None):
            message = "--budget-mb and --max-kl: expected one of the two"
            raise UsageError(
                message, "a size is kept at the least cost, or a cost at the least size"
            )

    def __str__(self) -> str:
        if self.most_bytes is not None:
            return f"at most {self.most_bytes / _MEGABYTE:g} MB"
        return f"at most {self.most_kl:g} nats"


@dataclass(frozen=True)
class Assignment:
    """A form for each linear, and what they come to.

    Args:
        label: what it is called.
        forms: choice of each linear.
        size_bytes: stored bytes of the whole model.
        kl: nats that the answers change by, as foretold.
    """

    label: str
    forms: Mapping[str, Choice]
    size_bytes: int
    kl: float

    def counts(self) -> dict[str, int]:
        """Return how many linears have each form, the commonest first."""
        return dict(Counter(choice.scheme.label for choice in self.forms.values()).most_common())

    def to_json(self) -> dict[str, object]:
        """Return plain data: how many linears have each form, not which."""
        return {
            "label": self.label,
            "size_bytes": self.size_bytes,
            "predicted_kl": self.kl,
            "forms": self.counts(),
        }


@dataclass(frozen=True)
class FormCosts:
    """What the forms of a model's linears take and cost.

    Args:
        choices: choices of each linear, in model order.
        fixed_bytes: stored bytes of all other tensors.
    """

    choices: Mapping[str, tuple[Choice, ...]]
    fixed_bytes: int

    def by_a_method(self, gain: float) -> FormCosts:
        """Return the costs of a method whose error is that share of what was measured."""
        scaled = {
            name: tuple(replace(each, cost=gain * each.cost) for each in choices)
            for name, choices in self.choices.items()
        }
        return replace(self, choices=scaled)

    def uniform(self) -> tuple[Assignment, ...]:
        """Return one form for all linears, for each form that all have; the smallest first."""
        schemes = dict.fromkeys(each.scheme for row in self.choices.values() for each in row)
        found = []
        for scheme in schemes:
            forms = {
                name: each
                for name, row in self.choices.items()
                for each in row
                if each.scheme == scheme
            }
            if len(forms) == len(self.choices):
                found.append(self._assigned(scheme.label, forms))
        return tuple(sorted(found, key=lambda each: each.size_bytes))

    def within(self, budget: Budget) -> Assignment:
        """Choose the best forms that keep to a budget.

        Raises:
            UsageError: none do; the message has the least possible.
        """
        try:
            if budget.most_bytes is not None:
                forms = least_cost(self.choices, budget.most_bytes - self.fixed_bytes)
            else:
                forms = fewest_bytes(self.choices, budget.most_kl or 0.0)
        except OverBudgetError as error:
            if budget.most_bytes is None:
                message = (
                    f"--max-kl {budget.most_kl:g}: {error.least:.2g} nats is the least possible"
                )
                raise UsageError(message, "allow more, or export with --quantize bf16") from None
            least = math.ceil((error.least + self.fixed_bytes) / _MEGABYTE * 100) / 100
            fixed = self.fixed_bytes / _MEGABYTE
            message = (
                f"--budget-mb {budget.most_bytes / _MEGABYTE:g}: the least possible is {least:g} "
                f"MB, of which token table and norms are {fixed:.2f} MB"
            )
            raise UsageError(message, "allow more, or take a smaller model") from None
        return self._assigned(str(budget), forms)

    def costliest(self) -> tuple[str, ...]:
        """Return the linears by what the first of their forms costs, the most first."""
        return tuple(sorted(self.choices, key=lambda name: -self.choices[name][0].cost))

    def _assigned(self, label: str, forms: Mapping[str, Choice]) -> Assignment:
        size_bytes = self.fixed_bytes + sum(each.size_bytes for each in forms.values())
        return Assignment(label, forms, size_bytes, math.fsum(c.cost for c in forms.values()))


def recipe_of(
    assignment: Assignment, name: str, note: str, table: str | None = None
) -> WrittenRecipe:
    """Write a recipe: the commonest int4 form as the base, the others by the linears' names.

    Args:
        assignment: form of each linear.
        name: name of the recipe.
        note: what a reader of its file should know.
        table: form of the token table and the output head; None: the default.
    """
    schemes = {linear: each.scheme for linear, each in assignment.forms.items()}
    group_size = _commonest_group(schemes.values())
    others: dict[Scheme, list[str]] = {}
    for linear, scheme in schemes.items():
        if scheme != GroupedInt(4, group_size):
            others.setdefault(scheme, []).append(linear.removesuffix(_WEIGHT))
    rules = tuple(WrittenRule(tuple(names), scheme) for scheme, names in others.items())
    return WrittenRecipe(name, rules, "int4", group_size, note, table)


def _commonest_group(schemes: Iterable[Scheme]) -> int | None:
    """Return the group size that most int4 forms have; None: there is no such form."""
    counts = Counter(
        each.group_size
        for each in schemes
        if isinstance(each, GroupedInt) and each.bits == 4 and each.group_size is not None
    )
    return max(counts, key=lambda size: (counts[size], -size)) if counts else None
