"""Load an ONNX artifact into onnxruntime: as it is, or with changes made to its graph in memory.

The weights are never touched: they stay in their file. It knows options and graphs; it does not
know what a graph computes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import BackendUnavailableError, BundleError

if TYPE_CHECKING:
    import onnxruntime

# onnxruntime's own log level "fatal": what it calls an error it raises too, and on stderr it would
# quote the file raw.
_QUIET, _VERBOSE = 4, 1
# The accuracy level at which every product is computed in float32.
_FLOAT32_LEVEL = 1


def load_runtime(
    model: Path,
    *,
    threads: int | None = None,
    exact: bool = False,
    extra_outputs: Sequence[str] = (),
    graph: bytes | None = None,
    verbose: bool = False,
) -> onnxruntime.InferenceSession:
    """Load an artifact.

    Args:
        model: path of model.onnx.
        threads: number of runtime threads; None leaves it to onnxruntime (one a physical core).
        exact: compute every quantised product in float32, slowly.
        extra_outputs: names of float32 values inside the graph that come out as well.
        graph: another graph over the same data file, to be loaded in place of the artifact's own.
        verbose: let the runtime's messages through.

    Raises:
        BackendUnavailableError: onnxruntime is not installed.
        BundleError: the runtime cannot load the artifact.
    """
    # Its reports of use leave files in the user's cache folder, and lines on stderr where they
    # cannot; it asks for the word when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        message = f"onnxruntime is needed to run {model.name}, and it cannot be imported: {error}"
        hint = "pip install onnx onnxruntime, which is the extra 'onnx'"
        raise BackendUnavailableError(message, hint) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _VERBOSE if verbose else _QUIET
    if threads is not None:
        options.intra_op_num_threads = threads
    source: str | bytes = str(model)
    if exact or extra_outputs or graph is not None:
        source = graph or _changed_graph(model, extra_outputs, exact=exact)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(model.parent)
        )
    providers = ["CPUExecutionProvider"]
    try:
        # Its fallback would print to stdout, and load the same thing again.
        return onnxruntime.InferenceSession(
            source, options, providers=providers, enable_fallback=False
        )
    except Exception as error:  # its classes share no base but this; it is re-raised as ours
        message = f"onnxruntime cannot load {model}: {error}"
        hint = f"see whether a file was changed: llama-export inspect {model.parent} --hashes"
        raise BundleError(message, hint) from error


def _changed_graph(model: Path, extra_outputs: Sequence[str], *, exact: bool) -> bytes:
    """Return the same graph with every product exact, if wanted, and more outputs."""
    import onnx

    proto = onnx.load(str(model), load_external_data=False)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if exact and attribute.name == "accuracy_level":
                attribute.i = _FLOAT32_LEVEL
    for name in extra_outputs:
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        proto.graph.output.append(info)
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
