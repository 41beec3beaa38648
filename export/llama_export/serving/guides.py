"""What looks at each step of an answer: what it must obey, what is recorded, and when it ends.

`guide_for` is the one place where it is chosen what an answer must obey. It knows logits and ids;
it does not know protocols.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_export.errors import UsageError
from llama_export.generation.decoding import Guide
from llama_export.generation.text_session import TextSession
from llama_export.serving.refusals import refuse_as
from llama_export.serving.text_request import TextRequest

Logits = NDArray[np.float32]


def guide_for(request: TextRequest, session: TextSession) -> Guide | None:
    """Return what the answer to a request must obey; None: nothing.

    A guide is for one text: each choice of a request gets its own.

    Args:
        request: what was asked for.
        session: session that writes the answer, with the model's tokenizer.

    Raises:
        ApiError: the form cannot be obeyed.
    """
    if request.form is None:
        return None
    try:
        return session.guide(request.form.grammar)
    except UsageError as error:
        refuse_as(request.form.param, error)


@dataclass(frozen=True)
class TokenChance:
    """How likely a token was that was drawn.

    Args:
        token_id: the token.
        logprob: natural logarithm of its probability.
        likeliest: the likeliest tokens of that step with theirs, likeliest first.
    """

    token_id: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


class ChanceRecorder:
    """Records how likely each token was that is drawn, before temperature and filters.

    Args:
        top: number of the likeliest tokens to record beside each.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._logits: Logits | None = None
        self._found: list[TokenChance] = []

    def see(self, logits: Logits) -> None:
        """Note the logits `[V]` from which the next token is drawn."""
        self._logits = logits

    def draw(self, token: int) -> None:
        """Record the token that was drawn."""
        if self._logits is None:
            return
        logits, self._logits = self._logits.astype(np.float64), None
        most = float(logits.max())
        total = most + math.log(float(np.exp(logits - most).sum()))
        best: tuple[tuple[int, float], ...] = ()
        if self._top:
            count = min(self._top, len(logits))
            ids = np.argpartition(-logits, count - 1)[:count]
            ids = ids[np.lexsort((ids, -logits[ids]))]
            best = tuple((int(each), float(logits[each]) - total) for each in ids)
        self._found.append(TokenChance(token, float(logits[token]) - total, best))

    def collect(self) -> tuple[TokenChance, ...]:
        """Return what was recorded since the last call."""
        found, self._found = self._found, []
        return tuple(found)


class Watch:
    """The guide of every answer: it forbids what another guide forbids, and nothing more.

    Args:
        before_step: function that is called at each step, and raises where the answer ends.
        after_step: function that is called when a token is drawn and its logits are done with.
        inner: what the answer must obey; None: nothing.
        recorder: what records the chances; None: nothing does.
    """

    def __init__(
        self,
        before_step: Callable[[], None],
        after_step: Callable[[], None],
        inner: Guide | None,
        recorder: ChanceRecorder | None,
    ) -> None:
        self._before_step, self._after_step = before_step, after_step
        self._inner, self._recorder = inner, recorder

    @property
    def is_over(self) -> bool:
        """Whether the text is whole."""
        return self._inner is not None and self._inner.is_over

    def look(self, logits: Logits) -> Logits:
        """Return the logits as the inner guide leaves them."""
        self._before_step()
        if self._recorder is not None:
            self._recorder.see(logits)
        return logits if self._inner is None else self._inner.look(logits)

    def take(self, token: int) -> None:
        """Go on by a token that was drawn.

        The turn is passed on here and not in `look`, because another session's step may write over
        the logits.
        """
        if self._recorder is not None:
            self._recorder.draw(token)
        if self._inner is not None:
            self._inner.take(token)
        self._after_step()
