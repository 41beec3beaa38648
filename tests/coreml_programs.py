"""Small Core ML programs for tests, written with coremltools' Builder and saved as packages.

coremltools is imported quietly: it warns about the versions of what it finds installed, and logs
that its macOS parts are missing, both of which say nothing about a saved program.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools", reason="needs the coreml extra")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence coremltools' import and its passes: version warnings, and lost macOS libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


with quiet():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types

Graph = Callable[..., Any]
DTYPES = {
    "fp16": types.fp16,
    "fp32": types.fp32,
    "int32": types.int32,
    "bool": types.bool,
}


def placeholder(shape: Sequence[Any], dtype: str) -> Any:
    return mb.placeholder(tuple(shape), DTYPES[dtype])


def function(
    specs: Mapping[str, Any],
    graph: Graph,
    *,
    target: Any = None,
    input_types: Sequence[Any] = (),
) -> Any:
    """Build one MIL function; `graph` gets the inputs by name and returns the outputs."""
    with Function(dict(specs), target or ct.target.iOS18) as built:
        outputs = graph(**built.inputs)
        built.set_outputs(list(outputs) if isinstance(outputs, (list, tuple)) else [outputs])
    if input_types:
        built.set_input_types(tuple(input_types))
    return built


def save(
    path: Path,
    functions: Mapping[str, Any],
    *,
    target: Any = None,
    passes: bool = True,
    default: str = "main",
) -> Path:
    """Save a package; without `passes` the program is what was built, op for op."""
    with quiet():
        program = Program()
        for name, built in functions.items():
            program.add_function(name, built)
        if len(functions) > 1:
            program.export_as_multifunction = True
            program.default_function_name = default
        if not passes:
            program.skip_all_passes = True
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target or ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,  # the dtypes stay as they are written
            skip_model_load=True,
        ).save(str(path))
    return path


def build(
    path: Path,
    specs: Mapping[str, Any],
    graph: Graph,
    *,
    target: Any = None,
    input_types: Sequence[Any] = (),
    passes: bool = True,
) -> Path:
    """Build and save a package with one function `main`."""
    with quiet():
        built = function(specs, graph, target=target, input_types=input_types)
    return save(path, {"main": built}, target=target, passes=passes)


def int4(codes: np.ndarray) -> np.ndarray:
    """Return int8 codes in -8..7 as what coremltools takes for int4."""
    return codes.astype(np.int8).view(sub_byte("int4"))


def sub_byte(name: str) -> Any:
    """Return coremltools' numpy dtype of a type such as `uint4`."""
    from coremltools.converters.mil.mil.types.type_mapping import (
        nptype_from_builtin,
        string_to_builtin,
    )

    return nptype_from_builtin(string_to_builtin(name))
