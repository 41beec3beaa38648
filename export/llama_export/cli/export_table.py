"""An export on the screen: what all its bundles have alike once, and what tells them apart.

It knows rich and the shape of a result, and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from llama_export.cli.fitting import print_text, rows_of_terms, wrapped
from llama_export.cli.terminal import headlines, where_it_runs
from llama_export.system.byte_sizes import format_bytes
from llama_quantize.recipe import quality_words

if TYPE_CHECKING:
    # Both import torch.
    from llama_export.exporting.result import ExportedBundle, ExportResult

# Columns of a heading, so that three bundles and what is measured of them fit 80 columns.
_HEADING = 11
_VERIFIED = "verified"


def show_export(console: Console, result: ExportResult) -> None:
    """Print an export: a table of one bundle; of several what is equal, and a table of the rest."""
    title = f"{result.output} in {result.elapsed_s:.1f} s"
    found = {each.bundle.manifest.target: _facts(each) for each in result.bundles}
    if len(found) == 1:
        console.print(_of_one(title, found))
        return
    if all(Path(facts["bundle"]) == result.output / target for target, facts in found.items()):
        for facts in found.values():
            del facts["bundle"]  # the title and the target say it
    keys = dict.fromkeys(key for facts in found.values() for key in facts)
    # Whether it is proved stands beside each target.
    equal = [
        key
        for key in keys
        if key != _VERIFIED and len({facts.get(key) for facts in found.values()}) == 1
    ]
    first = next(iter(found.values()))
    print_text(console, title, indent="  ")
    if equal:
        # Wrapped already, for the screen that it is on.
        terms = rows_of_terms([(key, first[key]) for key in equal], console.width)
        console.print(terms, soft_wrap=True)
    console.print(_of_several(found, [key for key in keys if key not in equal]))


def _of_one(title: str, found: Mapping[str, Mapping[str, str]]) -> Table:
    ((target, facts),) = found.items()
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column(target, justify="right")
    for key, value in facts.items():
        table.add_row(key, value)
    return table


def _of_several(found: Mapping[str, Mapping[str, str]], keys: list[str]) -> Table:
    table = Table("target")
    for key in keys:
        # The last one has words, which may be broken; of figures none is.
        side: Literal["left", "right"] = "left" if key == _VERIFIED else "right"
        table.add_column(wrapped(key, _HEADING), justify=side)
    for target, facts in found.items():
        table.add_row(target, *(facts.get(key, "") for key in keys))
    return table


def _facts(exported: ExportedBundle) -> dict[str, str]:
    """Choose what a user wants to see of a bundle.

    The weights' signal to noise is not among it: a calibration gives some of it away for an answer
    that is nearer, so it would rank a better export below a worse one.
    """
    manifest = exported.bundle.manifest
    facts = {
        "bundle": str(exported.bundle.folder),
        "size": format_bytes(sum(entry.size_bytes for entry in manifest.files.values())),
        "recipe": _recipe(manifest.quantization),
        **_calibrated(manifest.quantization),
        "bits per weight": f"{manifest.quantization['bits_per_weight']:.2f}",
        "context": f"{manifest.spec.max_context} tokens",
    }
    if exported.report is None:
        why = "--no-verify" if manifest.runs_here else where_it_runs(runs_here=False)
        return {**facts, _VERIFIED: f"no ({why})"}
    return facts | headlines(exported.report)


def _recipe(quantization: Mapping[str, Any]) -> str:
    group_size = quantization["group_size"]
    return f"{quantization['recipe']}" + (f", groups of {group_size}" if group_size else "")


def _calibrated(quantization: Mapping[str, Any]) -> dict[str, str]:
    made = quantization.get("calibration")
    if made is None:
        return {}
    return {"quality": f"{quality_words(made['method'])}, calibrated on {made['tokens']} tokens"}
