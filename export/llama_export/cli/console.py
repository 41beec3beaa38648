"""The consoles of the program: whatever is shown on one is made fit to be shown first.

Names, texts and figures come from files, hubs and models of anybody's. A console here knows no
markup, so a bracket is a bracket; it writes control characters and marks of direction by name, and
cuts a text or a cell that is longer than anybody reads. A table that is wider than the screen
becomes narrower, or a list. So nobody who prints has to think of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import (
    Console,
    ConsoleOptions,
    HighlighterType,
    JustifyMethod,
    OverflowMethod,
    RenderableType,
)
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from llama_export.cli.fitting import table_parts, with_narrow_columns
from llama_quantize.printable import clipped, printable

_KEPT = "\n\t"


class CleanConsole(Console):
    """A console of rich's without markup, emoji names and highlighting, which cleans every text.

    Args:
        stderr: whether it writes to stderr, and not to stdout.
        file: another file to write to.
    """

    def __init__(self, *, stderr: bool = False, file: TextIO | None = None) -> None:
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False)

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: HighlighterType | None = None,
    ) -> Text:
        """Turn a string that is printed, or a cell, into a text of rich's, a clean one."""
        return super().render_str(
            _clean(text),
            style=style,
            justify=justify,
            overflow=overflow,
            emoji=emoji,
            markup=markup,
            highlight=highlight,
            highlighter=highlighter,
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render what is printed, and each part of it, as rich does, from clean texts."""
        if isinstance(renderable, Table):
            yield from self._render_table(renderable, options or self.options)
            return
        if isinstance(renderable, Text) and (shown := _clean(renderable.plain)) != renderable.plain:
            renderable = renderable.blank_copy(shown)
        for segment in super().render(renderable, options):
            # Texts are clean by now. This holds for whatever else rich may draw.
            text = segment.text if segment.control else printable(segment.text, keep=_KEPT)
            yield segment if text == segment.text else Segment(text, segment.style)

    def _render_table(self, table: Table, options: ConsoleOptions) -> Iterator[Segment]:
        def plain(cell: RenderableType) -> str:
            return _clean(cell.plain if isinstance(cell, Text) else str(cell))

        frame = Measurement.get(self, options, with_narrow_columns(table)).maximum
        overhead = frame - len(table.columns)
        for part in table_parts(table, options.max_width, plain, overhead):
            if isinstance(part, Table):
                yield from super().render(part, options)
            else:
                text, style = part
                for line in text.splitlines():
                    yield Segment(line, self.get_style(style))
                    yield Segment.line()

    def print(
        self,
        *objects: object,
        sep: str = " ",
        end: str = "\n",
        style: str | Style | None = None,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        no_wrap: bool | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        width: int | None = None,
        height: int | None = None,
        crop: bool = True,
        soft_wrap: bool | None = None,
        new_line_start: bool = False,
    ) -> None:
        """Print as rich does, but cut nothing off a table: what is left too long is one name."""
        super().print(
            *objects,
            sep=sep,
            end=end,
            style=style,
            justify=justify,
            overflow=overflow,
            no_wrap=no_wrap,
            emoji=emoji,
            markup=markup,
            highlight=highlight,
            width=width,
            height=height,
            crop=crop and not any(isinstance(each, Table) for each in objects),
            soft_wrap=soft_wrap,
            new_line_start=new_line_start,
        )

    def on_broken_pipe(self) -> None:
        """Leave it to the end of the program, where rich would end it with exit code 1.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError


def _clean(text: str) -> str:
    return clipped(printable(clipped(text), keep=_KEPT))


def results() -> CleanConsole:
    """Return a console for results, on stdout."""
    return CleanConsole()


def messages() -> CleanConsole:
    """Return a console for progress, notes and errors, on stderr."""
    return CleanConsole(stderr=True)
