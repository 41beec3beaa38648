"""Draw what weights cost against their size: points with error bars, and a line per text.

It knows sizes, figures and axes; it knows no recipe and no page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.verification.report.svg import SERIES, draw_svg, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEGABYTE = 1e6
_MARKERS = "osD^"
# Above a point and below the next one: sizes are often close.
_LABELS = (7, -15)
# Zero has no place on a logarithmic scale: it stands at this where nothing else is above it.
_NO_KL = 1e-7


@dataclass(frozen=True)
class Choice:
    """What was asked for, and what was chosen.

    Args:
        most_kl: largest KL in nats; None: no limit.
        most_bytes: largest size; None: no limit.
        size_bytes: stored bytes of the chosen point; None: none was.
        kl: its mean KL on each text; empty where none was chosen.
    """

    most_kl: float | None = None
    most_bytes: int | None = None
    size_bytes: int | None = None
    kl: tuple[float, ...] = ()


@dataclass(frozen=True)
class CostPoint:
    """One point.

    Args:
        label: what stands beside it; empty: nothing.
        size_bytes: stored bytes.
        kl: mean KL in nats.
        kl_error: its standard error.
    """

    label: str
    size_bytes: int
    kl: float
    kl_error: float


def cost_plot(
    texts: Sequence[tuple[str, Sequence[CostPoint]]], choice: Choice | None = None
) -> str:
    """Draw size against KL, as an `<svg>` element.

    Args:
        texts: name of each text, and its points.
        choice: limit and choice to mark; None: nothing was asked for.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    found = [each.kl for _, points in texts for each in points if each.kl > 0]
    floor = min(found, default=_NO_KL) / 10

    def draw(axes: Axes) -> None:
        for index, (name, points) in enumerate(texts):
            colour = SERIES[index % len(SERIES)]
            rising = sorted(points, key=lambda each: each.size_bytes)
            axes.errorbar(
                [each.size_bytes / _MEGABYTE for each in rising],
                [max(each.kl, floor) for each in rising],
                yerr=_bars(rising, floor),
                fmt=_MARKERS[index % len(_MARKERS)],
                color=colour,
                ecolor=colour,
                capsize=3,
                label=name,
            )
            for place, each in enumerate(rising if index == 0 else ()):
                axes.annotate(
                    each.label if each.kl > 0 or not each.label else f"{each.label}, KL 0",
                    (each.size_bytes / _MEGABYTE, max(each.kl, floor)),
                    xytext=(6, _LABELS[place % 2]),
                    textcoords="offset points",
                    parse_math=False,  # a name is never a formula
                )
        axes.set_yscale("log")
        if choice is not None:
            _mark(axes, choice, floor)
        axes.margins(x=0.22, y=0.12)
        axes.set_xlabel("size of the weights, MB")
        axes.set_ylabel("KL, nats")
        if len(texts) > 1:
            legend_above(axes, columns=2)
        if (legend := axes.get_legend()) is not None:
            for label in legend.get_texts():
                label.set_parse_math(False)

    return draw_svg("cost", draw, height_in=4.2)


def _mark(axes: Axes, choice: Choice, floor: float) -> None:
    """Draw the limit as a dashed line, and a ring around what was chosen."""
    if choice.most_kl is not None:
        axes.axhline(max(choice.most_kl, floor), linestyle="--", linewidth=1, color=SERIES[2])
    if choice.most_bytes is not None:
        axes.axvline(choice.most_bytes / _MEGABYTE, linestyle="--", linewidth=1, color=SERIES[2])
    if choice.size_bytes is not None:
        axes.plot(
            [choice.size_bytes / _MEGABYTE] * len(choice.kl),
            [max(each, floor) for each in choice.kl],
            "o",
            markersize=15,
            markerfacecolor="none",
            markeredgecolor=SERIES[2],
        )


def _bars(points: Sequence[CostPoint], floor: float) -> list[list[float]]:
    """Return the lengths of the bars down and up; none goes below what the scale has."""
    down = [min(each.kl_error, max(each.kl - floor, 0.0)) for each in points]
    return [down, [each.kl_error for each in points]]
