"""The words and cells of a comparison, which a terminal and a page show alike.

It knows figures and sentences; it knows neither rich nor HTML.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llama_export.exporting.comparison.figures import (
    BundleComparison,
    JudgedPhone,
    LinearCost,
    ReadText,
    RecipeComparison,
    RecipeFigures,
    TextFigures,
)

_MEGABYTE = 1e6
_HASH_SHOWN = 16
TIMES = "\N{MULTIPLICATION SIGN}"
FIGURE_HEADS = ("recipe", "MB", "bits", "KL, nats", "same token, %", "perplexity")


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Args:
        title: what it shows.
        note: a line below the title; empty: none.
        heads: headings of the columns.
        rows: cells, the first of which names the row.
        numbers: whether all other columns hold numbers.
    """

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = True


def recipes_title(comparison: RecipeComparison) -> tuple[str, str]:
    """Return what recipes' page is called, and what is compared."""
    count = len(comparison.recipes)
    return (
        f"{comparison.model}: {count} recipe{'' if count == 1 else 's'}",
        f"How far quantised weights are from those of {comparison.reference}, both in PyTorch.",
    )


def bundles_title(comparison: BundleComparison) -> tuple[str, str]:
    """Return what two bundles' page is called, and what is compared."""
    one, other = comparison.bundles
    return (
        f"{one.name} and {other.name}",
        "Two bundles as they run, token by token, each held against the other.",
    )


def text_note(text: ReadText, reference: str) -> str:
    """Return how much was read of a text, and how well the reference predicts it."""
    return (
        f"{text.positions} positions in windows of {text.window}, {text.blocks} blocks; "
        f"perplexity of {reference} {text.perplexity.shown()}"
    )


def recipe_tables(comparison: RecipeComparison) -> tuple[Table, ...]:
    """Return a page's tables: one a text, then what costs most, and the phones."""
    figures = [
        Table(
            f"On {text.name}",
            text_note(text, comparison.reference),
            (*FIGURE_HEADS, "over the reference's", "KL, 90 %", "KL, 99 %", "KL, most"),
            tuple(
                (
                    *recipe_cells(each),
                    *figure_cells(each.texts[index]),
                    each.texts[index].perplexity.shown(),
                    f"{TIMES} {each.texts[index].ratio.shown()}",
                    *_tail_cells(each.texts[index]),
                )
                for each in comparison.recipes
            ),
        )
        for index, text in enumerate(comparison.texts)
    ]
    costs = Table(
        "What costs most",
        "The linears whose form costs most, and their share of what all linears cost together, "
        "foretold from the first text.",
        ("recipe", "linears"),
        tuple((each.name, shown_costs(each.costliest)) for each in comparison.recipes),
        numbers=False,
    )
    return (*figures, costs, *_phone_tables(comparison.recipes))


def bundle_tables(comparison: BundleComparison) -> tuple[Table, ...]:
    """Return the tables of two bundles, one a text."""
    one, other = comparison.bundles
    heads = ("bundle", "MB", "KL, nats", "same token, %", "perplexity", "over the other's")
    return tuple(
        Table(
            f"On {text.name}",
            f"{text.positions} positions in windows of {text.window}, {text.blocks} blocks; "
            "each with the other as the reference",
            heads,
            tuple(
                (
                    each.name,
                    f"{each.size_bytes / _MEGABYTE:.1f}",
                    *figure_cells(each.texts[index]),
                    each.texts[index].perplexity.shown(),
                    f"{TIMES} {each.texts[index].ratio.shown()}",
                )
                for each in (one, other)
            ),
        )
        for index, text in enumerate(comparison.texts)
    )


def recipe_cells(figures: RecipeFigures) -> tuple[str, str, str]:
    """Return a recipe's name, its size and its bits a weight."""
    size = f"{figures.size_bytes / _MEGABYTE:.1f}"
    return figures.name, size, f"{figures.bits_per_weight:.2f}"


def size_line(figures: RecipeFigures) -> str:
    """Return a recipe's size and its bits a weight in a line."""
    _, size, bits = recipe_cells(figures)
    return f"{size} MB, {bits} bits"


def figure_cells(figures: TextFigures) -> tuple[str, str]:
    """Return KL and the share of equal tokens."""
    return figures.kl.shown(), figures.top1.shown(100)


def shown_costs(costs: Sequence[LinearCost]) -> str:
    """Return the linears that cost most, each with its layer and share."""
    return ", ".join(f"{short_name(each.name)} {each.share:.1%}" for each in costs) or "-"


def short_name(name: str) -> str:
    """Return a linear's layer and its own name, such as "3 down_proj"."""
    *_, layer, _, own, _ = name.split(".")
    return f"{layer} {own}"


def shown_phones(phones: Sequence[JudgedPhone]) -> str:
    """Count the phones by whether a bundle fits."""
    if not phones:
        return "-"
    counts = Counter(each.fits for each in phones)
    return ", ".join(f"{counts[word]} {word}" for word in ("yes", "perhaps", "no") if counts[word])


def facts_of(texts: Sequence[ReadText], origin: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what was read, and where the model comes from, by name."""
    named = [(f"Text {each.name}", f"sha256 {each.sha256[:_HASH_SHOWN]}") for each in texts]
    return (*((key.replace("_", " "), value) for key, value in origin.items()), *named)


def recipe_facts(recipes: Sequence[RecipeFigures]) -> tuple[tuple[str, str], ...]:
    """Return what each recipe is to the rule: its rules' hash, and that of what it read."""
    found = []
    for each in recipes:
        rules = json.dumps(each.rules, sort_keys=True).encode("utf-8")
        said = f"rules sha256 {hashlib.sha256(rules).hexdigest()[:_HASH_SHOWN]}"
        if read := each.calibration.get("ids_sha256"):
            said += f", calibrated on ids sha256 {read[:_HASH_SHOWN]}"
        found.append((f"Recipe {each.name}", said))
    return tuple(found)


def _tail_cells(figures: TextFigures) -> tuple[str, str, str]:
    return f"{figures.kl_p90:.2g}", f"{figures.kl_p99:.2g}", f"{figures.kl_max:.2g}"


def _phone_tables(recipes: Sequence[RecipeFigures]) -> tuple[Table, ...]:
    """Return whether each phone could hold each recipe, and the bound on its tokens a second."""
    judged = [each for each in recipes if each.phones]
    if not judged:
        return ()
    names = dict.fromkeys(phone.name for each in judged for phone in each.phones)
    by_recipe = [{phone.name: phone for phone in each.phones} for each in judged]
    rows = tuple((name, *(_phone_cell(phones.get(name)) for phones in by_recipe)) for name in names)
    note = (
        "Whether the memory suffices at a context of 1024, and the most tokens a second that its "
        "speed allows. This is arithmetic: nothing ran on a phone."
    )
    return (Table("Phones", note, ("phone", *(each.name for each in judged)), rows),)


def _phone_cell(phone: JudgedPhone | None) -> str:
    if phone is None:
        return "-"
    return phone.fits if phone.tokens_per_s is None else f"{phone.fits}, {phone.tokens_per_s:.0f}"
