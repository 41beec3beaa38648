"""`llama-export sensitivity`: which linears int4 costs most, and a recipe within a budget."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.options import JSON, PATH, VERBOSE, open_console
from llama_export.cli.reading_options import READING_OPTIONS, READING_SECTION, chosen_reading
from llama_export.cli.verb import Section, Verb
from llama_export.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.calibration.recipe_search import Assignment, Budget, FormCosts
    from llama_export.exporting.search import Sensitivity

_DEFAULT_TOKENS = 8192
_FEWEST_TOKENS = 512
_SHOWN = 10
_QUALITIES = ("fast", "good", "best")
_MEGABYTE = 1e6


def sensitivity(
    *,
    model: str | None,
    revision: str | None,
    token: str | None,
    reading: Mapping[str, object],
    calibration: tuple[Path, ...],
    calibration_tokens: int,
    quality: str,
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
    budget = _budget(budget_mb, max_kl)
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
    place = Path() if output is None else output.parent
    found = measure_sensitivity(named, token, options, place, progress)
    costs = found.costs.by_a_method(GAINS[quality])
    chosen = None if budget is None else costs.within(budget)
    if output is not None and chosen is not None:
        _write(output, found, chosen)
    _show(found, costs, chosen, as_json=as_json)
    if output is not None and not as_json:
        command = shlex.join(["--model", model, "--recipe", str(output)])
        console.print(f"\nNext:\n  llama-export --target all {command}", soft_wrap=True)


def _budget(budget_mb: float | None, max_kl: float | None) -> Budget | None:
    from llama_export.calibration.recipe_search import Budget

    if budget_mb is None and max_kl is None:
        return None
    return Budget(None if budget_mb is None else round(budget_mb * _MEGABYTE), max_kl)


def _require_writable(output: Path, budget: Budget | None, *, force: bool) -> None:
    """Refuse a recipe's file that cannot be, before minutes of work."""
    if budget is None:
        message = "--output: nothing says which recipe is wanted"
        raise UsageError(message, "say how large the weights may be, such as --budget-mb 700")
    if output.exists() and not (force and output.is_file()):
        message = f"{output} already exists"
        raise OutputError(message, "pass --force to replace the file, or name another")
    if not output.parent.is_dir():
        message = f"{output.parent} is no folder"
        raise OutputError(message, "make it first, or name another file")


def _write(output: Path, found: Sensitivity, chosen: Assignment) -> None:
    from llama_export.calibration.recipe_search import recipe_of

    note = (
        f"{found.model}, {chosen.label}: {chosen.size_bytes} bytes of weights, "
        f"{chosen.kl:.3g} nats foretold"
    )
    written = recipe_of(chosen, output.stem, note)
    try:
        output.write_text(written.to_text(), encoding="utf-8")
    except OSError as error:
        message = f"{output} cannot be written: {error.strerror or error}"
        raise OutputError(message, "name another file") from error


def _show(
    found: Sensitivity, costs: FormCosts, chosen: Assignment | None, *, as_json: bool
) -> None:
    from llama_export.cli.console import results
    from llama_export.cli.output import write_json

    if as_json:
        write_json(to_json(found, costs, chosen))
        return
    console = results()
    console.print(cost_table(costs, chosen))
    console.print(total_table(costs, chosen))


def to_json(found: Sensitivity, costs: FormCosts, chosen: Assignment | None) -> dict[str, object]:
    """Return all costs, the totals of one form for all, and what was chosen."""
    return {
        "format_version": 1,
        "model": found.model,
        "origin": dict(found.origin),
        "fixed_bytes": costs.fixed_bytes,
        "linears": {
            name: {
                each.scheme.label: {"size_bytes": each.size_bytes, "predicted_kl": each.cost}
                for each in row
            }
            for name, row in costs.choices.items()
        },
        "uniform": [each.to_json() for each in costs.uniform()],
        "chosen": None
        if chosen is None
        else {
            **chosen.to_json(),
            "linears": {name: each.scheme.label for name, each in chosen.forms.items()},
        },
    }


def cost_table(costs: FormCosts, chosen: Assignment | None) -> Table:
    """List the linears that cost most, with each form's cost."""
    from rich import box
    from rich.table import Table

    labels = dict.fromkeys(each.scheme.label for row in costs.choices.values() for each in row)
    table = Table(
        title=f"What costs most of {len(costs.choices)} linears, in nats / 1000; g is int4",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("layer", no_wrap=True)
    for label in labels:
        table.add_column(label.removeprefix("int4 "), justify="right", no_wrap=True)
    if chosen is not None:
        table.add_column("chosen", no_wrap=True)
    for name in costs.costliest()[:_SHOWN]:
        by_label = {each.scheme.label: each.cost for each in costs.choices[name]}
        cells = [f"{1e3 * by_label[each]:.3f}" if each in by_label else "-" for each in labels]
        forms = [] if chosen is None else [chosen.forms[name].scheme.label]
        table.add_row(_short(name), *cells, *forms)
    return table


def total_table(costs: FormCosts, chosen: Assignment | None) -> Table:
    """Compare one form for all linears with what was chosen."""
    from rich import box
    from rich.table import Table

    table = Table(title="All linears together", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "linears", "all weights", "KL foretold"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for each in costs.uniform():
        table.add_row(each.label, str(len(each.forms)), _size(each), f"{each.kl:.4f}")
    if chosen is not None:
        table.add_section()
        table.add_row(chosen.label, str(len(chosen.forms)), _size(chosen), f"{chosen.kl:.4f}")
        for label, count in chosen.counts().items():
            table.add_row(f"  {label}", str(count), "", "")
    return table


def _size(assignment: Assignment) -> str:
    return f"{assignment.size_bytes / _MEGABYTE:.2f} MB"


def _short(name: str) -> str:
    """Return a linear's layer and its own name, such as "3 down_proj"."""
    *_, layer, _, own, _ = name.split(".")
    return f"{layer} {own}"


SENSITIVITY = Verb(
    "sensitivity",
    sensitivity,
    (
        Section(
            "Model",
            (
                click.Option(["--model", "-m"], help="3.2-1B, a hub id, a folder, or demo."),
                click.Option(["--revision"], help="Branch, tag or commit of a hub repository."),
                click.Option(
                    ["--token"], help="Hub token.", show_default="HF_TOKEN, or the saved login"
                ),
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
                    default=_DEFAULT_TOKENS,
                    metavar="N",
                    help="Tokens of it.",
                    show_default=str(_DEFAULT_TOKENS),
                ),
            ),
        ),
        Section(
            "Recipe",
            (
                click.Option(
                    ["--budget-mb"],
                    type=click.FloatRange(min=0, min_open=True),
                    metavar="MB",
                    help="Least cost of weights that have at most so many millions of bytes.",
                ),
                click.Option(
                    ["--max-kl"],
                    type=click.FloatRange(min=0, min_open=True),
                    metavar="NATS",
                    help="Fewest bytes that cost at most so many nats.",
                ),
                click.Option(
                    ["--quality"],
                    type=click.Choice(_QUALITIES),
                    default="good",
                    help="What the export will choose codes by.",
                    show_default="good",
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
