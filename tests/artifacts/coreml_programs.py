"""Small Core ML programs for tests, written with coremltools' Builder and saved as packages."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_export.system.quiet import silenced

pytest.importorskip("coremltools", reason="needs the coreml extra")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence coremltools: it warns of versions and lost macOS parts, and draws progress bars.

    Each of its conversions also collects garbage, which walks over all that was ever imported, for
    longer than the conversion takes. What is there already is therefore left out of that walk.
    """
    gc.freeze()
    try:
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()


with quiet():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types
    from coremltools.converters.mil.mil.types.type_mapping import (
        nptype_from_builtin,
        string_to_builtin,
    )

__all__ = ["Function", "Program", "build", "ct", "function", "mb", "quiet", "save", "types"]

IOS15, IOS16, IOS17, IOS18 = (
    ct.target.iOS15,
    ct.target.iOS16,
    ct.target.iOS17,
    ct.target.iOS18,
)
DTYPES = {
    "float16": types.fp16,
    "float32": types.fp32,
    "int32": types.int32,
}


def placeholder(shape: Sequence[Any], dtype: str) -> Any:
    return mb.placeholder(tuple(shape), DTYPES[dtype])


def placeholders(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return inputs of the arrays' shapes and dtypes."""
    return {name: placeholder(array.shape, array.dtype.name) for name, array in arrays.items()}


def state(shape: Sequence[int]) -> Any:
    return mb.state_tensor_placeholder(tuple(shape), types.fp16)


def function(
    specs: Mapping[str, Any],
    graph: Callable[..., Any],
    *,
    target: Any = IOS18,
    input_types: Sequence[Any] = (),
) -> Any:
    """Build one MIL function; `graph` gets the inputs by name and returns the outputs."""
    with quiet(), Function(dict(specs), target) as built:
        outputs = graph(**built.inputs)
        built.set_outputs(list(outputs) if isinstance(outputs, (list, tuple)) else [outputs])
        if input_types:
            built.set_input_types(tuple(input_types))
    return built


def save(
    path: Path,
    functions: Mapping[str, Any],
    *,
    target: Any = IOS18,
    passes: bool = True,
) -> Path:
    """Save a package; without `passes` the program is what was built, op for op."""
    with quiet():
        program = Program()
        for name, built in functions.items():
            program.add_function(name, built)
        program.default_function_name = next(iter(functions))
        program.export_as_multifunction = len(functions) > 1
        program.skip_all_passes = not passes
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,  # the dtypes stay as they are written
            skip_model_load=True,
        ).save(str(path))
    return path


def build(
    path: Path,
    specs: Mapping[str, Any],
    graph: Callable[..., Any],
    *,
    target: Any = IOS18,
    input_types: Sequence[Any] = (),
    passes: bool = False,
) -> Path:
    """Build and save a package with one function `main`."""
    built = function(specs, graph, target=target, input_types=input_types)
    return save(path, {"main": built}, target=target, passes=passes)


def sub_byte(codes: np.ndarray, dtype: str) -> np.ndarray:
    """Return small integers as what coremltools takes for a dtype such as int4 or uint3."""
    held = np.int8 if dtype.startswith("int") else np.uint8
    return codes.astype(held).astype(nptype_from_builtin(string_to_builtin(dtype)))


def model_file(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def weight_file(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def edit(package: Path, change: Callable[[Any], None]) -> None:
    """Change a saved model through coremltools' own messages."""
    with quiet():
        from coremltools.proto import Model_pb2
    model = Model_pb2.Model()
    model.ParseFromString(model_file(package).read_bytes())
    change(model)
    model_file(package).write_bytes(model.SerializeToString())


def operations(model: Any, function_name: str = "main") -> Any:
    """Return a saved function's ops, which may be changed."""
    function_ = model.mlProgram.functions[function_name]
    return function_.block_specializations[function_.opset].operations
