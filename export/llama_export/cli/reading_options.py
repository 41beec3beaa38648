"""The options that say how a checkpoint is read, where its files do not say it."""

from __future__ import annotations

from collections.abc import Mapping

import click

from llama_export.checkpoints.checkpoint import GUARD_ANSWERS, ReadOptions
from llama_export.cli.verb import Section

_MOST_FACTOR = 1e6
_GUARD = "guard"

BASE = click.Option(
    ["--base"], metavar="MODEL", help="The model below an adapter.", show_default="what it names"
)
ADAPTER = click.Option(
    ["--adapter"],
    multiple=True,
    metavar="FOLDER",
    help="A LoRA adapter to merge into the model, or its hub id; repeat it for more.",
)
READING_SECTION = Section(
    "Reading the checkpoint",
    (
        BASE,
        ADAPTER,
        click.Option(
            ["--rope-factor"],
            type=click.FloatRange(1, _MOST_FACTOR),
            metavar="FACTOR",
            help="Of the rotary scaling, which Meta's own layout does not record.",
            show_default="inferred",
        ),
        click.Option(
            ["--merge-adaptors"],
            is_flag=True,
            help="Merge the side branches of a QLoRA checkpoint, and quantise again.",
        ),
        click.Option(
            ["--accept-loss"],
            is_flag=True,
            help="Read weights that lost more than int4 loses (GGUF Q2_K, Q3_K).",
        ),
        click.Option(
            ["--head-tokens"],
            multiple=True,
            metavar="TEXT",
            help=(
                "Keep only this text's tokens, and those that end a text, in the output head; "
                "repeat it for more. `guard`: Llama Guard's answers."
            ),
        ),
    ),
)
READING_OPTIONS = {"reading": READING_SECTION.options}
"""How these options reach a verb: what was typed, by name."""


def chosen_reading(typed: Mapping[str, object]) -> ReadOptions:
    """Return how a checkpoint is to be read.

    Args:
        typed: values of the options that were typed, by name.
    """
    factor, base, adapters = typed.get("rope_factor"), typed.get("base"), typed.get("adapter")
    texts = typed.get("head_tokens")
    return ReadOptions(
        rope_factor=factor if isinstance(factor, float) else None,
        base=base if isinstance(base, str) else None,
        adapters=tuple(map(str, adapters)) if isinstance(adapters, tuple) else (),
        merge_adaptors=typed.get("merge_adaptors") is True,
        accept_loss=typed.get("accept_loss") is True,
        head_tokens=_texts(texts) if isinstance(texts, tuple) else (),
    )


def reading_words(typed: Mapping[str, object]) -> list[str]:
    """Return the words that ask for the same.

    Args:
        typed: values of the options that were typed, by name.
    """
    words: list[str] = []
    for option in READING_SECTION.options:
        value, word = typed.get(option.name or ""), option.opts[0]
        if value is True:
            words.append(word)
        elif isinstance(value, tuple):
            words += [each for found in value for each in (word, str(found))]
        elif value:
            words += [word, str(value)]
    return words


def _texts(typed: tuple[object, ...]) -> tuple[str, ...]:
    """Put Llama Guard's answers in the place of its word."""
    found = (GUARD_ANSWERS if each == _GUARD else (str(each),) for each in typed)
    return tuple(dict.fromkeys(text for texts in found for text in texts))
