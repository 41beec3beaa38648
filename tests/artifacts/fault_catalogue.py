"""The catalogue of faults: at least forty for each target, as a buggy exporter would write them.

Each is put into a sealed bundle of a random model with three layers and sealed again, so that only
a verification can find it. What is found by name beside the artifact is in `side_file_faults`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from artifacts import tiny

CONFIG = dataclasses.replace(tiny.TINY, num_hidden_layers=3)
CONTEXT = 128
# Puts a fault into the folder of a bundle.
Edit = Callable[[Path], None]


def _onnx() -> Mapping[str, Edit]:
    from artifacts import faults, onnx_graph_faults

    def edited(change: Callable[[faults.Artifact], None]) -> Edit:
        def edit(folder: Path) -> None:
            artifact = faults.Artifact(folder)
            change(artifact)
            artifact.write()

        return edit

    found = {name: fault.edit for name, fault in {**faults.TEN, **faults.MORE}.items()}
    for group in (
        onnx_graph_faults.WAYS,
        onnx_graph_faults.SETTINGS,
        onnx_graph_faults.OPERATORS,
    ):
        found |= {name: change for name, (change, _) in group.items()}
    return {name: edited(change) for name, change in found.items()}


def _executorch() -> Mapping[str, Edit]:
    from artifacts import pte_faults, pte_weight_faults

    def edited(change: Callable[[pte_faults.Edited], None]) -> Edit:
        def edit(folder: Path) -> None:
            pte = pte_faults.Edited(folder / "model.pte")
            change(pte)
            pte.write()

        return edit

    found = {name: change for name, (change, *_) in pte_faults.BYTES.items()}
    found |= {
        **pte_weight_faults.WEIGHTS,
        **pte_weight_faults.ARGUMENTS,
        **pte_weight_faults.TYPES,
        **pte_weight_faults.MEMORY,
    }
    return {name: edited(change) for name, change in found.items()}


def _coreml() -> Mapping[str, Edit]:
    from artifacts import coreml_faults, coreml_graph_faults, coreml_weight_faults

    def saved(change: Callable[[coreml_faults.Saved], None]) -> Edit:
        def edit(folder: Path) -> None:
            package = coreml_faults.Saved(folder)
            change(package)
            package.write()

        return edit

    def program(change: Callable[[coreml_graph_faults.Program], None]) -> Edit:
        def edit(folder: Path) -> None:
            package = coreml_graph_faults.Program(folder)
            change(package)
            package.write()

        return edit

    found = {name: saved(change) for name, (change, *_) in coreml_faults.FAULTS.items()}
    weights = {**coreml_weight_faults.WEIGHTS, **coreml_weight_faults.PROGRAM}
    found |= {name: saved(change) for name, change in weights.items()}
    for group in (coreml_graph_faults.WAYS, coreml_graph_faults.OTHERS):
        found |= {name: program(change) for name, (change, *_) in group.items()}
    return found | {"a window of 100": program(coreml_graph_faults.a_window_of(100))}


CATALOGUE: Mapping[str, Callable[[], Mapping[str, Edit]]] = {
    "onnx": _onnx,
    "executorch": _executorch,
    "coreml": _coreml,
}
