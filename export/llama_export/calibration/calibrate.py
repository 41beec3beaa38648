"""Prepare a calibration: its text, what decides it, and where an interrupted run left off.

It brings together what the files beside it make. What is sampled and measured is kept in one folder
until the result is in place, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llama_export.calibration.curvature import measure_curvature
from llama_export.calibration.kept_windows import text_key, windows_once
from llama_export.calibration.options import CalibrationOptions, curvature_tokens
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_export.calibration.windows import CalibrationWindows, gather_windows
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.errors import NOTICE
from llama_export.llama.streamed import weight_rows
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.version import __version__
from llama_quantize.calibration import Needs
from llama_quantize.groupwise import BLOCK_WEIGHTS, row_blocks
from llama_quantize.methods.method import find_method
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import GroupedInt

CALIBRATION_FOLDER = ".calibration"
"""Name of the folder in the output that a calibration works in."""
LAYERS_FOLDER = "layers"
"""Name of the folder in it that holds what is done of the layers."""
_log = logging.getLogger(__name__)
Step = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows a step of the work; the callable inside takes how much of it is done, and of how much."""


@dataclass(frozen=True)
class Place:
    """Where a calibration works, and where it is shown.

    Args:
        folder: folder that it may fill, and that outlives an interrupted run.
        step: what shows its steps.
    """

    folder: Path
    step: Step


def calibration_for(
    recipe: QuantRecipe,
    checkpoint: Checkpoint,
    form: ChatFormat,
    options: CalibrationOptions,
    place: Place,
) -> StreamedCalibration | None:
    """Return what a recipe needs to know of a model; None: its methods ask for nothing.

    Args:
        recipe: rules that the checkpoint will be quantised by.
        checkpoint: model of floats.
        form: how its dialogs are written, with its tokenizer.
        options: text that is wanted.
        place: where it works.

    Raises:
        QuantizationError: a method is unknown.
        LlamaExportError: the text cannot be used, or the model writes none.
        OSError: the disk is full.
    """
    methods = {rule.method for rule in recipe.rules if isinstance(rule.scheme, GroupedInt)}
    calibrated = [each for name in sorted(methods) if (each := find_method(name)).needs]
    if not calibrated:
        return None
    needs = max(each.needs for each in calibrated)
    settings = {
        each.name: ", ".join(f"{key} {value}" for key, value in each.settings.items())
        for each in calibrated
    }
    base = _fingerprint(checkpoint)
    windows = _windows(checkpoint, form, options, place, base)
    about = {**windows.origin, **settings}
    curvature: Callable[[str], Tensor | None] = _unknown
    if needs >= Needs.CURVATURE:
        most = curvature_tokens(checkpoint.config.num_parameters)
        some = windows.ids[: max(1, most // windows.ids.shape[1])]
        about["curvature_tokens"] = str(some.numel())
        key = _key(base, windows.origin, {"curvature": about["curvature_tokens"]})
        with place.step("Measuring the curvature") as advance:
            curvature = measure_curvature(
                checkpoint.config,
                checkpoint.tensor,
                some,
                options.seed,
                Scratch(place.folder / "curvature", key),
                advance,
            ).agreed
    scratch = Scratch(place.folder / LAYERS_FOLDER, _key(base, about, recipe.to_json()))
    if scratch.layer:
        layers = checkpoint.config.num_hidden_layers
        at = f"at layer {scratch.layer + 1}" if scratch.layer < layers else "behind the last"
        _log.log(NOTICE, "an interrupted calibration goes on %s of %d layers", at, layers)
    inputs = CalibrationInputs(windows.ids, needs, curvature, about)
    return StreamedCalibration(checkpoint, inputs, scratch)


def forget_calibration(output: Path) -> None:
    """Remove what a calibration kept in an output, whose result is in place now."""
    shutil.rmtree(output / CALIBRATION_FOLDER, ignore_errors=True)


def _unknown(name: str) -> Tensor | None:
    """Answer that a weight's curvature is not known."""
    return None


def _windows(
    checkpoint: Checkpoint, form: ChatFormat, options: CalibrationOptions, place: Place, base: str
) -> CalibrationWindows:
    place.folder.mkdir(parents=True, exist_ok=True)

    def gather() -> CalibrationWindows:
        with place.step("Writing text to calibrate on") as advance:
            return gather_windows(checkpoint, form, options, place.folder, advance)

    try:
        key = _key(base, {"text": text_key(form, options)})
        return windows_once(place.folder, key, checkpoint.config, gather)
    except BaseException:
        with suppress(OSError):  # it holds what an earlier run kept
            place.folder.rmdir()
        raise


def _fingerprint(checkpoint: Checkpoint) -> str:
    """Hash a checkpoint's shape and all of its weights: seconds beside what is not done again."""
    digest = hashlib.sha256(repr(checkpoint.config).encode())
    for name in checkpoint.names:
        digest.update(name.encode())
        tensor, (rows, *others) = checkpoint.tensor(name), checkpoint.shapes[name]
        for part in row_blocks(rows, math.prod(others), BLOCK_WEIGHTS):
            digest.update(weight_rows(tensor, part).contiguous().numpy().data)
    return digest.hexdigest()


def _key(base: str, *parts: Mapping[str, object]) -> str:
    """Hash all that decides what is computed, the machine's arithmetic included."""
    machine = {
        "version": __version__,
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps([base, machine, *parts]).encode()).hexdigest()
