"""A recipe that is searched within a budget: its options, its tables, and its file.

Two commands search one: `sensitivity`, and an export with a budget.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from llama_export.calibration.recipe_search import Assignment, Budget, FormCosts
    from llama_export.exporting.request import ExportRequest
    from llama_export.exporting.search import Sensitivity

SEARCH_TOKENS = 8192
"""Tokens that costs are measured on, where nobody says how many."""
FOUND_RECIPE = "recipe.json"
"""Name of the searched recipe's file in an export's output."""
_SHOWN = 10
_MEGABYTE = 1e6

BUDGET_OPTIONS = (
    click.Option(
        ["--budget-mb"],
        type=click.FloatRange(min=0, min_open=True),
        metavar="MB",
        help="Search the recipe of least cost within so many millions of bytes of weights.",
    ),
    click.Option(
        ["--max-kl"],
        type=click.FloatRange(min=0, min_open=True),
        metavar="NATS",
        help="Search the smallest recipe that costs at most so much.",
    ),
)


def chosen_budget(budget_mb: float | None, max_kl: float | None) -> Budget | None:
    """Return what was asked for; None: nothing was.

    Raises:
        UsageError: a size and a cost.
    """
    if budget_mb is None and max_kl is None:
        return None
    from llama_export.calibration.recipe_search import Budget

    return Budget(None if budget_mb is None else round(budget_mb * _MEGABYTE), max_kl)


def with_searched_recipe(
    request: ExportRequest, budget: Budget, console: Console, *, dry_run: bool, as_json: bool
) -> ExportRequest:
    """Search a recipe for an export, and write it where the export will be.

    Args:
        request: export without a recipe of its own.
        budget: what the recipe has to keep to.
        console: where the steps are shown.
        dry_run: whether the plan alone is wanted, which is not known before the search.
        as_json: whether the costs are left out of stdout, which holds JSON alone.

    Returns:
        The request with the recipe that was found.

    Raises:
        UsageError: the request names a recipe, nothing keeps to the budget, or it is a dry run.
        OutputError: the recipe's file exists or cannot be written.
        LlamaExportError: as `plan_export`, and as `measure_sensitivity`.
    """
    from llama_export.calibration.recipe_search import GAINS
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.exporting.plan import plan_export

    if dry_run:
        message = "--dry-run: nothing is known of a recipe before it is searched"
        raise UsageError(message, "llama-export sensitivity searches it; then pass --recipe")
    if any(each is not None for each in (request.recipe, request.group_size, request.recipe_file)):
        message = "--budget-mb and --max-kl search a recipe, and --quantize, --group-size or "
        message += "--recipe name one"
        raise UsageError(message, "leave the one or the other out")
    file = request.output_folder / FOUND_RECIPE
    require_absent(file, force=request.force)
    # What can be refused is refused before the search.
    plan = plan_export(request)
    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.exporting.search import measure_sensitivity
    file.parent.mkdir(parents=True, exist_ok=True)
    options = replace(request.calibration, tokens=min(SEARCH_TOKENS, request.calibration.tokens))
    found = measure_sensitivity(
        plan.named, options, file.parent, progress, token=request.token, table=request.table
    )
    costs = found.costs.by_a_method(GAINS[request.quality or "good"])
    chosen = costs.within(budget)
    write_recipe(file, found, chosen)
    if not as_json:
        show_costs(costs, chosen)
    return replace(request, recipe_file=file, table=None)


def require_absent(file: Path, *, force: bool) -> None:
    """Refuse a recipe's file that would be overwritten.

    Raises:
        OutputError: there is one, or something else of that name.
    """
    if file.exists() and not (force and file.is_file()):
        message = f"{file} already exists"
        raise OutputError(message, "pass --force to replace the file, or name another place")


def write_recipe(file: Path, found: Sensitivity, chosen: Assignment) -> None:
    """Write the recipe of what was chosen, named like its file and its budget.

    Raises:
        OutputError: the file cannot be written.
    """
    from llama_export.calibration.recipe_search import recipe_of

    note = (
        f"{found.model}, {chosen.label}: {chosen.size_bytes} bytes of weights, "
        f"{chosen.kl:.3g} nats foretold"
    )
    written = recipe_of(chosen, f"searched, {chosen.label}", note, found.table)
    try:
        file.write_text(written.to_text(), encoding="utf-8")
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror or error}"
        raise OutputError(message, "name another file") from error


def show_costs(costs: FormCosts, chosen: Assignment | None) -> None:
    """Print what costs most, and what all of it comes to."""
    from llama_export.cli.console import results

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
