"""Check what a bundle holds without running it: its files, and the weights inside the artifact.

It compares hashes; it knows no file format and no runtime.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from llama_export.llama.names import HEAD, TABLE
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.verify.artifact import Subject
from llama_export.verify.rows import Row, informed, judged, unchecked
from llama_quantize.tensor import QuantizedTensor, sha256_of
from llama_quantize.workers import worker_pool

if TYPE_CHECKING:
    from llama_export.verify.artifact import Hashes
    from llama_quantize.checkpoint.weights import QuantizedWeights


_CHUNK_ROWS = 1024
# Cosines and sines of two processors may differ in the last bit; a position more is 1e-4 or more.
ROTARY_LIMIT = 1e-6


def structure_rows(subject: Subject) -> list[Row]:
    """Check the files first: a changed artifact is not even read.

    Raises:
        BundleError: a listed file is not what was written.
    """
    return [_files_row(subject), *_codes_rows(subject), _floats_row(subject), _rotary_row(subject)]


def fewest_bits(weights: QuantizedWeights | None) -> int:
    """Return the fewest bits that any tensor is stored in."""
    if weights is None:
        return 16
    return min((tensor.scheme.bits for tensor in _quantised_tensors(weights).values()), default=16)


def _files_row(subject: Subject) -> Row:
    # A changed artifact may crash its runtime, and its figures would mean nothing: it raises.
    unlisted = subject.check_hashes()
    note = f"besides, not in the manifest: {', '.join(unlisted)}" if unlisted else ""
    return judged("structure", "files", "files that differ from the manifest", 0, 0, note)


def _codes_rows(subject: Subject) -> list[Row]:
    found = _stored_once(subject, subject.read_back())
    manifest = ("codes_manifest", "tensors whose codes or scales differ from the manifest's")
    weights = ("codes_weights", "tensors whose codes or scales differ from the weights'")
    rows = []
    if subject.recorded or not found:
        rows.append(_codes_row(*manifest, subject.recorded, found))
    else:
        rows.append(unchecked("structure", *manifest, "the manifest records no hashes"))
    if subject.weights is None:
        note = "no quantised weights; that the artifact holds them is not proved"
        rows.append(unchecked("structure", *weights, note))
    else:
        rows.append(_codes_row(*weights, _stored_hashes(subject.weights), found))
    return rows


def _floats_row(subject: Subject) -> Row:
    key, name = "floats_weights", "norms and float matrices that differ from the weights'"
    if subject.weights is None:
        note = "no quantised weights; that the artifact holds their norms is not proved"
        return unchecked("structure", key, name, note)
    if subject.read_floats is None:
        return unchecked("structure", key, name, "this target's floats cannot be read back")
    expected, found = _float_hashes(subject.weights), dict(subject.read_floats())
    if subject.config.tie_word_embeddings and found.get(HEAD) == found.get(TABLE):
        found.pop(HEAD, None)
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    note = f"first: {wrong[0]}" if wrong else f"{len(found)} tensors read back and hashed"
    return judged("structure", key, name, len(wrong), 0, note)


def _rotary_row(subject: Subject) -> Row:
    """Compare every row of the tables: a text reaches few of their positions."""
    key, name = "rotary", "largest difference of the rotary tables"
    if subject.read_rotary is None:
        return unchecked("structure", key, name, "this target has no rotary tables to read back")
    worst, where, rows = 0.0, "", 0
    for table, found in subject.read_rotary().items():
        rows = found.shape[0]
        tables = rope_tables(inverse_frequencies(subject.config), torch.arange(rows))
        wanted = tables[0 if table.startswith("cos ") else 1].numpy()
        if wanted.shape != found.shape:
            return judged("structure", key, name, math.inf, ROTARY_LIMIT, f"{table}: other shape")
        # A NaN is the worst of all; plain `max` would let it pass.
        difference = np.nan_to_num(np.abs(found - wanted), nan=np.inf).max(axis=1)
        if difference.max() > worst:
            worst = float(difference.max())
            where = f"worst in {table}, position {int(difference.argmax())}"
    return judged("structure", key, name, worst, ROTARY_LIMIT, where or f"{rows} positions")


def _float_hashes(weights: QuantizedWeights) -> dict[str, str]:
    floats = {name: weights.get(name) for name in weights.names() if name not in weights.tied}
    return {
        name: sha256_of(chunk.float() for chunk in value.split(_CHUNK_ROWS))
        for name, value in floats.items()
        if not isinstance(value, QuantizedTensor)
    }


def _stored_once(subject: Subject, found: Hashes) -> Hashes:
    """Leave out a tied head that holds what the table holds; another one stays, and is a fault."""
    head, table = found.get(HEAD), found.get(TABLE)
    if not subject.config.tie_word_embeddings or head is None or head != table:
        return found
    return {name: hashes for name, hashes in found.items() if name != HEAD}


def _codes_row(key: str, name: str, expected: Hashes, found: Hashes) -> Row:
    faults = []
    for tensor in sorted({*expected, *found}):
        if tensor not in found:
            faults.append(f"{tensor} is not in the artifact")
        elif tensor not in expected:
            faults.append(f"{tensor} is only in the artifact")
        else:
            parts = zip(("codes", "scales"), expected[tensor], found[tensor], strict=True)
            differing = " and ".join(part for part, wanted, got in parts if wanted != got)
            faults += [f"{tensor}: other {differing}"] if differing else []
    if not expected and not found:
        return informed("structure", key, name, 0, "nothing is quantised")
    note = f"first: {faults[0]}" if faults else f"{len(found)} tensors read back and hashed"
    return judged("structure", key, name, len(faults), 0, note)


def _stored_hashes(weights: QuantizedWeights) -> dict[str, tuple[str, str]]:
    quantised = _quantised_tensors(weights)
    with worker_pool() as pool:
        hashes = pool.map(
            lambda tensor: (tensor.codes_sha256(), tensor.scales_sha256()), quantised.values()
        )
        return dict(zip(quantised, hashes, strict=True))


def _quantised_tensors(weights: QuantizedWeights) -> dict[str, QuantizedTensor]:
    tensors = {name: weights.get(name) for name in weights.names()}
    return {name: value for name, value in tensors.items() if isinstance(value, QuantizedTensor)}
