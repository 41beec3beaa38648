"""Write a comparison's results as JSON, as a Markdown table and as a plot.

It knows figures and their layout; it does not know how they were measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

COLOURS = ("#1f6feb", "#54aeff", "#9a6cd6", "#8c959f", "#57606a", "#d4a72c")


@dataclass(frozen=True)
class Report:
    """The texts around the results.

    Args:
        name: stem of the files' names.
        title: heading of the report.
        notes: Markdown after the tables, about what is alike and what is not.
    """

    name: str
    title: str
    notes: str


def write_report(folder: Path, results: Mapping[str, Any], report: Report) -> None:
    """Write NAME.json, NAME.md and NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2) + "\n"
    (folder / f"{report.name}.json").write_text(text, encoding="utf-8")
    (folder / f"{report.name}.md").write_text(markdown(results, report), encoding="utf-8")
    plot(results, folder / f"{report.name}.png")


def markdown(results: Mapping[str, Any], report: Report) -> str:
    """Return the figures as Markdown tables."""
    machine = results["machine"]
    bandwidth = machine["read_bandwidth"]["best_bytes_per_s"] / 1e9
    questions = list(next(iter(results["contestants"].values()))["tokens_per_s"])
    lines = [
        f"# {report.title}",
        "",
        f"{machine['cpu']}, {machine['processors']} processors, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, reads {bandwidth:.1f} GB/s; Linux "
        f"{machine['kernel']}, huge pages {machine['transparent_huge_pages']}; "
        f"{machine['threads']} threads; {results['rounds']} rounds, everybody in turn. Others used "
        f"{max(results['other_processes_cores']):.2f} cores at most. Tokens a second, median "
        "[range].",
        "",
        f"![plot]({report.name}.png)",
        "",
        "| | " + " | ".join(questions) + " |",
        "|---|" + "---|" * len(questions),
    ]
    for name, found in results["contestants"].items():
        cells = [_range(found["tokens_per_s"][key], 1) for key in questions]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| ratio, within a round | " + " | ".join(questions) + " |"]
    lines.append("|---|" + "---|" * len(questions))
    for name, found in results["ratios"].items():
        if "median" in found:
            continue
        cells = [_range(found[key], 2) for key in questions]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for name, found in results["ratios"].items():
        if "median" in found:
            lines.append(f"{name}: {_range(found, 2)}.")
    lines += [
        "",
        "| | export s | its peak memory, anonymous | size | load s | resident before load "
        "| after | of that anonymous | peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results["contestants"].items():
        lines.append(
            f"| {name} | {found['export_s']} | {found['export_peak_anonymous_bytes'] / 1e9:.2f} GB "
            f"| {found['size_bytes'] / 1e6:.0f} MB | {found['load_s']:.1f} "
            f"| {found['before_load']['resident_bytes'] / 1e6:.0f} MB "
            f"| {found['resident_bytes'] / 1e6:.0f} MB "
            f"| {found['anonymous_bytes'] / 1e6:.0f} MB "
            f"| {found['peak_resident_bytes'] / 1e6:.0f} MB |"
        )
    lines += ["", report.notes]
    engines = sorted({found["engine"] for found in results["contestants"].values()})
    return "\n".join([*lines, "", "Engines: " + "; ".join(engines) + ".", ""])


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw a panel for each question, with a bar and a range for each contestant."""
    contestants = results["contestants"]
    questions = list(next(iter(contestants.values()))["tokens_per_s"])
    figure, axes = plt.subplots(1, len(questions), figsize=(11, 3.2), sharey=True)
    names = list(contestants)
    for axis, key in zip(axes, questions, strict=True):
        for row, name in enumerate(names):
            speed = contestants[name]["tokens_per_s"][key]
            spread = [[speed["median"] - speed["min"]], [speed["max"] - speed["median"]]]
            colour = COLOURS[row % len(COLOURS)]
            axis.barh(row, speed["median"], xerr=spread, color=colour, ecolor="#57606a")
            label = f" {speed['median']:.0f}"
            axis.text(speed["max"], row, label, va="center", fontsize=8)
        axis.set_title(f"{key}, tokens/s", fontsize=10)
        axis.set_yticks(range(len(names)), names, fontsize=9)
        axis.margins(x=0.16)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.tight_layout()
    # No date and no version: the same results give the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _range(found: Mapping[str, float], digits: int) -> str:
    low, high = found["min"], found["max"]
    return f"**{found['median']:.{digits}f}** [{low:.{digits}f}-{high:.{digits}f}]"
