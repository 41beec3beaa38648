"""What a surface is: which file is mutated how, which commands read it, what may come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuzzing.mutate_bytes import Mutator

# What may come of an input that is taken: see `judge`.
CHECKPOINT, SEALED, UNSEALED, PROVED, TEXT = "checkpoint", "sealed", "unsealed", "proved", "text"


@dataclass(frozen=True)
class Mutated:
    """One file of a surface.

    Args:
        path: its path in the folder of a case.
        mutators: functions of which one is drawn.
        weight: how often the file is drawn.
        part: part of a container; empty for the file itself.
        focus: number of bytes at the front to which most mutations are kept; 0: the whole file.
    """

    path: str
    mutators: Sequence[Mutator]
    weight: int = 1
    part: str = ""
    focus: int = 0


@dataclass(frozen=True)
class Verb:
    """A command line, with places in braces that a case fills in."""

    name: str
    arguments: tuple[str, ...]
    weight: int = 1


@dataclass(frozen=True)
class Surface:
    """One way of an input into the product.

    Args:
        name: as on the command line.
        folders: what a case's folder is a copy of, of the fixtures.
        files: files that are mutated, one in a case.
        verbs: commands, of which a case runs one.
        kind: what may come of an input that is taken.
        target: the bundle's target; empty where there is no bundle.
        writes_files_only: whether the lowering is left out of an export, and its files alone are
            written: a case then takes milliseconds.
        share: how many of a thousand cases it gets when all surfaces are asked for.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[Mutated, ...]
    verbs: tuple[Verb, ...]
    kind: str
    target: str = ""
    writes_files_only: bool = False
    share: int = 10

    @property
    def is_slow(self) -> bool:
        """Whether a case is a whole export or a verification, and so takes a good second."""
        return self.kind == PROVED or (self.kind == CHECKPOINT and not self.writes_files_only)
