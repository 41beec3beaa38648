"""Take the hub's tokens out of what is shown or written down.

Nobody means to quote one; a library that refuses a header does. The module knows how a token gets
here, and nothing of what is done with it.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
# What the hub gives out, wherever it came from: a saved login, an address, a header.
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}|(?<=Bearer )[^\s'\"]+")
_HIDDEN = "[token]"
_OPTION = "--token"
# A shorter one is no token, and might be a word of any message.
_LEAST_CHARACTERS = 8


def without_tokens(text: str, words: Sequence[str] | None = None) -> str:
    """Return a text without tokens: those typed, those of the environment, and any other.

    Args:
        text: text that may hold one.
        words: command line; None: this process's.
    """
    for secret in _secrets(sys.argv if words is None else words):
        text = text.replace(secret, _HIDDEN)
    return _TOKEN.sub(_HIDDEN, text)


def command_line() -> str:
    """Return this process's command line, quoted for a shell, as it may stand in a report."""
    words = ["llama-export", *sys.argv[1:]]
    for place, word in enumerate(words):
        # What is typed as a token is one, however short, and before a quote takes it apart.
        if word == _OPTION and place + 1 < len(words):
            words[place + 1] = _HIDDEN
        elif word.startswith(f"{_OPTION}="):
            words[place] = f"{_OPTION}={_HIDDEN}"
    return without_tokens(shlex.join(words))


def _secrets(words: Sequence[str]) -> list[str]:
    typed = [after for before, after in itertools.pairwise(words) if before == _OPTION]
    typed += [word.partition("=")[2] for word in words if word.startswith(f"{_OPTION}=")]
    found = [*typed, *(os.environ.get(name, "") for name in _VARIABLES)]
    # One with a line break in it is quoted in pieces. Longer ones first: one may begin another.
    pieces = {piece for secret in found for piece in secret.split()}
    long = (piece for piece in pieces if len(piece) >= _LEAST_CHARACTERS)
    return sorted(long, key=len, reverse=True)
