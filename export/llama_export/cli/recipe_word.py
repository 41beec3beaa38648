"""The values of `--quantize` and `--recipes`: recipes in a word each.

The help lists the schemes that a word begins with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from llama_export.errors import UsageError
from llama_export.exporting.recipe_name import (
    RecipeName,
    near_scheme,
    parse_built_in,
    parse_recipe_name,
)
from llama_quantize.printable import shown_name

# Generic from click 8.2 on only.
if TYPE_CHECKING:
    _TextChoice = click.Choice[str]
else:
    _TextChoice = click.Choice


class RecipeWord(_TextChoice):
    """A recipe that no file holds, as a word; the word is judged, and stays a word."""

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        word = str(value)
        scheme = word.partition(":")[0]
        if scheme not in self.choices:
            message = (
                f"--quantize: expected {', '.join(self.choices)}, found {shown_name(repr(scheme))}"
            )
            near = near_scheme(scheme)
            guess = f"did you mean {near}? " if near else ""
            advice = "--quality says how its codes are chosen, and --recipe takes a recipe's file"
            raise UsageError(message, guess + advice)
        parse_built_in(word)
        return word


def parse_recipe_names(words: str, quality: str | None) -> tuple[RecipeName, ...]:
    """Take apart what stands between commas, each recipe once.

    Args:
        words: words of recipes.
        quality: quality of those with codes that name none; None: as an export chooses it.

    Raises:
        UsageError: a word is no recipe's.
        QuantizationError: a recipe file cannot be read, or a group size, table or quality is none
            of its scheme's.
    """
    named = [parse_recipe_name(word) for each in words.split(",") if (word := each.strip())]
    if not named:
        message = f"--recipes: expected words of recipes, found {shown_name(repr(words))}"
        raise UsageError(message, "--recipes int4:g32,int8")
    names = tuple(dict.fromkeys(each.with_quality(quality).resolved() for each in named))
    for name in names:
        name.recipe()  # refused here, and not when PyTorch has started and a model is open
    return names
