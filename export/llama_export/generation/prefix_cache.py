"""A session and the tokens that its KV cache holds, so that nothing is read twice.

A text that begins like what the cache holds needs only its rest to be read: the next turn of a
chat its new tokens, an edited one what follows the edit. It knows token ids; it does not know
what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llama_export.errors import BundleError, PromptError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.session import KeyValueArrays, Session, require_finite, require_open

if TYPE_CHECKING:
    from llama_export.generation.speculation import Speculator

# A prompt can be stopped between two pieces, and 512 tokens of 1B took 4 s. Attention's scores
# grow with the product of both lengths too: of 1B with 8192 positions, 32 heads in float32, a
# piece's take 0.13 GB and those of the whole prompt would take 8.6.
PIECE_TOKENS = 128

# Called before each piece of a prompt with the number of tokens read so far, and of all of them.
ReadingProgress = Callable[[int, int], None]


class PrefixCache:
    """A session with the record of the tokens in its KV cache.

    Whatever interrupts a call, Ctrl-C included, the record stays true: it names a token only
    after the session has it, and forgets it before the session does.

    Args:
        session: loaded artifact with an empty KV cache.
        max_context: most positions to use, out of the session's own; None: all of them.
        head_tokens: ids of the tokens that the session's logits stand for; empty: each stands for
            its own index.
    """

    def __init__(
        self,
        session: Session,
        *,
        max_context: int | None = None,
        head_tokens: Sequence[int] | NDArray[np.intp] = (),
    ) -> None:
        self._open_session: Session | None = session
        self._tokens: list[int] = []
        self.max_context = session.max_context if max_context is None else max_context
        self.on_progress: ReadingProgress | None = None
        # Goes with the cache where it is forked and closed; whoever writes a text asks it.
        self.speculator: Speculator | None = None
        self._head_tokens = np.array(head_tokens, dtype=np.intp)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the cache."""
        return tuple(self._tokens)

    @property
    def position(self) -> int:
        """Number of tokens in the cache."""
        return len(self._tokens)

    @property
    def has_whole_head(self) -> bool:
        """Whether every token has a logit; those that a pruned head lacks are never drawn."""
        return not len(self._head_tokens)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._open_session is None

    @property
    def drawable_ids(self) -> Sequence[int]:
        """Ids of the tokens that have a logit.

        Raises:
            UsageError: the session is closed.
        """
        kept: list[int] = self._head_tokens.tolist()
        return kept or range(self._session.vocab_size)

    def shared_length(self, token_ids: Sequence[int]) -> int:
        """Count the tokens at the beginning of a text that need no reading.

        The last token always needs it, because its logits are wanted.
        """
        most = min(len(token_ids) - 1, len(self._tokens))
        for index in range(most):
            if token_ids[index] != self._tokens[index]:
                return index
        return max(most, 0)

    def keep_prefix_of(self, token_ids: Sequence[int]) -> int:
        """Forget what a text does not begin with, and return how many of its tokens remain."""
        shared = self.shared_length(token_ids)
        self.rewind(shared)
        return shared

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens, piece by piece, and return the logits `[V]` after the last of them.

        A token that a pruned head has no row for has the logit -inf: it is never drawn.

        Raises:
            PromptError: there are no tokens, one is outside the vocabulary, or they do not fit.
            UsageError: the session is closed.
            BundleError: the runtime fails, or the logits are not finite numbers.
        """
        room = self.max_context - self.position
        if len(input_ids) > room:
            message = f"{len(input_ids)} more tokens do not fit: there is room for {room}"
            raise PromptError(message, "shorten the text, or give a larger context")
        self._session.rewind(self.position)  # what an interrupted call may have left
        total = len(input_ids)
        for start in range(0, max(total, 1), PIECE_TOKENS):
            if self.on_progress is not None and total > PIECE_TOKENS:
                self.on_progress(start, total)
            piece = input_ids[start : start + PIECE_TOKENS]
            logits = self._session.prefill(piece)
            self._tokens += piece
        return self._of_all_tokens(require_finite(logits))

    def run_ahead(self, token: int, draft: Sequence[int]) -> list[FloatArray]:
        """Append a token, and run a draft after it; return the logits `[V]` after each of them.

        The record has the token alone until `confirm` takes the draft's tokens over, one by one;
        whatever else is called forgets those that were not.

        Raises:
            PromptError: they do not fit.
            UsageError: the session is closed.
            BundleError: the runtime fails, it gives the last row alone, or the logits are not
                finite numbers.
        """
        room = self.max_context - self.position
        if 1 + len(draft) > room:
            message = f"{1 + len(draft)} more tokens do not fit: there is room for {room}"
            raise PromptError(message, "shorten the text, or give a larger context")
        self._session.rewind(self.position)
        # Copies: they outlast the call, and another conversation on the same program, whose
        # result may stand where this one's does.
        rows = self._session.run([token, *draft]).copy()
        if len(rows) != 1 + len(draft):
            message = f"the artifact gives {len(rows)} rows of logits for {1 + len(draft)} tokens"
            raise BundleError(message, "export it again with --all-logits")
        self._tokens.append(token)
        return [self._of_all_tokens(require_finite(row)) for row in rows]

    def confirm(self, token: int) -> None:
        """Take the next token of the last draft over: the text goes on with it.

        Raises:
            PromptError: there is none; every token that was run is in the record.
        """
        if self._session.position <= self.position:
            message = f"there is no draft after the {self.position} tokens of the text"
            raise PromptError(message, "run the token itself")
        self._tokens.append(token)

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on.

        Raises:
            PromptError: the position is negative, or after the last token.
            UsageError: the session is closed.
        """
        if not 0 <= position <= self.position:
            message = f"cannot rewind to position {position}: there are {self.position} tokens"
            raise PromptError(message, f"give a position from 0 to {self.position}")
        del self._tokens[position:]
        self._session.rewind(position)

    def fork(self) -> PrefixCache:
        """Return a second cache that begins with the same tokens; the weights are shared.

        Raises:
            UsageError: the session is closed.
        """
        self._session.rewind(self.position)
        other = PrefixCache(
            self._session.fork(), max_context=self.max_context, head_tokens=self._head_tokens
        )
        other._tokens = list(self._tokens)
        other.speculator = None if self.speculator is None else self.speculator.fork()
        return other

    def layers(self, position: int) -> list[KeyValueArrays]:
        """Copy each layer's first rows, `[K, position, D]` keys and values.

        Raises:
            UsageError: the session is closed.
        """
        copies = (self._session.cache(layer) for layer in range(self._session.num_layers))
        return [(keys[:, :position], values[:, :position]) for keys, values in copies]

    def restore(self, token_ids: Sequence[int], layers: Sequence[KeyValueArrays]) -> None:
        """Replace everything by tokens and their rows, as `layers` returned them.

        Raises:
            PromptError: they are another model's, or longer than the context.
            UsageError: the session is closed.
        """
        lengths = {rows.shape[1] for pair in layers for rows in pair} or {0}
        if lengths != {len(token_ids)} or len(token_ids) > self.max_context:
            found = "/".join(map(str, sorted(lengths)))
            message = (
                f"{len(token_ids)} tokens with {found} rows of cache cannot be restored into a "
                f"context of {self.max_context}"
            )
            raise PromptError(message, "open the bundle with a larger context")
        self._tokens = []
        self._session.restore(layers)
        self._tokens = list(token_ids)

    def close(self) -> None:
        """Let go of the session and its memory; forks keep theirs. Closing twice does nothing."""
        session, self._open_session = self._open_session, None
        self._tokens = []
        if session is not None:
            session.close()
        if self.speculator is not None:
            self.speculator.close()

    def _of_all_tokens(self, logits: FloatArray) -> FloatArray:
        if not len(self._head_tokens):
            return logits
        everywhere = np.full(self._session.vocab_size, -np.inf, dtype=np.float32)
        everywhere[self._head_tokens] = logits
        return everywhere

    @property
    def _session(self) -> Session:
        return require_open(self._open_session)
