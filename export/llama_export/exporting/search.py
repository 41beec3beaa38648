"""Measure what each form of each linear would cost a model, for a recipe that keeps to a budget.

It puts the steps in order: the model's weights, some text, the curvature, the costs. It prints
nothing; progress goes to the `Progress` that it is given.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.calibration.curvature import measure_curvature
from llama_export.calibration.options import CalibrationOptions
from llama_export.calibration.recipe_search import FormCosts
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.sensitivity import measure_costs
from llama_export.calibration.windows import gather_windows
from llama_export.exporting.opening import open_floats
from llama_export.exporting.pipeline import Progress
from llama_export.exporting.plan import fitted_recipe
from llama_export.llama.names import expected_shapes
from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.model_files import ModelFiles
from llama_export.sources.resolve import NamedModel
from llama_quantize.recipe import GROUP_SIZES, recipe
from llama_quantize.scheme import GroupedInt

FORMS = (*(GroupedInt(4, size) for size in GROUP_SIZES), GroupedInt(8, None))
"""What every target has. int8 in groups takes more bytes than int8 rows, whose error is a hundredth
of int4's already."""


@dataclass(frozen=True)
class Sensitivity:
    """What the forms of a model's linears would cost it.

    Args:
        model: name of the model.
        costs: costs with searched scales.
        origin: what decided them.
        table: form of the token table and the output head, whose bytes count; None: the default.
    """

    model: str
    costs: FormCosts
    origin: Mapping[str, str]
    table: str | None = None


def measure_sensitivity(
    named: NamedModel,
    options: CalibrationOptions,
    scratch: Path,
    progress: Progress,
    *,
    token: str | None = None,
    table: str | None = None,
) -> Sensitivity:
    """Measure what each form of each linear costs a model.

    Args:
        named: meaning of the model's name, with the adapters over it.
        options: text that is read.
        scratch: existing folder for what does not fit into memory, which is left as it was.
        progress: where the steps are shown.
        token: hub token; None: HF_TOKEN, or the saved login.
        table: form of the token table and the output head; None: the default.

    Raises:
        UsageError: the model is quantised already.
        CheckpointError: it lost more than int4 loses, and nobody accepted that.
        LlamaExportError: the model could not be fetched, or its weights or the text cannot be used.
    """
    source = open_floats(named, token, progress)
    checkpoint, config = source.checkpoint, source.config
    shapes = expected_shapes(config)
    settings = ModelFiles.of(source).tokenizer_config
    chat = own_chat_format(source.info.name, source.tokenizer, settings)
    with tempfile.TemporaryDirectory(prefix=".llama-export-", dir=scratch) as folder:
        with progress.step("Writing text to measure with") as advance:
            windows = gather_windows(checkpoint, chat, options, Path(folder), advance)
        with progress.step("Measuring the curvature") as advance:
            curvature = measure_curvature(
                config,
                checkpoint.tensor,
                windows.ids,
                options.seed,
                Scratch(Path(folder) / "curvature", ""),
                advance,
            )
        with progress.step("Measuring what each form costs") as advance:
            choices = measure_costs(checkpoint, windows.ids, curvature, FORMS, advance)
    schemes = fitted_recipe(recipe("int4", table=table), config).resolve(shapes).schemes
    fixed = sum(schemes[name].size_bytes(shapes[name]) for name in shapes if name not in choices)
    return Sensitivity(source.info.name, FormCosts(choices, fixed), windows.origin, table)
