"""The defaults of writing text: light to import, so that `--help` names the ones that hold."""

from __future__ import annotations

from typing import Final

TEMPERATURE: Final = 0.7
TOP_P: Final = 0.95
TOP_K: Final = 0
MIN_P: Final = 0.0
REPETITION_PENALTY: Final = 1.0
# The most tokens of a continuation, and of an answer in a conversation.
COMPLETION_TOKENS: Final = 256
ANSWER_TOKENS: Final = 512
