"""A case: a surface, a command, a file and its edits; drawn from a seed and a number.

The same seed and number give the same case on the same fixtures. It runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.containers import edited, parts
from fuzzing.edits import Edit
from fuzzing.mutate_bytes import Mutator
from fuzzing.surface import Mutated, Surface
from fuzzing.surfaces import SURFACES

_MOST_TRIES = 20
# How often a mutation stays within the front of a file that has one.
_FOCUSED = 0.8
_STACKED = 0.2


@dataclass(frozen=True)
class Case:
    """One mutated input and the command that reads it.

    Args:
        surface: name of the surface.
        verb: name of the command among the surface's.
        path: the mutated file in the folder of the case.
        edits: its edits.
    """

    surface: str
    verb: str
    path: str
    edits: tuple[Edit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a form for a file."""
        edits = [edit.to_json() for edit in self.edits]
        return {"surface": self.surface, "verb": self.verb, "path": self.path, "edits": edits}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Case:
        """Read what `to_json` returned."""
        edits = tuple(Edit.from_json(edit) for edit in written["edits"])
        return cls(written["surface"], written["verb"], written["path"], edits)

    def content(self, base: Path) -> bytes:
        """Return the mutated file."""
        return edited(self.path, (base / self.path).read_bytes(), self.edits)


def draw(surface: Surface, seed: int, number: int, base: Path) -> Case:
    """Draw a case; its file differs from the one in the fixtures.

    Args:
        surface: where it goes in.
        seed: seed of the campaign.
        number: number of the case on this surface.
        base: folder of the fixtures.

    Raises:
        RuntimeError: no mutation of the surface changes anything.
    """
    rng = Random(f"{surface.name}:{seed}:{number}")
    verb = rng.choices(surface.verbs, [each.weight for each in surface.verbs])[0]
    file = rng.choices(surface.files, [each.weight for each in surface.files])[0]
    whole = (base / file.path).read_bytes()
    for _ in range(_MOST_TRIES):
        edits = _edits(file, whole, rng)
        if edited(file.path, whole, edits) != whole:
            return Case(surface.name, verb.name, file.path, edits)
    message = f"{surface.name}: nothing changes {file.path}"
    raise RuntimeError(message)


def replayed(text: str) -> list[Case]:
    """Read the cases of a JSON text: one, or a list of them."""
    written = json.loads(text)
    return [Case.from_json(each) for each in (written if isinstance(written, list) else [written])]


def surface_of(case: Case) -> Surface:
    """Return the surface of a case."""
    return SURFACES[case.surface]


def _edits(file: Mutated, whole: bytes, rng: Random) -> tuple[Edit, ...]:
    content = parts(file.path, whole)[file.part] if file.part else whole
    if file.focus and rng.random() < _FOCUSED:
        content = content[: file.focus]
    found = _placed(rng.choice(file.mutators), content, rng, file.part)
    if rng.random() < _STACKED:
        more = _placed(rng.choice(file.mutators), content, rng, file.part)
        # Edits of two mutations that lie over each other would be neither of them.
        taken = [range(edit.at, edit.at + edit.remove + 1) for edit in found]
        found += [
            edit
            for edit in more
            if not any(edit.at in each or each.start in _range(edit) for each in taken)
        ]
    return tuple(found)


def _range(edit: Edit) -> range:
    return range(edit.at, edit.at + edit.remove + 1)


def _placed(mutate: Mutator, content: bytes, rng: Random, part: str) -> list[Edit]:
    return [replace(each, part=part) for each in mutate(content, rng)]
