"""What a user asks of a comparison: recipes, and texts that are not tokenized yet.

It reads the texts, and nothing of the model; it imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_export.calibration.options import OWN_TEXT, CalibrationOptions
from llama_export.errors import UsageError
from llama_export.exporting.recipe_name import RecipeName
from llama_export.sources.resolve import NamedModel
from llama_export.verification.samples import BUILT_IN, read_text, sample_text


@dataclass(frozen=True)
class NamedText:
    """A text, not tokenized yet.

    Args:
        name: its name in the results.
        content: the text.
        path: file that it came from; None: it is built in.
    """

    name: str
    content: str
    path: Path | None = None

    @property
    def sha256(self) -> str:
        """Hash of its content as UTF-8."""
        return hashlib.sha256(self.content.encode("utf-8")).hexdigest()


def named_texts(paths: Sequence[Path]) -> tuple[NamedText, ...]:
    """Read the texts that were named, or take the one that `verify` takes.

    Raises:
        PromptError: a file is not there, is no file, or is not UTF-8.
    """
    if not paths:
        return (NamedText(BUILT_IN, sample_text()),)
    read = [read_text(path) for path in dict.fromkeys(paths)]
    return tuple(NamedText(each.path.name, each.content, each.path) for each in read)


@dataclass(frozen=True)
class RecipesRequest:
    """What a user asks for.

    Args:
        named: meaning of the model's name, with the adapters over it.
        recipes: recipes, each with its quality.
        texts: texts to read.
        positions: most positions to read of each text.
        reference: checkpoint that all are held against; None: the model's own.
        calibration: text that methods are calibrated on, where one needs any.
        token: hub token; None: HF_TOKEN, or the saved login.
    """

    named: NamedModel
    recipes: tuple[RecipeName, ...]
    texts: tuple[NamedText, ...]
    positions: int
    reference: NamedModel | None = None
    calibration: CalibrationOptions = OWN_TEXT
    token: str | None = None

    def __post_init__(self) -> None:
        read = {each.path.resolve() for each in self.texts if each.path is not None}
        for file in self.calibration.files:
            if file.resolve() in read:
                message = f"--calibration and --text: {file} is both"
                raise UsageError(message, "measure on a text that nothing was calibrated on")
