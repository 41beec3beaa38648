"""Draw with matplotlib for a page: SVG in the page's colours, the same bytes for the same input.

Plots are drawn with stand-in colours that become the page's CSS variables, so they are right on
light, on dark and on paper; text stays text, in the page's font. It knows neither reports nor what
is drawn.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llama_export.errors import BackendUnavailableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A width of 390 units, so that on a phone a unit is about a pixel.
_WIDTH_IN = 5.4
_FONT_PT = 11.5

# Stand-in colours, none of which occurs in matplotlib's own output.
INK, FAINT = "#010203", "#040506"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04")
_VARIABLES: Mapping[str, str] = {
    INK: "var(--ink)",
    FAINT: "var(--rule)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES, 1)},
}


def require_matplotlib() -> None:
    """Refuse to draw plots where matplotlib is missing.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        message = "the plots of a report need matplotlib, which is not installed"
        raise BackendUnavailableError(
            message, "pip install matplotlib, which is the extra 'report'"
        )


def draw_svg(key: str, draw: Callable[[Axes], None], *, height_in: float) -> str:
    """Draw one pair of axes as an `<svg>` element.

    Args:
        key: prefix of the ids in it; unique on a page.
        draw: function that draws on empty axes.
        height_in: height in inches; the width is the same for all.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # `rc_context` alone keeps the user's matplotlibrc, which would change the bytes.
    with rc_context():
        _set_style()
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        return _for_page(key, _saved(figure))


def _set_style() -> None:
    import matplotlib

    matplotlib.rcdefaults()
    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "llama-export",
            "font.size": _FONT_PT,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": FAINT,
            "grid.linewidth": 0.6,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "savefig.transparent": True,
        }
    )


def _saved(figure: Figure) -> str:
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    return stream.getvalue()


def _for_page(key: str, svg: str) -> str:
    """Turn a file's SVG into one element of a page: own ids, the page's colours, nothing global."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg)
    # The tags alone: what stands between them is for readers.
    return re.sub(r"<[^>]+>", lambda tag: _tag_for_page(key, tag[0]), re.sub(r"\n\s*", "\n", svg))


def _tag_for_page(key: str, tag: str) -> str:
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    tag = re.sub(r'xlink:href="#', f'href="#{key}-', tag).replace("url(#", f"url(#{key}-")
    tag = re.sub(r" font-family: [^;\"]*;?", "", tag)
    # A hundredth of a unit is less than any screen shows.
    tag = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, variable)
    return tag


def legend_above(axes: Axes, *, columns: int) -> None:
    """Put the legend where it hides nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        frameon=False,
        handletextpad=0.5,
        columnspacing=1.4,
        borderpad=0.2,
    )
