"""Lay comparisons out for a terminal of 80 columns. It measures and judges nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_export.cli.console import results
from llama_export.exporting.comparison.wording import (
    TIMES,
    bundle_tables,
    figure_cells,
    recipes_title,
    shown_costs,
    shown_phones,
    size_line,
    text_note,
)

_HEADS = ("recipe", "KL, nats", "same token, %", "perplexity")

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.exporting.comparison.figures import BundleComparison, RecipeComparison
    from llama_export.exporting.comparison.recommend import Recommendation


def show_recipes(comparison: RecipeComparison, answer: Recommendation | None) -> None:
    """Print recipes: a table for each text, what costs most, and the recommendation."""
    console = results()
    for line in recipes_title(comparison):
        console.print(line)
    for index, text in enumerate(comparison.texts):
        table = _table(f"{text.name}: {text_note(text, comparison.reference)}", _HEADS)
        for each in comparison.recipes:
            figures = each.texts[index]
            perplexity = f"{figures.perplexity.shown()}\n{TIMES} {figures.ratio.shown()}"
            table.add_row(f"{each.name}\n{size_line(each)}", *figure_cells(figures), perplexity)
        console.print(table)
    console.print(_costs(comparison))
    if answer is not None and answer.chosen is not None:
        console.print(answer.sentence)


def show_bundles(comparison: BundleComparison) -> None:
    """Print two bundles, each held against the other."""
    console = results()
    for each in bundle_tables(comparison):
        *heads, _ = each.heads
        table = _table(f"{each.title}: {each.note}", heads)
        for *cells, perplexity, over in each.rows:
            table.add_row(*cells, f"{perplexity}\n{over}")
        console.print(table)


def _costs(comparison: RecipeComparison) -> Table:
    table = _table("Phones that hold it, and the linears that cost most", ("recipe", "phones"))
    table.add_column("share of the cost of all linears", overflow="fold")
    for each in comparison.recipes:
        table.add_row(each.name, shown_phones(each.phones), shown_costs(each.costliest))
    return table


def _table(title: str, heads: tuple[str, ...] | list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=f"\n{title}", title_justify="left", title_style="", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(heads):
        # Of a row only its name may be broken: a number that is cut is another number.
        table.add_column(
            heading, justify="right" if index else "left", no_wrap=index > 0, overflow="fold"
        )
    return table
