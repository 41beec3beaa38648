"""Choose what a verification reads, and how much of it: a text, and a budget by the model's size.

It knows texts and token counts; it runs nothing.
"""

from __future__ import annotations

import hashlib
from codecs import getincrementaldecoder
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Protocol

from llama_export.errors import PromptError
from llama_export.llama.config import LlamaConfig

# Multiply-adds of the whole run. A step costs about one per parameter: 1.24 billion for 1B.
_FULL_WORK = 3e11
_QUICK_POSITIONS = 32
_FULL_POSITIONS = (64, 1000)

# Of the longest single prefill: about 1000 tokens at 1B, which the eager model also has to read.
_LENGTH_WORK = 1.3e12
_SHORTEST_LENGTH = 16

# A step in exact float32 costs about 1 s at 1B: the int8 head has no fast kernel there.
_QUICK_EXACT_WORK = 5e9
_FULL_EXACT_WORK = 2e10
_FEWEST_EXACT_STEPS = 4

# 8192 positions are 0.54 GB at 1B and 1.9 GB at 3B, which an export need not have free.
_QUICK_CACHE_BYTES = 600_000_000

# Of the portions: how many tokens they cut up, and how many calls that may take.
_WINDOW = 93
_PORTION_WORK = 6e10
_FEWEST_PORTION_CALLS = 4
# Odd sizes, because a kernel works on even numbers of rows and an edge shows at an odd end.
_PORTION_SIZES = (1, 3, 7, 31)

_FILES = ("fairy-tale.txt", "plain-prose.txt")
_FEWEST_TOKENS = 2
# A file may be a whole library; 8192 tokens are about 40 kB.
_MOST_BYTES = 2**20
BUILT_IN, SECOND = "built-in", "plain prose"


class TextEncoder(Protocol):
    """A tokenizer, as far as it is needed here."""

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Return the tokens that every text begins with."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ...


@dataclass(frozen=True)
class UserText:
    """A text of the user's, not tokenized yet.

    Args:
        path: file that it came from.
        content: text itself, or the beginning of a very long one.
    """

    path: Path
    content: str


@dataclass(frozen=True)
class Text:
    """A text, tokenized.

    Args:
        name: name of the text in the report.
        prefix_ids: tokens that come before it.
        token_ids: tokens of the text, at least two.
        sha256: hash of the text in UTF-8, in lower-case hex.
    """

    name: str
    prefix_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    sha256: str

    def take(self, count: int) -> tuple[int, ...]:
        """Return `count` tokens: those before every text, then the text over and over."""
        return tuple(islice(chain(self.prefix_ids, cycle(self.token_ids)), count))


@dataclass(frozen=True)
class Budget:
    """The amount of work of a verification.

    Args:
        positions: number of tokens that the artifact reads, for one row of logits each.
        exact_steps: number of the last of them that are single steps in exact float32; those before
            are one prefill.
        lengths: lengths of single prefills in exact float32, in increasing order.
        portions: ways to cut up the first tokens in exact float32; each adds up to the same.
        fills_context: whether a session is filled to its last position.
    """

    positions: int
    exact_steps: int
    lengths: tuple[int, ...]
    portions: tuple[tuple[int, ...], ...]
    fills_context: bool

    @property
    def longest(self) -> int:
        """Return the most tokens that are read, at once or one by one."""
        return max(self.positions, *self.lengths)


@dataclass(frozen=True)
class Reading:
    """The tokens that are read, and how.

    Args:
        text: text that they come from.
        budget: amount of work.
        max_context: capacity of the artifact in tokens.
        token_ids: tokens, at least one more than are compared as shipped: the last position's
            prediction is scored too.
    """

    text: Text
    budget: Budget
    max_context: int
    token_ids: tuple[int, ...]

    @property
    def compared(self) -> tuple[int, ...]:
        """Return the tokens that are compared as shipped, one by one."""
        return self.token_ids[: self.budget.positions]

    @property
    def longest(self) -> tuple[int, ...]:
        """Return the tokens of the longest prefill."""
        return self.token_ids[: self.budget.longest]


def plan_reading(config: LlamaConfig, text: Text, max_context: int, *, quick: bool) -> Reading:
    """Choose what to read of a text, as `plan_budget` does for its amount."""
    budget = plan_budget(config, max_context, quick=quick)
    token_ids = text.take(max(budget.longest, budget.positions + 1))
    return Reading(text, budget, max_context, token_ids)


def plan_budget(config: LlamaConfig, max_context: int, *, quick: bool) -> Budget:
    """Choose how much to measure, so that time and memory do not grow with the model.

    Args:
        config: shape of the model.
        max_context: capacity of the artifact in tokens.
        quick: whether to plan the short version.
    """
    num_parameters = config.num_parameters
    if quick:
        positions, exact_work = _QUICK_POSITIONS, _QUICK_EXACT_WORK
        longest, portion_work = positions, 0.0
    else:
        fewest, most = _FULL_POSITIONS
        positions = min(max(int(_FULL_WORK / num_parameters), fewest), most)
        longest = max(int(_LENGTH_WORK / num_parameters), positions)
        exact_work, portion_work = _FULL_EXACT_WORK, _PORTION_WORK
    positions = min(positions, max_context)
    steps = max(int(exact_work / num_parameters), _FEWEST_EXACT_STEPS)
    calls = max(int(portion_work / num_parameters), _FEWEST_PORTION_CALLS)
    return Budget(
        positions=positions,
        # At least a quarter is prefilled, so that steps follow a real prefill.
        exact_steps=max(min(steps, positions - positions // 4 - 1), 0),
        lengths=(positions,) if quick else _lengths(positions, min(longest, max_context)),
        portions=_portions(min(positions, _WINDOW), calls),
        fills_context=not quick or cache_bytes(config, max_context) <= _QUICK_CACHE_BYTES,
    )


def cache_bytes(config: LlamaConfig, positions: int) -> int:
    """Return the size of a full KV cache in float32."""
    heads = config.num_hidden_layers * config.num_key_value_heads
    return 2 * 4 * heads * config.head_dim * positions


def _lengths(positions: int, longest: int) -> tuple[int, ...]:
    """Choose lengths in steps of four, leaving out those next to one that is read anyway."""
    lengths = {positions, longest}
    length = _SHORTEST_LENGTH
    while length < longest:
        if all(max(length, read) >= 2 * min(length, read) for read in (positions, longest)):
            lengths.add(length)
        length *= 4
    return tuple(sorted(lengths))


def _portions(window: int, calls: int) -> tuple[tuple[int, ...], ...]:
    """Choose ways to cut a window up: mixed odd sizes, and each size alone if affordable."""
    mixed = _cut(window, _PORTION_SIZES)
    chosen, left = [mixed], calls - len(mixed)
    for size in reversed(_PORTION_SIZES):
        sizes = _cut(window, (size,))
        if size < window and len(sizes) <= left:
            chosen.append(sizes)
            left -= len(sizes)
    return tuple(chosen)


def _cut(window: int, sizes: Sequence[int]) -> tuple[int, ...]:
    portions: list[int] = []
    remaining, sizes_in_turn = window, cycle(sizes)
    while remaining > 0:
        portions.append(min(next(sizes_in_turn), remaining))
        remaining -= portions[-1]
    return tuple(portions)


def sample_text() -> str:
    """Return the built-in text: a fairy tale, then plain prose."""
    folder = resources.files(__package__) / "texts"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in _FILES)


def texts_of_verification() -> tuple[str, ...]:
    """Return every text that is measured on when nobody names one: no calibration may see them."""
    folder = resources.files(__package__) / "texts"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return tuple(file.read_text(encoding="utf-8") for file in files if file.name.endswith(".txt"))


def built_in_text(encoder: TextEncoder) -> Text:
    """Return the built-in text, tokenized."""
    return _tokenized(encoder, BUILT_IN, sample_text())


def second_text(encoder: TextEncoder) -> Text:
    """Return a short text of another domain than the built-in one begins with."""
    prose = resources.files(__package__).joinpath("texts", _FILES[-1]).read_text(encoding="utf-8")
    return _tokenized(encoder, SECOND, prose)


def tokenize(encoder: TextEncoder, text: UserText) -> Text:
    """Tokenize a user's text.

    Raises:
        PromptError: it has fewer than two tokens.
        TokenizerError: the tokenizer cannot encode it.
    """
    tokenized = _tokenized(encoder, text.path.name, text.content)
    if len(tokenized.token_ids) < _FEWEST_TOKENS:
        message = (
            f"--text: {text.path}: expected a text of at least {_FEWEST_TOKENS} tokens, "
            f"found {len(tokenized.token_ids)}"
        )
        raise PromptError(message, "give a page or more of the text that the model is for")
    return tokenized


def _tokenized(encoder: TextEncoder, name: str, text: str) -> Text:
    sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return Text(name, encoder.prefix_ids, tuple(encoder.encode(text)), sha256)


def read_text(path: Path) -> UserText:
    """Read a text file, or the beginning of a very long one.

    Raises:
        PromptError: it is not there, is no file, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
        # Where a long file is cut, its last character may be cut too.
        content = getincrementaldecoder("utf-8-sig")().decode(data, final=len(data) < _MOST_BYTES)
    except OSError as error:
        message = f"--text: {path} cannot be read: {error.strerror or error}"
        raise PromptError(message, "give the name of a text file") from None
    except UnicodeDecodeError as error:
        message = f"--text: {path} is not UTF-8: byte {error.start} does not fit"
        raise PromptError(message, "convert the text to UTF-8 first") from None
    return UserText(path, content)
