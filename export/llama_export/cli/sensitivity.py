"""`llama-export sensitivity`: which linears int4 costs most, and a recipe within a budget."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.completion import complete_model
from llama_export.cli.options import JSON, PATH, REVISION, TOKEN, VERBOSE, open_console
from llama_export.cli.output import write_json
from llama_export.cli.reading_options import READING_OPTIONS, READING_SECTION, chosen_reading
from llama_export.cli.searched_recipe import (
    BUDGET_OPTIONS,
    SEARCH_TOKENS,
    chosen_budget,
    require_absent,
    show_costs,
    to_json,
    write_recipe,
)
from llama_export.cli.verb import NeededOption, Section, Verb
from llama_export.errors import OutputError, UsageError
from llama_quantize.recipe import QUALITIES, TABLES

if TYPE_CHECKING:
    from llama_export.calibration.recipe_search import Budget

_FEWEST_TOKENS = 512


def sensitivity(
    *,
    model: str | None,
    revision: str | None,
    token: str | None,
    reading: Mapping[str, object],
    calibration: tuple[Path, ...],
    calibration_tokens: int,
    quality: str,
    table: str | None,
    budget_mb: float | None,
    max_kl: float | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Measure which linears int4 costs most, and write a recipe that keeps to a budget."""
    if model is None:
        message = "sensitivity needs --model"
        raise UsageError(message, "llama-export sensitivity --model 3.2-1B")
    budget = chosen_budget(budget_mb, max_kl)
    if output is not None:
        _require_writable(output, budget, force=force)
    console = open_console(verbose)
    from llama_export.calibration.options import CalibrationOptions
    from llama_export.calibration.recipe_search import GAINS
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.sources.adapters import name_with_adapters

    named = name_with_adapters(model, chosen_reading(reading), revision=revision, token=token)
    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.exporting.search import measure_sensitivity
    options = CalibrationOptions(calibration_tokens, calibration)
    place = Path(tempfile.gettempdir()) if output is None else output.parent
    found = measure_sensitivity(named, options, place, progress, token=token, table=table)
    costs = found.costs.by_a_method(GAINS[quality])
    chosen = None if budget is None else costs.within(budget)
    if output is not None and chosen is not None:
        write_recipe(output, found, chosen)
    if as_json:
        write_json(to_json(found, costs, chosen))
        return
    show_costs(costs, chosen)
    if output is not None:
        command = shlex.join(["--model", model, "--recipe", str(output)])
        console.print(f"\nNext:\n  llama-export --target all {command}", soft_wrap=True)


def _require_writable(output: Path, budget: Budget | None, *, force: bool) -> None:
    """Refuse a recipe's file that cannot be, before minutes of work."""
    if budget is None:
        message = "--output: nothing says which recipe is wanted"
        raise UsageError(message, "say how large the weights may be, such as --budget-mb 700")
    require_absent(output, force=force)
    if not output.parent.is_dir():
        message = f"{output.parent} is no folder"
        raise OutputError(message, "make it first, or name another file")


SENSITIVITY = Verb(
    "sensitivity",
    sensitivity,
    (
        Section(
            "Model",
            (
                NeededOption(
                    ["--model", "-m"],
                    help="3.2-1B, a hub id, a folder, or demo.",
                    shell_complete=complete_model,
                ),
                REVISION,
                TOKEN,
            ),
        ),
        READING_SECTION,
        Section(
            "Text that is read",
            (
                click.Option(
                    ["--calibration"],
                    type=PATH,
                    multiple=True,
                    metavar="FILE",
                    help="Text in place of half of it, a file or a folder; repeat it for more.",
                    show_default="the model's own",
                ),
                click.Option(
                    ["--calibration-tokens"],
                    type=click.IntRange(min=_FEWEST_TOKENS),
                    default=SEARCH_TOKENS,
                    metavar="N",
                    help="Tokens of it.",
                    show_default=str(SEARCH_TOKENS),
                ),
            ),
        ),
        Section(
            "Recipe",
            (
                *BUDGET_OPTIONS,
                click.Option(
                    ["--quality"],
                    type=click.Choice(tuple(QUALITIES)),
                    default="good",
                    help="What the export will choose codes by.",
                    show_default="good",
                ),
                click.Option(
                    ["--table"],
                    type=click.Choice(TABLES),
                    help="Token table and output head, whose bytes count.",
                    show_default=TABLES[0],
                ),
                click.Option(
                    ["--output", "-o"],
                    type=PATH,
                    metavar="FILE",
                    help="Gets the recipe, for an export's --recipe.",
                ),
                click.Option(["--force"], is_flag=True, help="Replace that file."),
            ),
        ),
        Section("Run", (JSON, VERBOSE)),
    ),
    gathered=READING_OPTIONS,
    examples=(
        "llama-export sensitivity --model 3.2-1B",
        "llama-export sensitivity --model 3.2-1B --budget-mb 800 --output recipe.json",
    ),
)
