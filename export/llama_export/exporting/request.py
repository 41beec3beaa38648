"""What a user asks of an export. It decides nothing and opens nothing: that is the plan's work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_export.calibration.options import OWN_TEXT, CalibrationOptions
from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.errors import OutputError, UsageError
from llama_export.exporting.recipe_name import DEFAULT_QUALITY, parse_built_in
from llama_export.targets import registry
from llama_export.targets.options import TargetOptions
from llama_quantize.printable import shown_name
from llama_quantize.recipe import QuantRecipe
from llama_quantize.recipe_file import read_recipe

DEFAULT_RECIPE = "int4"


@dataclass(frozen=True)
class ExportRequest:
    """What a user asks for.

    Args:
        model: an alias, a hub id, a folder, or "demo".
        targets: names of the targets.
        output: folder that gets one bundle for each target; None: `./<model>`.
        recipe: "int4", "int8", "bf16" or "fp16", or one with more in the word, such as
            "int4:g64:best"; None: int4, or what quantised weights have.
        group_size: number of weights that share a scale; None: the recipe's own.
        recipe_file: file with a recipe, in place of `recipe` and `group_size`; None: there is none.
        max_context: number of positions; None: each target's default, or the model's if it is less.
        options: each target's own options by its name; a target that is absent has its defaults.
        revision: branch, tag or commit of a hub repository.
        token: hub token; None: HF_TOKEN, or the saved login.
        keep_weights: keep the quantised weights in `OUTPUT/weights`.
        verify: run a short verification and publish nothing that fails it.
        force: replace what an earlier export wrote there.
        keep_extra: carry over what others put into a folder that is replaced.
        reading: how the checkpoint is to be read, where its files do not say it.
        quality: "fast", "good" or "best", how codes are chosen; None: good for int4, else fast.
        calibration: text that methods are calibrated on, where one needs any.
        table: "int8" or "int4", form of the token table and the output head; None: the recipe's
            own.
    """

    model: str
    targets: tuple[str, ...]
    output: Path | None = None
    recipe: str | None = None
    group_size: int | None = None
    recipe_file: Path | None = None
    max_context: int | None = None
    options: Mapping[str, TargetOptions] = field(default_factory=dict)
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    keep_weights: bool = True
    verify: bool = True
    force: bool = False
    keep_extra: bool = False
    reading: ReadOptions = AS_IT_IS
    quality: str | None = None
    calibration: CalibrationOptions = OWN_TEXT
    table: str | None = None

    @property
    def output_folder(self) -> Path:
        """The output; by default it has the name of the alias, the repository, folder or file.

        Of `organisation/name:TAG` it is `name-TAG`, because no folder everywhere can hold a colon.

        Raises:
            OutputError: no folder can have that name.
        """
        if self.output is not None:
            return _possible(self.output)
        named = Path(self.model)
        is_file = os.path.isfile(named)  # noqa: PTH113 - a name too long is no error here
        name = named.stem if is_file else named.name
        if not os.path.exists(named):  # noqa: PTH110
            name = name.replace(":", "-").removesuffix(".gguf")
        return _possible(Path(name if name not in ("", "..") else Path(self.model).resolve().name))

    def options_of(self, target: str) -> TargetOptions:
        """Return what was chosen for a target, or the target's defaults."""
        return self.options.get(target) or registry.get(target).Options()

    def chosen_recipe(self) -> QuantRecipe:
        """Return the recipe for a checkpoint that is not quantised.

        Raises:
            UsageError: a recipe file, and a recipe, a group size or a table beside it; or a
                recipe's word that says what is said beside it.
            QuantizationError: the recipe is unknown, or has no such group size or table; or its
                file cannot be read or says what no recipe says.
        """
        if self.recipe_file is not None:
            if any(each is not None for each in (self.recipe, self.group_size, self.table)):
                message = "--recipe names a whole recipe, and --quantize, --group-size or --table"
                message += " another"
                raise UsageError(message, "write base, group_size and table into the file")
            written = read_recipe(self.recipe_file)
            return self._with_calibration(written.recipe(self._quality(written.base)))
        name = parse_built_in(self.recipe or DEFAULT_RECIPE)
        whole = name.beside(self.group_size, self.table, self.quality).resolved()
        return self._with_calibration(whole.recipe())

    @property
    def chooses_codes(self) -> bool:
        """Whether another form of the weights is asked for than a checkpoint may bring."""
        asked = (self.recipe, self.group_size, self.table, self.recipe_file, self.quality)
        return any(each is not None for each in asked) or self.calibration.is_chosen

    def _quality(self, name: str) -> str | None:
        """Return the quality for a built-in recipe: int4 is calibrated unless told otherwise."""
        return DEFAULT_QUALITY.get(name) if self.quality is None else self.quality

    def _with_calibration(self, chosen: QuantRecipe) -> QuantRecipe:
        """Refuse a text to calibrate on that no method would read."""
        if self.calibration.is_chosen and not chosen.is_calibrated:
            message = "a text to calibrate on was chosen, and no method of the recipe reads any"
            raise UsageError(message, "pass --quality good or best with int4 or int8")
        return chosen


def _possible(folder: Path) -> Path:
    """Refuse what the system cannot even be asked about."""
    try:
        possible = b"\0" not in os.fsencode(folder)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        message = f"the output {shown_name(repr(str(folder)))} cannot be the name of a folder"
        raise OutputError(message, "choose another one with --output")
    return folder
