"""Keep typed special tokens text: encode a rendered dialog so that only the template writes them.

A template puts messages and names of special tokens into one text, in which they look alike.
So it is rendered again with each letter in the messages with which such a name could begin in
disguise. What still is a name there was written by the template. The module knows no template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from llama_export.errors import LlamaExportError, PromptError
from llama_export.tokenizer.tokenizer import Tokenizer

# Unicode's noncharacters, which no text should hold; those that are there are not used.
_DISGUISES = tuple(map(chr, range(0xFDD0, 0xFDF0)))

# Renders a dialog whose every string may have been changed.
Render = Callable[[object], str]


def encode_guarded(tokenizer: Tokenizer, render: Render, given: object) -> list[int]:
    """Encode a dialog; what its messages hold is text, whatever it looks like.

    Args:
        tokenizer: tokenizer of the model.
        render: what makes a text of the dialog.
        given: the dialog, of JSON's types.

    Raises:
        PromptError: it holds too many of the characters that no text should hold.
        LlamaExportError: the dialog cannot be rendered or encoded.
    """
    plain = render(given)
    special = tokenizer.special_tokens
    firsts = {name[0] for name in special if name}
    said = "".join(_texts(given))
    disguise = _Disguise(special, sorted(first for first in firsts if first in said), said)
    if not disguise.letters:
        return tokenizer.encode_rendered(plain)
    guarded = _rendered(render, disguise.all_letters(given))
    if guarded is None or disguise.taken_off(guarded) != plain:
        # The template looks into what was said, such as for `</think>`: disguise names alone.
        guarded = render(disguise.names_alone(given))
    if disguise.names_in(guarded) == disguise.names_in(plain):
        return tokenizer.encode_rendered(plain)
    return _encode_parts(tokenizer, disguise, guarded)


class _Disguise:
    """Letters and what stands for them, so that no special token's name is left.

    Args:
        names: names of special tokens.
        letters: letters that names begin with, and that messages hold.
        said: everything that the messages hold.
    """

    def __init__(self, names: Collection[str], letters: Collection[str], said: str) -> None:
        self.letters = letters
        self._names = sorted(filter(None, names), key=len, reverse=True)
        self._name = re.compile("|".join(map(re.escape, self._names)))
        # A name at every place, also where two overlap.
        self._begin = re.compile(f"(?=({self._name.pattern})).", re.DOTALL)
        free = [each for each in _DISGUISES if each not in said and _escaped(each) not in said]
        if len(free) < len(letters):
            message = "the messages hold nearly all of Unicode's noncharacters U+FDD0 to U+FDEF"
            raise PromptError(message, "take them out: no text needs them")
        self._on = str.maketrans(dict(zip(letters, free, strict=False)))
        self._off = dict(zip(free, letters, strict=False))

    def all_letters(self, given: object) -> object:
        """Disguise every letter in the strings of a value."""
        return _mapped(given, lambda text: text.translate(self._on))

    def names_alone(self, given: object) -> object:
        """Disguise the first letter of each name, and of what could be the beginning of one."""
        return _mapped(given, self._name_disguised)

    def _name_disguised(self, text: str) -> str:
        hidden = self._begin.sub(lambda match: match[0].translate(self._on), text)
        longest = min(len(hidden), max(map(len, self._names)) - 1)
        for length in range(longest, 0, -1):
            end = hidden[-length:]
            if any(name.startswith(end) for name in self._names):
                hidden = hidden[:-length] + end[0].translate(self._on) + end[1:]
        return hidden

    def taken_off(self, text: str) -> str:
        """Return a text without disguises; as JSON one may have been escaped."""
        for disguise, letter in self._off.items():
            text = text.replace(disguise, letter).replace(_escaped(disguise), letter)
        return text

    def names_in(self, text: str) -> list[str]:
        """List the names in a text."""
        return self._name.findall(text)

    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        """Cut a text before each name; pass each name on with the text behind it."""
        name, end = "", 0
        for match in self._name.finditer(text):
            yield name, text[end : match.start()]
            name, end = match[0], match.end()
        yield name, text[end:]


def _encode_parts(tokenizer: Tokenizer, disguise: _Disguise, guarded: str) -> list[int]:
    """Encode a text in which only what the template wrote has the names of special tokens."""
    ids: list[int] = []
    run = ""
    for name, disguised in disguise.parts(guarded):
        text = disguise.taken_off(disguised)
        run += name
        if disguise.names_in(text):
            ids += tokenizer.encode_rendered(run)
            ids += tokenizer.encode(text, continues=bool(ids))
            run = ""
        else:
            run += text
    return [*ids, *tokenizer.encode_rendered(run)] if run else ids


def _rendered(render: Render, given: object) -> str | None:
    try:
        return render(given)
    except LlamaExportError:
        return None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _mapped(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _mapped(each, change) for key, each in value.items()}
    return [_mapped(each, change) for each in value] if isinstance(value, list) else value


def _escaped(disguise: str) -> str:
    return f"\\u{ord(disguise):04x}"
