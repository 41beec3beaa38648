"""The options that say what drafts tokens ahead, for every verb that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.options import PATH
from llama_export.cli.verb import Section

if TYPE_CHECKING:
    from llama_export.generation.speculation_choice import Speculation

SPECULATION = Section(
    "Speed",
    (
        click.Option(
            ["--lookup"],
            is_flag=True,
            help="Draft what may come from what the text said before (--all-logits bundles).",
        ),
        click.Option(
            ["--draft"],
            type=PATH,
            metavar="BUNDLE",
            help="Draft with a smaller model of the same vocabulary (--all-logits bundles).",
        ),
    ),
)


def chosen_speculation(typed: Mapping[str, Any]) -> Speculation | None:
    """Return what drafts, as it was typed; None: nothing does.

    Raises:
        UsageError: both ways are asked for.
    """
    from llama_export.generation.speculation_choice import choose_speculation

    return choose_speculation(lookup=typed["lookup"], draft=typed.get("draft"))
