"""The options that say how tokens are drawn, for every command that writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llama_export.generation.sampling import Sampling

Temperature = Annotated[
    float | None, typer.Option(help="0 takes the likeliest token.", show_default="0.7")
]
TopP = Annotated[
    float | None,
    typer.Option(help="Draw from this share of the probability.", show_default="0.95"),
]
TopK = Annotated[
    int | None, typer.Option(help="Draw from this many tokens; 0: all.", show_default="0")
]
MinP = Annotated[
    float | None,
    typer.Option(help="Leave out tokens below this share of the likeliest.", show_default="0"),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(help="Above 1: tokens that are there already less often.", show_default="1"),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="The same seed writes the same text.", show_default="a fresh one"),
]


def chosen_sampling(
    base: Sampling,
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    min_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> Sampling:
    """Return the base with the options that were given.

    Raises:
        UsageError: one of them is out of its range.
    """
    from dataclasses import replace

    return replace(
        base,
        temperature=base.temperature if temperature is None else temperature,
        top_p=base.top_p if top_p is None else top_p,
        top_k=base.top_k if top_k is None else top_k,
        min_p=base.min_p if min_p is None else min_p,
        repetition_penalty=(
            base.repetition_penalty if repetition_penalty is None else repetition_penalty
        ),
        seed=base.seed if seed is None else seed,
    )
