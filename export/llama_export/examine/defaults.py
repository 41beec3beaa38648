"""The defaults of a measurement: light to import, so that `--help` names the ones that hold."""

from __future__ import annotations

from typing import Final

PROMPT_LENGTHS: Final = (128, 512)
CONTEXTS: Final = (128, 1024)
DECODE_TOKENS: Final = 16
REPEAT: Final = 5
# Of a quick measurement.
QUICK_LENGTHS: Final = (128,)
QUICK_DECODE_TOKENS: Final = 8
QUICK_REPEAT: Final = 2
