"""Turn what the checkpoint says of the weights into rows.

It knows rows; it runs and reads nothing.
"""

from __future__ import annotations

from llama_export.verification.measure.origin import Agreement, Origin
from llama_export.verification.rows import NO_CHECKPOINT, NO_WEIGHTS, Row, judged, unchecked

_STRUCTURE = "structure"
_PARTS = {
    "floats_checkpoint": "norms and float matrices that differ from the checkpoint's",
    "rounded_checkpoint": "tensors that are not the checkpoint's, rounded to nearest",
}


def origin_rows(origin: Origin, *, has_weights: bool) -> list[Row]:
    """Judge whether the weights come from the checkpoint.

    Args:
        origin: comparison with the checkpoint.
        has_weights: whether the quantised weights are at hand.
    """
    missing = NO_CHECKPOINT if has_weights else NO_WEIGHTS
    found = (origin.floats, origin.rounded)
    rows = [
        _row(key, name, agreement, missing)
        for (key, name), agreement in zip(_PARTS.items(), found, strict=True)
        if agreement is None or agreement.compared
    ]
    if not origin.has_kept:
        return rows
    name = "tensors whose codes or scales were not kept from the checkpoint"
    return [_row("codes_checkpoint", name, origin.kept, NO_CHECKPOINT), *rows]


def _row(key: str, name: str, agreement: Agreement | None, missing: str) -> Row:
    if agreement is None:
        note = f"{missing}; that the weights come from the checkpoint is not proved"
        return unchecked(_STRUCTURE, key, name, note)
    count = agreement.compared
    note = f"{count} {'tensor' if count == 1 else 'tensors'} compared"
    if agreement.faults:
        note = f"first: {agreement.faults[0]}"
    return judged(_STRUCTURE, key, name, len(agreement.faults), 0, note)
