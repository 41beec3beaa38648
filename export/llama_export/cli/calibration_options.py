"""The options that say how codes are chosen, and on what text, of every verb that quantises."""

from __future__ import annotations

import click

from llama_export.calibration.options import OWN_TEXT
from llama_export.cli.options import PATH
from llama_quantize.recipe import QUALITIES

QUALITY = click.Option(
    ["--quality"],
    type=click.Choice(tuple(QUALITIES)),
    help="How codes are chosen: by the weights alone, or by what flows through them.",
    show_default="good for int4, fast for int8",
)
CALIBRATION = click.Option(
    ["--calibration"],
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Text, or a folder of it, to calibrate on beside the model's own; repeat it.",
)
CALIBRATION_TOKENS = click.Option(
    ["--calibration-tokens"],
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens to calibrate on.",
    show_default=str(OWN_TEXT.tokens),
)
