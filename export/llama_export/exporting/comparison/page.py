"""Write a comparison as one HTML file that needs nothing else: no script, no request, no font.

The page comes from a template that escapes whatever it is handed; its tables have the sentences
of `wording`. The same comparison makes the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llama_export.exporting.comparison.wording import (
    Table,
    bundle_tables,
    bundles_title,
    facts_of,
    recipe_facts,
    recipe_tables,
    recipes_title,
)
from llama_export.verification.report.layout import fill_page
from llama_export.verification.report.svg import require_matplotlib
from llama_quantize.printable import printable

if TYPE_CHECKING:
    from llama_export.exporting.comparison.figures import BundleComparison, RecipeComparison
    from llama_export.exporting.comparison.identity import Identity
    from llama_export.exporting.comparison.recommend import Recommendation

# The first line of every page, by which a page is known as ours.
FIRST_LINE = "<!doctype html><!-- a comparison of llama-export -->"


def recipes_page(
    comparison: RecipeComparison, answer: Recommendation | None, command: str | None
) -> str:
    """Lay recipes out as a page.

    Args:
        comparison: what was measured.
        answer: recommendation that was asked for; None: none was.
        command: export with the recommended recipe; None: there is none.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    from llama_export.verification.report.cost_plot import Choice, CostPoint, cost_plot

    require_matplotlib()
    points = [
        (
            _drawable(text.name),
            [
                CostPoint(_drawable(each.name), each.size_bytes, kl.value, kl.error)
                for each in comparison.recipes
                for kl in (each.texts[index].kl,)
            ],
        )
        for index, text in enumerate(comparison.texts)
    ]
    title, subtitle = recipes_title(comparison)
    choice = None
    if answer is not None:
        limit, chosen = answer.limit, answer.chosen
        choice = Choice(limit.most_kl, limit.most_bytes)
        if chosen is not None:
            kl = tuple(text.kl.value for text in chosen.texts)
            choice = replace(choice, size_bytes=chosen.size_bytes, kl=kl)
    return _render(
        (title, subtitle),
        recipe_tables(comparison),
        comparison.identity,
        answer="" if answer is None else answer.sentence,
        good=answer is not None and answer.chosen is not None,
        command=command or "",
        plot=cost_plot(points, choice),
        facts=(
            *facts_of(comparison.texts, comparison.origin),
            *recipe_facts(comparison.recipes),
        ),
    )


def bundles_page(comparison: BundleComparison) -> str:
    """Lay two bundles out as a page."""
    return _render(
        bundles_title(comparison),
        bundle_tables(comparison),
        comparison.identity,
        facts=facts_of(comparison.texts, {}),
    )


def _drawable(name: str) -> str:
    """Return a name of anybody's in letters that the plot's font has."""
    return printable(name).encode("ascii", errors="replace").decode("ascii")


def _render(
    titles: tuple[str, str],
    tables: tuple[Table, ...],
    identity: Identity,
    *,
    facts: tuple[tuple[str, str], ...],
    answer: str = "",
    good: bool = False,
    command: str = "",
    plot: str = "",
) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in identity.versions.items())
    made = (
        ("Command", identity.command),
        ("Versions", versions),
        ("Processor", f"{identity.processor}, {identity.threads} threads of torch"),
        *((("Date", identity.date),) if identity.date else ()),
    )
    return fill_page(
        __name__.rpartition(".")[0],
        {
            "first_line": FIRST_LINE,
            "title": titles[0],
            "subtitle": titles[1],
            "answer": answer,
            "good": good,
            "command": command,
            "plot": plot,
            "plot_label": f"Size against KL. {titles[0]}",
            "tables": tables,
            "facts": (*facts, *made),
        },
    )
