"""Runs of tokens that no calibration may see: those of the texts that `verify` measures on.

Weights that were fitted to a text are better on it than elsewhere, so a measurement on it would
promise too much. The module knows texts and ids; it reads no file of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llama_export.tokenizer.tokenizer import Tokenizer
from llama_export.verification.samples import texts_of_verification

RUN = 32
"""How many tokens in a row make a text known again."""


@dataclass(frozen=True)
class RefusedRuns:
    """The runs of some texts, by their hashes.

    Args:
        hashes: hash of each run.
    """

    hashes: frozenset[int]

    @classmethod
    def of_verification(cls, tokenizer: Tokenizer) -> RefusedRuns:
        """Hash the texts of the verification, as a model's tokenizer cuts them up."""
        texts = (tokenizer.encode(text) for text in texts_of_verification())
        return cls(frozenset(hash(run) for ids in texts for run in _runs(ids)))

    def find(self, ids: Sequence[int]) -> int | None:
        """Return where the first such run begins in some ids; None: they hold none."""
        return next((at for at, run in enumerate(_runs(ids)) if hash(run) in self.hashes), None)


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return (tuple(ids[at : at + RUN]) for at in range(len(ids) - RUN + 1))
