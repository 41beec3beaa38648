"""The defaults of writing and of judging texts: light to import, for `--help` names them."""

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
# The probability from which on a message counts as unsafe, and the share of safe examples that a
# threshold chosen by examples may count so.
THRESHOLD: Final = 0.5
MOST_FALSE_ALARMS: Final = 0.01
