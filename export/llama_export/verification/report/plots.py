"""Draw the report's plots, each with a sentence on how to read it.

It knows a verification's plot data and axes; it knows neither the page nor how axes become SVG.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.verification.findings import PlotData, TensorFigure
from llama_export.verification.report.svg import (
    INK,
    SERIES,
    draw_svg,
    legend_above,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More points than this across a phone only make it grey.
_MOST_POINTS = 120
# float64's own rounding of a KL; a logarithm of zero has no place on the paper.
_SMALLEST_KL = 1e-17

# Term -> its label, colour and dashes: told apart without colour too.
_TERMS: Mapping[str, tuple[str, str, str]] = {
    "quantisation": ("quantisation", SERIES[0], "-"),
    "activation": ("activation rounding", SERIES[1], "--"),
    "lowering_shipped": ("both, as shipped", SERIES[2], ":"),
    "lowering_exact": ("lowering", SERIES[3], "-."),
}

# What a tensor's name holds -> label, marker, colour.
_KINDS: Mapping[str, tuple[str, str, str]] = {
    "q_proj": ("q", "o", SERIES[0]),
    "k_proj": ("k", "s", SERIES[0]),
    "v_proj": ("v", "^", SERIES[0]),
    "o_proj": ("o", "D", SERIES[1]),
    "gate_proj": ("gate", "v", SERIES[2]),
    "up_proj": ("up", "P", SERIES[2]),
    "down_proj": ("down", "X", SERIES[3]),
}
_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Args:
        key: identifier, unique on a page.
        title: name of what it shows.
        reading: sentence or two on how to read it.
        description: summary for readers who cannot see it.
        svg: `<svg>` element.
    """

    key: str
    title: str
    reading: str
    description: str
    svg: str


def draw_plots(plot_data: PlotData) -> tuple[Plot, ...]:
    """Draw every plot that there are figures for.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    require_matplotlib()
    drawn = (_kl_plot(plot_data), _scatter_plot(plot_data), _sqnr_plot(plot_data))
    return tuple(plot for plot in (*drawn, *_breakdowns(plot_data)) if plot is not None)


def tensor_order(tensors: Sequence[TensorFigure]) -> list[TensorFigure]:
    """Sort by layer, keeping the order within one; what precedes the layers comes first."""
    return sorted(tensors, key=lambda tensor: _layer(tensor.name))


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else -1


def _kl_plot(plot_data: PlotData) -> Plot | None:
    shown = {
        name: [max(value, _SMALLEST_KL) if math.isfinite(value) else math.nan for value in values]
        for name, values in plot_data.kl_by_position.items()
        if name in _TERMS and any(map(math.isfinite, values))
    }
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for name in (name for name in _TERMS if name in shown):
            label, colour, dashes = _TERMS[name]
            line = _thinned(shown[name])
            axes.fill_between(line.position, line.low, line.high, color=colour, alpha=0.16, lw=0)
            axes.plot(line.position, line.mean, dashes, color=colour, lw=1.8, label=label)
        axes.set_yscale("log")
        axes.set_xlabel("position in the text")
        axes.set_ylabel("KL, nats")
        legend_above(axes, columns=2)

    most = max(len(values) for values in shown.values())
    means = ", ".join(f"{_TERMS[name][0]} {_mean(values):.1e}" for name, values in shown.items())
    return Plot(
        "kl",
        "KL by position",
        "Lower is better, and each step down is ten times less or more. The lines should stay "
        "level: one that climbs says that errors gather as the text goes on; a jump names the "
        "position where something breaks. The shade spans the positions that a line's point "
        "stands for.",
        f"KL over {most} positions on a logarithmic scale. Means: {means}.",
        draw_svg("kl", draw, height_in=3.7),
    )


@dataclass(frozen=True)
class _Line:
    position: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def _thinned(values: Sequence[float]) -> _Line:
    """Merge neighbouring positions, so that no line has more points than can be seen."""
    width = math.ceil(len(values) / _MOST_POINTS)
    buckets = [values[start : start + width] for start in range(0, len(values), width)]
    finite = [[value for value in bucket if math.isfinite(value)] for bucket in buckets]
    centres = [start * width + (len(bucket) - 1) / 2 for start, bucket in enumerate(buckets)]
    return _Line(
        centres,
        [_mean(bucket) for bucket in finite],
        [min(bucket, default=math.nan) for bucket in finite],
        [max(bucket, default=math.nan) for bucket in finite],
    )


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _scatter_plot(plot_data: PlotData) -> Plot | None:
    pairs = [pair for pair in plot_data.logit_scatter if all(map(math.isfinite, pair))]
    if not pairs:
        return None
    ends = [min(map(min, pairs)), max(map(max, pairs))]

    def draw(axes: Axes) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        # One path of dots for all of them: a fifth of the bytes of as many markers.
        dots = [point for x, y in pairs for point in ((x, y), (x, y))]
        path = Path(dots, [Path.MOVETO, Path.LINETO] * len(pairs))
        path.should_simplify = False
        axes.plot(ends, ends, color=INK, lw=1, dashes=(4, 3), label="equal")
        axes.add_patch(
            PathPatch(path, fill=False, ec=SERIES[0], lw=2.6, alpha=0.55, capstyle="round")
        )
        axes.set_xlim(*_widened(ends))
        axes.set_ylim(*_widened(ends))
        axes.set_aspect("equal")
        axes.set_xlabel("PyTorch, same weights")
        axes.set_ylabel("artifact, as shipped")
        legend_above(axes, columns=1)

    worst = max(abs(x - y) for x, y in pairs)
    left_out = len(plot_data.logit_scatter) - len(pairs)
    besides = f" {left_out} pairs that are not finite are left out." if left_out else ""
    return Plot(
        "scatter",
        "Logits, artifact against PyTorch",
        "Every dot is one logit of one position. All should lie on the dashed line; a cloud says "
        f"rounding, another line or a second cloud says a fault. Furthest from it: {worst:.3g}."
        + besides,
        f"{len(pairs)} logits; the largest difference is {worst:.3g}.",
        draw_svg("scatter", draw, height_in=5.2),
    )


def _widened(ends: Sequence[float]) -> tuple[float, float]:
    low, high = ends
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _sqnr_plot(plot_data: PlotData) -> Plot | None:
    measured = [
        (tensor, tensor.sqnr_db)
        for tensor in tensor_order(plot_data.tensors)
        if tensor.sqnr_db is not None and math.isfinite(tensor.sqnr_db)
    ]
    # The table has more bits: on the same scale it would press all others into one line.
    drawn = [(tensor, decibels) for tensor, decibels in measured if _layer(tensor.name) >= 0]
    if not drawn:
        return None
    by_kind: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for tensor, decibels in drawn:
        by_kind.setdefault(_kind(tensor.name), []).append((_layer(tensor.name), decibels))

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for (label, marker, colour), points in by_kind.items():
            layers, decibels = zip(*points, strict=True)
            # Filled with nothing: where markers meet, both can be seen.
            lines = axes.plot(layers, decibels, ls=":", lw=0.6, color=colour, label=label)
            lines[0].set(marker=marker, markerfacecolor="none", markersize=6.5, markeredgewidth=1.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_xlabel("layer")
        axes.set_ylabel("SQNR, dB")
        legend_above(axes, columns=4)

    lowest, fewest = min(drawn, key=lambda pair: pair[1])
    besides = [
        f"{tensor.name} has {decibels:.1f} dB"
        for tensor, decibels in measured
        if _layer(tensor.name) < 0
    ]
    exact = len(plot_data.tensors) - len(measured)
    besides += [f"{exact} tensors are stored without loss"] if exact else []
    added = f" Not drawn: {'; '.join(besides)}." if besides else ""
    return Plot(
        "sqnr",
        "Weights: signal to quantisation noise",
        "Higher is better: 6 dB are one bit. A layer or a kind of weight well below the others "
        "is where more bits would help most. It does not compare methods: calibrated codes have "
        "less of it than others, and answer better." + added,
        f"{len(drawn)} quantised tensors; the lowest is {lowest.name} with {fewest:.1f} dB.",
        draw_svg("sqnr", draw, height_in=4.0),
    )


def _kind(name: str) -> tuple[str, str, str]:
    for part, kind in _KINDS.items():
        if part in name:
            return kind
    return ("other", "h", INK)


def _breakdowns(plot_data: PlotData) -> list[Plot | None]:
    return [
        _bars(
            "sizes",
            "What the bundle's size is made of",
            "The files on disk, in parts.",
            plot_data.sizes_bytes,
            SERIES[0],
        ),
        _bars(
            "memory",
            "Memory of this verification",
            "Resident memory of the process: with the artifact loaded, and at its highest, when "
            "the eager model is computed beside it.",
            plot_data.memory_bytes,
            SERIES[2],
        ),
    ]


def _bars(
    key: str, title: str, reading: str, sizes_bytes: Mapping[str, int], colour: str
) -> Plot | None:
    if not sizes_bytes:
        return None
    names, total = list(sizes_bytes), sum(sizes_bytes.values())
    labels = {name: format_size(size) for name, size in sizes_bytes.items()}

    def draw(axes: Axes) -> None:
        # Names stand above their bars: beside them they would leave a phone no room for a bar.
        rows = range(len(names))
        lengths = [sizes_bytes[name] for name in names]
        # The edge keeps a part of next to nothing in sight.
        axes.barh(rows, lengths, height=0.42, color=colour, edgecolor=colour, linewidth=1)
        for row, name in zip(rows, names, strict=True):
            label = axes.annotate(
                f"{name}: {labels[name]}",
                (0, row),
                xytext=(0, 11),
                textcoords="offset points",
                va="bottom",
                parse_math=False,  # a name is never a formula
            )
            label.set_in_layout(False)  # nor may it take the bars' room
        axes.set_ylim(len(names) - 0.6, -0.95)
        axes.set_axis_off()

    added = f" {format_size(total)} in all." if key == "sizes" else ""
    said = ", ".join(f"{name} {labels[name]}" for name in names)
    svg = draw_svg(key, draw, height_in=0.25 + 0.52 * len(names))
    return Plot(key, title, reading + added, f"{said}.", svg)


def format_size(size_bytes: int) -> str:
    """Format a size in decimal units, as file managers do."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"
