"""How well a bundle foretells documents: perplexity, and bits for each byte, with their errors.

Documents differ more than neighbouring tokens of one do, so the errors are of documents drawn with
replacement; where there are too few, of blocks of neighbouring tokens. It knows a session and
texts; it reads no file and shows nothing.

Shapes: U units that are drawn, N tokens of a document.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llama_export.errors import PromptError, TokenizerError
from llama_export.generation.scoring import Doubles, TokenScorer, rolling_windows
from llama_export.generation.text_session import TextSession
from llama_export.verification.estimate import Estimate

BLOCK_TOKENS = 32
FEWEST_DOCUMENTS = 8
_DRAWS, _SEED = 1000, 0


@dataclass(frozen=True)
class Perplexity:
    """How well documents are foretold.

    Args:
        perplexity: exponential of the mean loss of a token.
        bits_per_byte: loss over the length of the texts in UTF-8; it can be compared between
            vocabularies.
        documents: number of documents.
        tokens: number of tokens that were scored.
        windows: number of windows that they were read in; each begins without what came before.
        unit: what the errors are of: "document", or "block of 32 tokens".
        units: number of them.
    """

    perplexity: Estimate
    bits_per_byte: Estimate
    documents: int
    tokens: int
    windows: int
    unit: str
    units: int


@dataclass(frozen=True, eq=False)
class _Read:
    """A document that was read: loss of each token in nats, float64 `[N]`."""

    nats: Doubles
    size_bytes: int
    windows: int


def measure_perplexity(
    session: TextSession, texts: Sequence[str], on_progress: Callable[[int, int], None]
) -> Perplexity:
    """Read documents, each from an empty cache.

    A document longer than the context is read in windows of its length, as lm-eval reads it.

    Args:
        session: session whose head is whole; its cache is taken over.
        texts: documents.
        on_progress: function that takes how many tokens are done, and of how many.

    Raises:
        PromptError: the documents have fewer than two tokens together.
        TokenizerError: a text cannot be encoded, or no token can stand before one.
        BundleError: the runtime fails.
    """
    first = first_token(session)
    encoded = [session.tokenizer.encode(text) for text in texts]
    total, done = sum(map(len, encoded)), 0
    if total < 2:
        message = f"--text: expected at least two tokens, found {total}"
        raise PromptError(message, "give a page or more of text")
    scorer = TokenScorer(session.cache)
    read: list[_Read] = []
    for text, token_ids in zip(texts, encoded, strict=True):
        parts: list[Doubles] = []
        for window in rolling_windows(token_ids, prefix=first, length=session.max_context):
            parts.append(-scorer.score(*window).log_likelihoods)
            done += len(parts[-1])
            on_progress(done, total)
        if parts:
            read.append(_Read(np.concatenate(parts), len(text.encode()), len(parts)))
    return _summed(read)


def first_token(session: TextSession) -> int:
    """Return the token before a text that has no context: the one that begins, or ends, a text.

    Raises:
        TokenizerError: there is neither.
    """
    tokenizer = session.tokenizer
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    message = f"{session.name}: no token begins or ends a text, so none can stand before one"
    raise TokenizerError(message, "export a model whose tokenizer names one")


def _summed(read: Sequence[_Read]) -> Perplexity:
    by_document = len(read) >= FEWEST_DOCUMENTS
    units = _documents(read) if by_document else _blocks(read)
    nats, tokens, size_bytes = (np.array(column) for column in zip(*units, strict=True))
    return Perplexity(
        perplexity=bootstrap(lambda n: math.exp(min(n @ nats / (n @ tokens), 700.0)), len(units)),
        bits_per_byte=bootstrap(lambda n: n @ nats / (n @ size_bytes) / math.log(2), len(units)),
        documents=len(read),
        tokens=sum(len(each.nats) for each in read),
        windows=sum(each.windows for each in read),
        unit="document" if by_document else f"block of {BLOCK_TOKENS} tokens",
        units=len(units),
    )


def _documents(read: Sequence[_Read]) -> list[tuple[float, float, float]]:
    """Return nats, tokens and bytes of each document."""
    return [(float(each.nats.sum()), len(each.nats), each.size_bytes) for each in read]


def _blocks(read: Sequence[_Read]) -> list[tuple[float, float, float]]:
    """Return nats, tokens and bytes of each block; a block has its share of the bytes."""
    found: list[tuple[float, float, float]] = []
    for each in read:
        count = max(1, len(each.nats) // BLOCK_TOKENS)
        for block in np.array_split(each.nats, count):
            share = each.size_bytes * len(block) / len(each.nats)
            found.append((float(block.sum()), len(block), share))
    return found


def bootstrap(figure: Callable[[Doubles], float], units: int) -> Estimate:
    """Compute a figure of all units, and its standard error over units drawn with replacement.

    Args:
        figure: function of how often each unit was drawn, float64 `[U]`.
        units: number of units.

    Returns:
        The figure; its error is NaN for fewer than two units.
    """
    value = float(figure(np.ones(units)))
    if units < 2:
        return Estimate(value, math.nan)
    random = np.random.default_rng(_SEED)
    chances = np.full(units, 1 / units)
    drawn = [
        float(figure(random.multinomial(units, chances).astype(np.float64))) for _ in range(_DRAWS)
    ]
    return Estimate(value, float(np.std(drawn, ddof=1)))
