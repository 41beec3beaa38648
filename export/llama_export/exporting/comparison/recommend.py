"""Choose among recipes that were measured: the smallest within a KL, or the best within a size.

A KL is within the limit only if its upper end is: the mean and its standard error, on every text.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from llama_export.exporting.comparison.figures import RecipeComparison, RecipeFigures
from llama_export.exporting.comparison.limits import Limit
from llama_export.exporting.request import ExportRequest
from llama_export.targets import registry

_MEGABYTE = 1e6


@dataclass(frozen=True)
class Recommendation:
    """The answer to a limit.

    Args:
        limit: what had to be kept to.
        chosen: the recipe; None: none keeps to it.
        nearest: the one that comes closest where none does.
    """

    limit: Limit
    chosen: RecipeFigures | None
    nearest: RecipeFigures

    @property
    def sentence(self) -> str:
        """The answer in a sentence, without a command."""
        if self.chosen is not None:
            kind = "the smallest" if self.limit.most_bytes is None else "the closest"
            return (
                f"{self.chosen.name} is {kind} with {self.limit}: "
                f"{self.chosen.size_bytes / _MEGABYTE:.1f} MB, KL {_shown_kl(self.chosen)}"
            )
        return (
            f"no recipe has {self.limit}; nearest is {self.nearest.name} with "
            f"{self.nearest.size_bytes / _MEGABYTE:.1f} MB, KL {_shown_kl(self.nearest)}"
        )

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "max_kl": self.limit.most_kl,
            "max_bytes": self.limit.most_bytes,
            "recipe": None if self.chosen is None else self.chosen.name,
            "nearest": self.nearest.name,
        }


def recommend(comparison: RecipeComparison, limit: Limit) -> Recommendation:
    """Choose a recipe; of two that are alike, the one that was named first."""
    fitting = [each for each in comparison.recipes if _holds(limit, each)]
    by_size = limit.most_bytes is None
    # Within a KL the smallest wins; within a size, what is closest to the reference.
    chosen = min(fitting, key=_size if by_size else _worst_kl, default=None)
    nearest = min(comparison.recipes, key=upper_kl if by_size else _size)
    return Recommendation(limit, chosen, nearest)


def free_output(model: str, recipe: str) -> Path:
    """Return a folder for an export that is not there yet, named after the model and the recipe.

    The model's own name is where an earlier export of it is likely to be.

    Args:
        model: name of the model, as the comparison was given it.
        recipe: the recipe in a word.

    Raises:
        OutputError: no folder can have such a name.
    """
    # Of a recipe's file its name is enough, and a colon is in no folder's name everywhere.
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"\.json(?=:|$)", "", Path(recipe).name))
    named = ExportRequest(model, ()).output_folder
    name = f"{named.name}-{word}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    # A link that leads nowhere is in the way too, and `exists` follows it.
    return next(Path(each) for each in names if not os.path.lexists(each))


def export_command(
    model: str,
    figures: RecipeFigures,
    output: Path,
    reading: Sequence[str] = (),
    calibration: Sequence[str] = (),
) -> str | None:
    """Return the command that exports a model with a recipe; None: no target takes it.

    Args:
        model: name of the model, as the comparison was given it.
        figures: the recipe.
        output: folder that the export gets.
        reading: words that said which model it is, and how it is read.
        calibration: words that said what a calibrated recipe was calibrated on.
    """
    if not figures.targets:
        return None
    targets = "all" if set(figures.targets) == set(registry.TARGETS) else ",".join(figures.targets)
    words = ["llama-export", "--target", targets, "--model", model, *reading]
    words += [*figures.export_options, *(calibration if figures.calibration else ())]
    words += ["--output", str(output)]
    return shlex.join(words)


def upper_kl(figures: RecipeFigures) -> float:
    """Return the upper end of a recipe's KL on the text that it does worst on."""
    return max(each.kl.value + each.kl.error for each in figures.texts)


def _worst_kl(figures: RecipeFigures) -> float:
    return max(each.kl.value for each in figures.texts)


def _size(figures: RecipeFigures) -> float:
    return figures.size_bytes


def _shown_kl(figures: RecipeFigures) -> str:
    return max(figures.texts, key=lambda each: each.kl.value).kl.shown()


def _holds(limit: Limit, figures: RecipeFigures) -> bool:
    if limit.most_bytes is not None:
        return figures.size_bytes <= limit.most_bytes
    return limit.most_kl is not None and upper_kl(figures) <= limit.most_kl
