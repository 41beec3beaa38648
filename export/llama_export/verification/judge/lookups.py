"""Turn what an artifact looks up, and how its graph is wired, into rows.

It knows rows; it runs and reads nothing.
"""

from __future__ import annotations

from llama_export.targets.wiring import Attribute, Wiring
from llama_export.verification.measure.lookups import Lookups, WrongRow
from llama_export.verification.rows import Row, judged, unchecked

_STRUCTURE = "structure"
_SHOWN = 8


def lookup_row(lookups: Lookups | None, *, has_weights: bool) -> Row:
    """Judge the rows that ids get; not one may be another's."""
    key, name = "lookups", "ids that get another row than the table's"
    if lookups is None:
        missing = "no quantised weights" if not has_weights else "the artifact cannot be cut"
        note = f"{missing}; that each id gets its own row is not proved"
        return unchecked(_STRUCTURE, key, name, note)
    if lookups.unreachable:
        note = f"what the first layer gets cannot be looked up: {lookups.unreachable}"
        return judged(_STRUCTURE, key, name, lookups.vocab_size, 0, note)
    wrong = {row.token_id: row for row in reversed(lookups.wrong)}
    note = _wrong_note(sorted(wrong.values(), key=lambda row: row.token_id)) if wrong else ""
    return judged(_STRUCTURE, key, name, len(wrong), 0, note or _right_note(lookups))


def wiring_rows(wiring: Wiring | None) -> list[Row]:
    """Judge the graph's operators, and their settings."""
    operators = ("wiring", "operators that a Llama does not have there")
    settings = ("attributes", "settings of operators that differ from the config's")
    if wiring is None:
        note = "this target's graphs are not followed; that nothing was put in is not proved"
        return [unchecked(_STRUCTURE, *part, note) for part in (operators, settings)]
    strangers = wiring.strangers
    followed = f"{wiring.operators} operators followed from the results back to the inputs"
    wrong = [each for each in wiring.attributes if not each.is_right]
    read = f"{len(wiring.attributes)} settings read back"
    return [
        judged(_STRUCTURE, *operators, len(strangers), 0, _first(strangers) or followed),
        judged(_STRUCTURE, *settings, len(wrong), 0, _first([_said(a) for a in wrong]) or read),
    ]


def _first(sentences: list[str] | tuple[str, ...]) -> str:
    return f"first: {sentences[0]}" if sentences else ""


def _said(attribute: Attribute) -> str:
    found, expected = (_value(each) for each in (attribute.found, attribute.expected))
    return f"{attribute.operator}: {attribute.name} is {found}, expected {expected}"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.7g}"


def _right_note(lookups: Lookups) -> str:
    if lookups.looked_up == lookups.vocab_size:
        return f"all {lookups.vocab_size} ids looked up"
    others = lookups.looked_up - lookups.special
    return f"{lookups.special} special tokens and {others} others of {lookups.vocab_size} looked up"


def _wrong_note(wrong: list[WrongRow]) -> str:
    named = ", ".join(_named(row) for row in wrong[:_SHOWN])
    more = ", ..." if len(wrong) > _SHOWN else ""
    return f"in {wrong[0].consumer}: {named}{more}"


def _named(row: WrongRow) -> str:
    return str(row.token_id) if row.held is None else f"{row.token_id} gets the row of {row.held}"
