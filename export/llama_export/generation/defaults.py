"""The defaults of writing and of judging texts: light to import, for `--help` names them."""

from __future__ import annotations

from typing import Final

from llama_export.bundle.drawing import DEFAULTS

TEMPERATURE: Final = DEFAULTS["temperature"]
TOP_P: Final = DEFAULTS["top_p"]
TOP_K: Final = int(DEFAULTS["top_k"])
MIN_P: Final = DEFAULTS["min_p"]
REPETITION_PENALTY: Final = DEFAULTS["repetition_penalty"]
# The most tokens of a continuation, and of an answer in a conversation.
COMPLETION_TOKENS: Final = 256
ANSWER_TOKENS: Final = 512
# The probability from which on a message counts as unsafe, and the share of safe examples that a
# threshold chosen by examples may count so.
THRESHOLD: Final = 0.5
MOST_FALSE_ALARMS: Final = 0.01
