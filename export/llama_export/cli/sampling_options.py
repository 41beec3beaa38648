"""The options that say how tokens are drawn, for every verb that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.verb import Section
from llama_export.generation import defaults

if TYPE_CHECKING:
    from llama_export.generation.sampling import Sampling


def _own_or(default: float) -> str:
    """Write a default of which a bundle's generation_config.json may say another value."""
    return f"the model's own, or {default:g}"


# A verb takes them as one mapping: a saved conversation has a sampling of its own, of which only
# what was typed is replaced.
SAMPLING = Section(
    "Sampling",
    (
        click.Option(
            ["--temperature"],
            type=float,
            metavar="T",
            help="0 takes the likeliest token.",
            show_default=_own_or(defaults.TEMPERATURE),
        ),
        click.Option(
            ["--top-p"],
            type=float,
            metavar="P",
            help="Draw from this share of the probability.",
            show_default=_own_or(defaults.TOP_P),
        ),
        click.Option(
            ["--top-k"],
            type=int,
            metavar="N",
            help="Draw from this many tokens; 0: all.",
            show_default=_own_or(defaults.TOP_K),
        ),
        click.Option(
            ["--min-p"],
            type=float,
            metavar="P",
            help="Leave out tokens below this share of the likeliest.",
            show_default=_own_or(defaults.MIN_P),
        ),
        click.Option(
            ["--repetition-penalty"],
            type=float,
            metavar="X",
            help="Above 1, tokens that are there already come less often.",
            show_default=_own_or(defaults.REPETITION_PENALTY),
        ),
        click.Option(
            ["--seed"],
            type=click.IntRange(min=0),
            metavar="N",
            help="The same seed writes the same text.",
            show_default="a fresh one",
        ),
    ),
)


def chosen_sampling(base: Sampling, typed: Mapping[str, Any]) -> Sampling:
    """Return the base with the options that were typed.

    Raises:
        UsageError: one of them is out of its range.
    """
    return replace(base, **typed)
