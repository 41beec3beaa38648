"""The options that say how tokens are drawn, for every verb that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.streams import require_utf8
from llama_export.cli.verb import Section
from llama_export.errors import UsageError
from llama_export.generation import defaults

if TYPE_CHECKING:
    from llama_export.generation.sampling import Sampling


def _own_or(default: float) -> str:
    """Write a default of which a bundle's generation_config.json may say another value."""
    return f"the model's own, or {default:g}"


def _require_text(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    for text in texts:
        require_utf8(text, "--stop")
        if not text:
            message = "--stop: expected a text of at least one character"
            raise UsageError(message, "leave it out, or name what ends the new text")
    return texts


# A tuple of texts.
STOP = click.Option(
    ["--stop"],
    multiple=True,
    metavar="TEXT",
    callback=_require_text,
    help="End before this text; repeat it for more.",
)
# Whether a text is read as a template's is.
PARSE_SPECIAL = click.Option(
    ["--parse-special"],
    is_flag=True,
    help="Read the names of special tokens, such as <|eot_id|>, as tokens.",
    show_default="as text",
)

# A verb takes them as one mapping: a saved conversation has a sampling of its own, of which only
# what was typed is replaced.
SAMPLING = Section(
    "Sampling",
    (
        click.Option(
            ["--temperature", "--temp"],
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
