"""Turn what a bundle holds into rows: files, codes and scales, floats, rotary tables.

It compares hashes and knows rows; it reads nothing.
"""

from __future__ import annotations

from llama_export.verification.measure.structure import Hashes, Structure
from llama_export.verification.rows import Row, informed, judged, unchecked

_STRUCTURE = "structure"
# Cosines and sines of two processors may differ in the last bits, by two roundings of float32 near
# 1 at most; a position more is 1e-4 or more.
_ROTARY_LIMIT = 2e-7


def structure_rows(structure: Structure) -> list[Row]:
    """Judge the files and the weights inside the artifact."""
    return [
        _files_row(structure),
        *_codes_rows(structure),
        _floats_row(structure),
        _rotary_row(structure),
    ]


def _files_row(structure: Structure) -> Row:
    """Report the files that nobody listed; a listed one that was changed has raised already.

    Those of them that a client would read are judged with the other files.
    """
    unlisted = structure.unlisted
    note = f"besides, not in the manifest: {', '.join(unlisted)}" if unlisted else ""
    return judged(_STRUCTURE, "files", "files that differ from the manifest", 0, 0, note)


def _codes_rows(structure: Structure) -> list[Row]:
    found = structure.found.quantized
    manifest = ("codes_manifest", "tensors whose codes or scales differ from the manifest's")
    weights = ("codes_weights", "tensors whose codes or scales differ from the weights'")
    rows = [_codes_row(*manifest, structure.recorded, found)]
    if structure.expected is None:
        note = "no quantised weights; that the artifact holds them is not proved"
        rows.append(unchecked(_STRUCTURE, *weights, note))
    else:
        rows.append(_codes_row(*weights, structure.expected.quantized, found))
    return rows


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
        return informed(_STRUCTURE, key, name, 0, "nothing is quantised")
    note = f"first: {faults[0]}" if faults else f"{len(found)} tensors read back and hashed"
    return judged(_STRUCTURE, key, name, len(faults), 0, note)


def _floats_row(structure: Structure) -> Row:
    key, name = "floats_weights", "norms and float matrices that differ from the weights'"
    if structure.expected is None:
        note = "no quantised weights; that the artifact holds their norms is not proved"
        return unchecked(_STRUCTURE, key, name, note)
    expected, found = structure.expected.floats, structure.found.floats
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    note = f"first: {wrong[0]}" if wrong else f"{len(found)} tensors read back and hashed"
    return judged(_STRUCTURE, key, name, len(wrong), 0, note)


def _rotary_row(structure: Structure) -> Row:
    key, name = "rotary", "largest difference of the rotary tables"
    rotary = structure.rotary
    if rotary is None:
        note = "this artifact has no rotary tables to read back"
        return unchecked(_STRUCTURE, key, name, note)
    note = rotary.where or f"{rotary.positions} positions"
    return judged(_STRUCTURE, key, name, rotary.value, _ROTARY_LIMIT, note)
