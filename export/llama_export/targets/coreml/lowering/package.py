"""Write functions as a Core ML package, the same bytes each time, described for Xcode.

coremltools gives a package random identifiers, and its maps another order in each run; both are
fixed here. It knows packages and their metadata; it knows no operators.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import OutputError
from llama_export.system.quiet import silenced
from llama_export.targets.coreml.lowering.inputs import opset
from llama_export.targets.coreml.lowering.metadata import describe_model
from llama_export.targets.coreml.options import CoremlOptions
from llama_export.targets.target import ArtifactMetadata

MANIFEST = "Manifest.json"
DATA_FOLDER = "Data/com.apple.CoreML"
MODEL_FILE = "model.mlmodel"
WEIGHTS_FOLDER = "weights"
_AUTHOR = "com.apple.CoreML"
# A package's files stand under identifiers in its manifest, which need only differ.
_MODEL_ID = "6C6C616D-612D-4578-706F-000000000001"
_WEIGHTS_ID = "6C6C616D-612D-4578-706F-000000000002"

# How coremltools begins to say that the disk is full, or gone.
_WRITER_FAILS = ("[MIL FileWriter]", "filesystem error")


@dataclass(frozen=True)
class PackageFunction:
    """One function of the package.

    Args:
        name: name of the function.
        function: coremltools' object.
        types: types of its inputs with the ranges of their shapes; empty when they are fixed.
    """

    name: str
    function: Any
    types: tuple[Any, ...]


def save_package(
    parts: Sequence[PackageFunction],
    spec: GraphSpec,
    path: Path,
    scratch: Path,
    options: CoremlOptions,
    metadata: ArtifactMetadata,
) -> None:
    """Write a package.

    Args:
        parts: functions of the package; a client that names none gets the last.
        spec: signature of the package.
        path: path of the package, which must not exist.
        scratch: folder on the same disk.
        options: the user's choices.
        metadata: description of the model.
    """
    import coremltools as ct
    from coremltools.converters.mil.mil import Program

    program = Program()
    for part in parts:
        if part.types:
            part.function.set_input_types(part.types)
        program.add_function(part.name, part.function)
    if len(parts) > 1:
        program.export_as_multifunction = True
        program.default_function_name = parts[-1].name
    with _temporary_files_in(scratch), silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves a folder to the garbage collector
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=opset(options),
            # "Leave the types as they are written", and not "use float32".
            compute_precision=ct.precision.FLOAT32,
            # The graph stays as it was built: coremltools would drop a norm whose weights are
            # ones, and merge scales that differ by little.
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            package_dir=str(path),
        )
    _finish(path, spec, options, metadata)


@contextlib.contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn what the disk's end is called, here and in coremltools, into our error.

    Raises:
        OutputError: the package cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    except RuntimeError as error:  # its writer's only class
        if not any(words in str(error) for words in _WRITER_FAILS):
            raise
        raise _unwritable(path, str(error)) from error


def _unwritable(path: Path, why: str) -> OutputError:
    message = f"{path} cannot be written: {why}"
    return OutputError(message, "free some space, or choose another output folder")


def _finish(
    path: Path, spec: GraphSpec, options: CoremlOptions, metadata: ArtifactMetadata
) -> None:
    """Describe the model, and remove what differs from one run to the next."""
    from coremltools.proto import Model_pb2

    file = path / DATA_FOLDER / MODEL_FILE
    model = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    describe_model(model, spec, options, metadata)
    file.unlink()  # coremltools' own may be read by nobody else
    file.write_bytes(model.SerializeToString(deterministic=True))
    shutil.copymode(path, path / DATA_FOLDER / WEIGHTS_FOLDER)
    entries = {
        _MODEL_ID: {
            "author": _AUTHOR,
            "description": "CoreML Model Specification",
            "name": MODEL_FILE,
            "path": f"{_AUTHOR}/{MODEL_FILE}",
        },
        _WEIGHTS_ID: {
            "author": _AUTHOR,
            "description": "CoreML Model Weights",
            "name": WEIGHTS_FOLDER,
            "path": f"{_AUTHOR}/{WEIGHTS_FOLDER}",
        },
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": _MODEL_ID,
    }
    text = json.dumps(manifest, indent=4) + "\n"
    (path / MANIFEST).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Make coremltools put its temporary weights on the output's disk, not into memory."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
