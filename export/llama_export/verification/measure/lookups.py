"""Look ids up in the artifact, one by one, and compare each row with the table's.

A text reads a few hundred ids of a vocabulary of 128,256, and none that a chat is made of; an
operator in front of the lookup can send all the others elsewhere. So the way from the ids to what
the first layer consumes is run by itself: for every special token and a sample in a quick run, for
all ids in a full one. It knows targets' lookups and rows of the table; no runtime and no limits.

Shapes: n ids, E hidden_size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llama_export.errors import BundleError, EvaluationError
from llama_export.llama.names import TABLE
from llama_export.llama.streamed import weight_rows
from llama_export.verification.artifact import Artifact
from llama_export.verification.locate.evidence import relative_error
from llama_export.verification.locate.operators import LOOKUP_LIMIT, find_row

if TYPE_CHECKING:
    from llama_export.llama.intermediates import FloatArray
    from llama_export.llama.streamed import Weight
    from llama_export.targets.wiring import Lookup

# Besides the special tokens, in a quick run.
_SAMPLE = 512
_SEED = 20_240_718
# Of one batch: elements of the rows. Some five arrays of that size live at once, 16 MB each.
_BATCH_ELEMENTS = 1 << 22
# A search through the whole table for whose row it is costs as much as hundreds of lookups.
_EXPLAINED = 3


@dataclass(frozen=True)
class WrongRow:
    """An id whose row is not the table's.

    Args:
        token_id: the id.
        consumer: what in the first layer gets the row.
        held: id whose row it is; None when it is no row of the table, or was not looked for.
    """

    token_id: int
    consumer: str
    held: int | None


@dataclass(frozen=True)
class Lookups:
    """What the artifact looks up.

    Args:
        looked_up: number of ids that were looked up.
        special: number of special tokens among them.
        vocab_size: number of ids that there are.
        wrong: ids with another row, and the first few of them explained.
        unreachable: why nothing could be looked up; empty when it could.
    """

    looked_up: int
    special: int
    vocab_size: int
    wrong: tuple[WrongRow, ...]
    unreachable: str = ""


def measure_lookups(artifact: Artifact, *, quick: bool) -> Lookups | None:
    """Look ids up in the artifact and compare.

    Args:
        artifact: artifact with its references.
        quick: whether to look up the special tokens and a sample, and not every id.

    Returns:
        None: there are no quantised weights, or the target's artifacts cannot be cut.
    """
    if artifact.weights is None:
        return None
    vocab_size = artifact.config.vocab_size
    special = [token for token in artifact.special_token_ids() if token < vocab_size]
    ids = choose_ids(vocab_size, special, quick=quick)
    try:
        lookup = artifact.open_lookup()
        if lookup is None:
            return None
        with closing(lookup):
            wrong = _wrong_rows(lookup, artifact.weights.get(TABLE), ids)
    except (BundleError, EvaluationError) as error:
        return Lookups(0, 0, vocab_size, (), error.message)
    return Lookups(len(ids), len(special), vocab_size, wrong)


def choose_ids(vocab_size: int, special: Sequence[int], *, quick: bool) -> list[int]:
    """Choose what to look up: the special tokens, both ends and a sample; or everything.

    Args:
        vocab_size: number of ids that there are.
        special: ids of the special tokens.
        quick: whether to choose a sample.
    """
    if not quick:
        return list(range(vocab_size))
    always = {*special, 0, vocab_size - 1}
    others = sorted(set(range(vocab_size)) - always)
    sample = random.Random(_SEED).sample(others, min(_SAMPLE, len(others)))
    return sorted({*always, *sample})


@torch.inference_mode()
def _wrong_rows(lookup: Lookup, table: Weight, ids: Sequence[int]) -> tuple[WrongRow, ...]:
    batch = max(1, _BATCH_ELEMENTS // table.shape[1])
    found: dict[tuple[int, str], Tensor | None] = {}
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        expected = weight_rows(table, torch.tensor(part))
        for consumer, rows in lookup.rows(part).items():
            if rows.shape != tuple(expected.shape):
                found |= dict.fromkeys((token, consumer) for token in part)
                continue
            for index in _differing(expected, rows):
                row = torch.from_numpy(rows[index].copy()) if len(found) < _EXPLAINED else None
                found[part[index], consumer] = row
    return tuple(
        WrongRow(token, consumer, None if row is None else find_row(table, row))
        for (token, consumer), row in found.items()
    )


def _differing(expected: Tensor, rows: FloatArray) -> list[int]:
    """Return the indices of rows `[n, E]` that are not the expected ones."""
    found = torch.from_numpy(rows)
    if torch.equal(expected, found) and bool(found.isfinite().all()):
        return []  # as almost always, and ten times faster than what follows
    size = expected.double().square().mean(-1, keepdim=True).sqrt()
    error = relative_error(expected, found, size)
    # What is no number is no row, even where the table has none either.
    wrong = (error.amax(1) > LOOKUP_LIMIT) | ~found.isfinite().all(1)
    return [int(index) for index in wrong.nonzero().flatten()]
