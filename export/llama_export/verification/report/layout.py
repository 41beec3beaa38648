"""A page out of a template and words: escaped, fit to be shown, with the style that all pages have.

It knows how a page is filled in, checked for its place and written, and not what is on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from llama_export.verification.report.report_file import check_place, replace_file
from llama_export.verification.report.svg import require_matplotlib
from llama_quantize.printable import printable

_TEMPLATE = "page.html.jinja"


def fill_page(package: str, words: Mapping[str, Any]) -> str:
    """Fill in a package's own template; what is no markup of ours is escaped.

    Args:
        package: name of the package, beside whose modules `page.html.jinja` lies.
        words: what the template asks for, but for `style`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters["together"] = _together
    layout = environment.from_string(
        resources.files(package).joinpath(_TEMPLATE).read_text("utf-8")
    )
    style = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    return layout.render({**words, "style": style})


def check_page(path: Path, first_line: str) -> None:
    """Refuse, before the work, a page that could not be drawn or written.

    Args:
        path: where the page is to be.
        first_line: first line by which an earlier page is known as ours.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        OutputError: the path is a folder, cannot be written, or is a file that is not ours.
    """
    require_matplotlib()
    check_place(path, first_line)


def write_page(page: str, path: Path, first_line: str) -> None:
    """Write a page in place of an earlier one.

    Args:
        page: the page.
        path: where it is to be.
        first_line: first line by which an earlier page is known as ours.

    Raises:
        OutputError: the path is a folder, cannot be written, or is a file that is not ours.
    """
    check_place(path, first_line)
    # A name may hold bytes that no text has; better a question mark than no page.
    replace_file(path, page.encode("utf-8", errors="replace"))


def _together(text: str) -> str:
    """Let no line end between a figure and its error."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _shown(value: object) -> object:
    """Show what a text hides; a picture, and a part of the page, is left as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))
