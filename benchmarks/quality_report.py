"""Write what quantising cost as JSON, as Markdown tables and as a plot of KL against bytes.

It knows figures and their layout; it does not know how they were measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from llama_export.sources.resolve import model_name
from llama_export.verification.estimate import Estimate, mean, ratio
from llama_export.verification.measure.yardstick import TextReading, TextWindows

mpl.use("agg")
from matplotlib import pyplot as plt

COLOURS = ("#8c959f", "#54aeff", "#9a6cd6", "#1f6feb", "#d4a72c", "#57606a")
MARKERS = "osD^vP"


@dataclass(frozen=True)
class Measured:
    """What one set of weights costs.

    Args:
        line: line of the plot that it is a point of.
        forms: storage forms of its linears.
        bits_per_weight: stored bits for each weight, scales included.
        size_bytes: stored bytes of all tensors.
        elapsed_s: time that quantising took; None: it was done before.
        calibration: what decided a calibration; empty: there was none.
        readings: what it makes of each text.
        rounded: the same of plain rounding into the same forms; None: it has no groups.
    """

    line: str
    forms: str
    bits_per_weight: float
    size_bytes: int
    elapsed_s: float | None
    calibration: Mapping[str, str]
    readings: tuple[TextReading, ...]
    rounded: tuple[TextReading, ...] | None

    @property
    def name(self) -> str:
        """Name of the row, with the seed of a calibration."""
        seed = self.calibration.get("seed")
        return f"{self.forms}, {self.line}" + (f", seed {seed}" if seed is not None else "")

    def kl(self, text: int) -> Estimate:
        """Return the mean KL on a text, by its number, in nats."""
        return mean(self.readings[text].kl)

    def gain(self, text: int) -> Estimate | None:
        """Return that KL over plain rounding's; None: there is no such thing."""
        if self.rounded is None:
            return None
        return ratio(self.readings[text].kl, self.rounded[text].kl)


@dataclass(frozen=True)
class QualityResults:
    """All figures of a model.

    Args:
        model: name of the model.
        texts: texts that were read.
        perplexities: perplexity of the checkpoint on each of them.
        measured: weights that were compared with it.
        machine: processor, threads and versions.
    """

    model: str
    texts: tuple[TextWindows, ...]
    perplexities: tuple[float, ...]
    measured: tuple[Measured, ...]
    machine: Mapping[str, str]

    @property
    def stem(self) -> str:
        """Name of the files, without their endings."""
        name = re.sub(r"[^a-z0-9.]+", "-", model_name(self.model).lower())
        return f"quantisation-{name}"


def write_results(folder: Path, results: QualityResults) -> None:
    """Write JSON, Markdown and a plot under the model's name."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(results), indent=2) + "\n"
    (folder / f"{results.stem}.json").write_text(text, encoding="utf-8")
    (folder / f"{results.stem}.md").write_text(markdown(results), encoding="utf-8")
    plot(results, folder / f"{results.stem}.png")


def to_json(results: QualityResults) -> dict[str, Any]:
    """Return all figures as plain data."""
    return {
        "model": results.model,
        "machine": dict(results.machine),
        "window": results.texts[0].ids.shape[1],
        "texts": {
            text.name: {"positions": text.positions, "perplexity": perplexity}
            for text, perplexity in zip(results.texts, results.perplexities, strict=True)
        },
        "weights": [
            {
                "name": each.name,
                "method": each.line,
                "bits_per_weight": each.bits_per_weight,
                "size_bytes": each.size_bytes,
                "quantising_s": each.elapsed_s,
                "calibration": dict(each.calibration),
                "texts": {
                    text.name: _figures(each, index) for index, text in enumerate(results.texts)
                },
            }
            for each in results.measured
        ],
    }


def markdown(results: QualityResults) -> str:
    """Return the figures as a Markdown table for each text."""
    machine = results.machine
    timed = any(each.elapsed_s is not None for each in results.measured)
    seconds = "Seconds are those of quantising, calibration included, on " if timed else "Made on "
    lines = [
        f"# What quantising costs: {results.model}",
        "",
        "Mean KL(checkpoint || weights), both in float32 by the eager model, over windows of "
        f"{results.texts[0].ids.shape[1]} tokens. After ± stands the standard error over windows. "
        "The ratio is to plain rounding into the same forms on the same windows, its error that "
        f"of the differences window by window. {seconds}{machine['cpu']}, threads: "
        f"{machine['threads']}.",
        "",
        f"![KL against bytes]({results.stem}.png)",
    ]
    for index, (text, perplexity) in enumerate(
        zip(results.texts, results.perplexities, strict=True)
    ):
        lines += [
            "",
            f"## {text.name}",
            "",
            f"{text.positions} positions; perplexity of the checkpoint {perplexity:.2f}.",
            "",
            "| weights | bits per weight | MB | KL nats | ratio to rounding | top-1 % "
            "| perplexity |" + (" s |" if timed else ""),
            "|---|---|---|---|---|---|---|" + ("---|" if timed else ""),
            *(_row(each, index, timed=timed) for each in results.measured),
        ]
    return "\n".join([*lines, ""])


def plot(results: QualityResults, path: Path) -> None:
    """Draw a panel for each text: KL against bytes, a line for each method."""
    count = len(results.texts)
    figure, panels = plt.subplots(1, count, figsize=(5.6 * count, 4.2), squeeze=False)
    for index, (axis, text) in enumerate(zip(panels[0], results.texts, strict=True)):
        for number, (line, points) in enumerate(_lines(results).items()):
            sizes = [each.size_bytes / 1e6 for each in points]
            kl = [each.kl(index) for each in points]
            style = {"color": COLOURS[number % len(COLOURS)]}
            # The line goes through the means of what has one size: seeds of a calibration.
            means = {
                size: [each.value for at, each in zip(sizes, kl, strict=True) if at == size]
                for size in sizes
            }
            axis.plot(
                list(means), [sum(each) / len(each) for each in means.values()], lw=1.4, **style
            )
            axis.errorbar(
                sizes,
                [each.value for each in kl],
                yerr=[each.error for each in kl],
                label=line,
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linewidth=0,
                elinewidth=1.0,
                capsize=3,
                **style,
            )
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:.3g}")
        axis.yaxis.set_minor_formatter("{x:.3g}")
        axis.set_xlabel("MB of weights")
        axis.set_ylabel("KL, nats")
        axis.set_title(text.name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", which="both", linewidth=0.3, color="#d0d7de")
    panels[0][0].legend(frameon=False, fontsize=9)
    figure.suptitle(results.model, fontsize=11)
    figure.tight_layout()
    # No date and no version: the same results give the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _lines(results: QualityResults) -> dict[str, list[Measured]]:
    """Group what has four bits by method, from the smallest; others would press it together."""
    lines: dict[str, list[Measured]] = {}
    for each in sorted(results.measured, key=lambda each: each.size_bytes):
        if "int4" in each.forms:
            lines.setdefault(each.line, []).append(each)
    order = list(dict.fromkeys(each.line for each in results.measured))
    return {line: lines[line] for line in order if line in lines}


def _row(each: Measured, index: int, *, timed: bool) -> str:
    kl, gain, reading = each.kl(index), each.gain(index), each.readings[index]
    digits = 5 if kl.value < 0.05 else 4
    cells = [
        each.name,
        f"{each.bits_per_weight:.2f}",
        f"{each.size_bytes / 1e6:.2f}",
        f"{kl.value:.{digits}f} ± {kl.error:.{digits}f}",
        "" if gain is None else f"{gain.value:.3f} ± {gain.error:.3f}",
        f"{100 * reading.top1.value:.1f}",
        f"{reading.perplexity.value:.2f}",
    ]
    if timed:
        cells.append("" if each.elapsed_s is None else f"{each.elapsed_s:.0f}")
    return f"| {' | '.join(cells)} |"


def _with_error(estimate: Estimate) -> Mapping[str, float]:
    return {"value": estimate.value, "error": estimate.error}


def _figures(each: Measured, index: int) -> Mapping[str, Any]:
    gain, reading = each.gain(index), each.readings[index]
    return {
        "kl": _with_error(each.kl(index)),
        "ratio_to_rounding": None if gain is None else _with_error(gain),
        "top1": reading.top1.value,
        "perplexity": reading.perplexity.value,
        "kl_of_windows": [float(f"{value:.6g}") for value in reading.kl],
    }
