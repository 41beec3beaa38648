"""`llama-export compare`: recipes side by side on one's own model and text, or two bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.calibration.options import OWN_TEXT, CalibrationOptions
from llama_export.cli.calibration_options import CALIBRATION, CALIBRATION_TOKENS, QUALITY
from llama_export.cli.completion import complete_model
from llama_export.cli.options import JSON, PATH, REVISION, THREADS, TOKEN, VERBOSE, open_console
from llama_export.cli.output import write_json
from llama_export.cli.reading_options import (
    READING_OPTIONS,
    READING_SECTION,
    chosen_reading,
    reading_words,
)
from llama_export.cli.recipe_word import parse_recipe_names
from llama_export.cli.tokens import command_line
from llama_export.cli.verb import Positional, Section, Verb
from llama_export.errors import UsageError
from llama_export.exporting.comparison.limits import (
    BUNDLE_POSITIONS,
    FEWEST_POSITIONS,
    RECIPE_POSITIONS,
    Limit,
)
from llama_quantize.errors import QuantizationError

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.exporting.comparison.request import NamedText

DEFAULT_RECIPES = "int4:g32,int4:g64,int8,bf16"
_MEGABYTE = 1e6


def compare(
    *,
    bundles: tuple[Path, ...],
    model: str | None,
    revision: str | None,
    token: str | None,
    checkpoint: str | None,
    reading: Mapping[str, object],
    recipes: str | None,
    quality: str | None,
    calibration: tuple[Path, ...],
    calibration_tokens: int | None,
    text: tuple[Path, ...],
    positions: int | None,
    recommend: bool,
    max_kl: float | None,
    budget_mb: float | None,
    html: Path | None,
    threads: int | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Hold recipes against the model that they are for, or two bundles against each other."""
    limit = chosen_limit(max_kl, budget_mb, asked=recommend)
    if model is not None:
        _refuse_beside("--model", {"a bundle": bundles, "--threads": threads})
    else:
        _require_two(bundles)
        others = {
            "--revision": revision,
            "--checkpoint": checkpoint,
            "--recipes": recipes,
            "--quality": quality,
            "--calibration": calibration,
            "--calibration-tokens": calibration_tokens,
            "--recommend, --max-kl or --budget-mb": limit,
            "what says how a checkpoint is read": chosen_reading(reading) != chosen_reading({}),
        }
        _refuse_beside("two bundles", others)
    names = parse_recipe_names(recipes or DEFAULT_RECIPES, quality)
    console = open_console(verbose)
    from llama_export.exporting.comparison.request import RecipesRequest, named_texts

    texts = named_texts(text)
    if html is not None:
        from llama_export.exporting.comparison.page import FIRST_LINE
        from llama_export.verification.report.layout import check_page

        check_page(html, FIRST_LINE)
    if model is None:
        _compare_bundles(bundles, texts, positions, threads, html, console, as_json=as_json)
        return
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.sources.adapters import name_with_adapters

    options = chosen_reading(reading)
    named = name_with_adapters(model, options, revision=revision, token=token)
    reference = None
    if checkpoint is not None:
        reference = name_with_adapters(checkpoint, chosen_reading({}), token=token)
    request = RecipesRequest(
        named=named,
        recipes=names,
        texts=texts,
        positions=positions or RECIPE_POSITIONS,
        reference=reference,
        calibration=CalibrationOptions(calibration_tokens or OWN_TEXT.tokens, calibration),
        token=token,
    )
    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.exporting.comparison.identity import identity_of
        from llama_export.exporting.comparison.recipes import compare_recipes
        from llama_export.exporting.comparison.recommend import export_command, free_output
        from llama_export.exporting.comparison.recommend import recommend as choose
    comparison = compare_recipes(request, identity_of(command_line()), progress)
    answer = None if limit is None else choose(comparison, limit)
    command = None
    if answer is not None and answer.chosen is not None:
        which = [*(["--revision", revision] if revision else []), *reading_words(reading)]
        read = [word for file in calibration for word in ("--calibration", str(file))]
        read += ["--calibration-tokens", str(calibration_tokens)] if calibration_tokens else []
        place = free_output(model, answer.chosen.name)
        command = export_command(model, answer.chosen, place, which, read)
    # Shown first: a page that cannot be written must not cost the figures.
    if as_json:
        said = {} if answer is None else {"recommended": {**answer.to_json(), "command": command}}
        write_json({**comparison.to_json(), **said})
    else:
        from llama_export.cli.comparison_table import show_recipes

        show_recipes(comparison, answer)
    if html is not None:
        from llama_export.exporting.comparison.page import FIRST_LINE, recipes_page
        from llama_export.verification.report.layout import write_page

        write_page(recipes_page(comparison, answer, command), html, FIRST_LINE)
    if command is not None:
        console.print(f"\nNext:\n  {command}", soft_wrap=True)
    if answer is not None and answer.chosen is None:
        raise QuantizationError(answer.sentence, "allow more, or compare other recipes")


def chosen_limit(max_kl: float | None, budget_mb: float | None, *, asked: bool) -> Limit | None:
    """Return what a recommendation must keep to; None: none is wanted.

    Raises:
        UsageError: both limits, or a recommendation without one.
    """
    if max_kl is None and budget_mb is None and not asked:
        return None
    return Limit(max_kl, None if budget_mb is None else round(budget_mb * _MEGABYTE))


def _compare_bundles(
    bundles: tuple[Path, ...],
    texts: tuple[NamedText, ...],
    positions: int | None,
    threads: int | None,
    html: Path | None,
    console: Console,
    *,
    as_json: bool,
) -> None:
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.exporting.comparison.bundle_pair import open_pair

    progress = TerminalProgress(console)
    with progress.step("Opening the bundles"):
        pair = open_pair(*bundles)
    with progress.step("Starting PyTorch"):
        from llama_export.exporting.comparison.bundles import compare_bundles
        from llama_export.exporting.comparison.identity import identity_of
    comparison = compare_bundles(
        pair,
        texts,
        positions or BUNDLE_POSITIONS,
        threads,
        identity_of(command_line()),
        progress,
    )
    if as_json:
        write_json(comparison.to_json())
    else:
        from llama_export.cli.comparison_table import show_bundles

        show_bundles(comparison)
    if html is not None:
        from llama_export.exporting.comparison.page import FIRST_LINE, bundles_page
        from llama_export.verification.report.layout import write_page

        write_page(bundles_page(comparison), html, FIRST_LINE)


def _require_two(bundles: tuple[Path, ...]) -> None:
    if not bundles:
        message = "compare needs --model, whose recipes it compares, or two bundles"
        raise UsageError(message, "llama-export compare --model 3.2-1B --recipes int4,int8")
    if len(bundles) != 2:
        message = f"compare: expected two bundles, found {len(bundles)}"
        raise UsageError(message, "llama-export compare 3.2-1B/onnx 3.2-1B/executorch")


def _refuse_beside(chosen: str, others: Mapping[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if given:
        message = f"compare with {chosen} has no use for {given[0]}"
        raise UsageError(message, "compare recipes of a --model, or two bundles")


COMPARE = Verb(
    "compare",
    compare,
    (
        Section(
            "Model",
            (
                click.Option(
                    ["--model", "-m"],
                    help="3.2-1B, a hub id, a folder, or demo.",
                    shell_complete=complete_model,
                ),
                REVISION,
                TOKEN,
                click.Option(
                    ["--checkpoint"],
                    metavar="MODEL",
                    help="What the recipes are held against.",
                    shell_complete=complete_model,
                    show_default="the model itself",
                ),
            ),
        ),
        READING_SECTION,
        Section(
            "Recipes",
            (
                click.Option(
                    ["--recipes"],
                    metavar="RECIPES",
                    help="With commas: SCHEME[:gN][:tableFORM][:QUALITY], or recipe files.",
                    show_default=DEFAULT_RECIPES,
                ),
                QUALITY,
                CALIBRATION,
                CALIBRATION_TOKENS,
            ),
        ),
        Section(
            "Text that is read",
            (
                click.Option(
                    ["--text"],
                    type=PATH,
                    multiple=True,
                    metavar="FILE",
                    help="What the model is for; repeat it for a table each.",
                    show_default="the text that verify reads",
                ),
                click.Option(
                    ["--positions"],
                    type=click.IntRange(min=FEWEST_POSITIONS),
                    metavar="N",
                    help="Most tokens of each text.",
                    show_default=f"{RECIPE_POSITIONS}, of bundles {BUNDLE_POSITIONS}",
                ),
            ),
        ),
        Section(
            "Answer",
            (
                click.Option(
                    ["--recommend"],
                    is_flag=True,
                    help="Name the recipe that keeps to one of these; an error if none does.",
                ),
                click.Option(
                    ["--max-kl"],
                    type=click.FloatRange(min=0, min_open=True),
                    metavar="NATS",
                    help="The smallest whose KL, with its error, is at most so much.",
                ),
                click.Option(
                    ["--budget-mb"],
                    type=click.FloatRange(min=0, min_open=True),
                    metavar="MB",
                    help="The closest within so many millions of bytes of weights.",
                ),
                click.Option(
                    ["--html"], type=PATH, metavar="PAGE", help="Write it as a page, with a plot."
                ),
            ),
        ),
        Section("Run", (THREADS, JSON, VERBOSE)),
    ),
    positionals=(
        Positional(
            click.Argument(["bundles"], type=PATH, nargs=-1),
            "In place of --model: two bundles of one vocabulary.",
        ),
    ),
    gathered=READING_OPTIONS,
    examples=(
        "llama-export compare --model 3.2-1B --recipes int4:g32,int4:g128,int8,bf16",
        "llama-export compare --model 3.2-1B --text mine.txt --recommend --max-kl 0.03",
        "llama-export compare 3.2-1B/onnx 3.2-1B/executorch",
    ),
)
