"""Lower a traced Llama to one delegate that takes it whole: Vulkan's, or Core ML's.

ExecuTorch's wheel for Linux can write the files of both and run neither. So what is written here
is lowered and looked at, and the report says no more than that. It knows the two partitioners; how
a Llama is written for them is `dialects.py`'s business.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim, ExportedProgram, export

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import LoweringError
from llama_export.llama.trace import TracedLlama
from llama_export.system.quiet import silenced
from llama_export.targets.executorch.options import COREML, VULKAN, ExecutorchOptions
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.running.runtime import load_toolkit
from llama_export.targets.executorch.single_delegate.dialects import CoreML, Vulkan
from llama_export.targets.executorch.single_delegate.module import (
    Dialect,
    SingleDelegateModule,
    product_names,
)
from llama_export.targets.executorch.xnnpack.host_program import HostForm
from llama_export.targets.executorch.xnnpack.lower import (
    MODEL_FILE,
    graph_spec,
    runner_metadata,
)
from llama_export.targets.executorch.xnnpack.partition import (
    products_outside,
    report_of,
)
from llama_export.targets.executorch.xnnpack.plan import plan
from llama_quantize.checkpoint.weights import QuantizedWeights

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager
    from executorch.exir.backend.partitioner import Partitioner

# Any length that is neither 1 nor another dimension: torch.export takes equal numbers for the same.
_EXAMPLE_TOKENS = 5
_HINT = "leave --delegate out: XNNPACK takes every product"


def lower_single_delegate(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: ExecutorchOptions,
    *,
    stop_token_ids: tuple[int, ...],
) -> GraphSpec:
    """Write model.pte for another delegate than XNNPACK.

    `share_table` changes nothing: Core ML always stores a tied table once, Vulkan's file has one
    for the lookup and one for the delegate. Core ML keeps the cache as float16 in any case.

    Args:
        traced: graph of the model; its `max_context` is the cache's capacity.
        weights: the quantised checkpoint, mapped.
        folder: existing folder that gets the file.
        options: the user's choices, checked; the delegate is `VULKAN` or `COREML`.
        stop_token_ids: tokens at which a runner stops.

    Raises:
        BackendUnavailableError: executorch is not there, or is another version.
        LoweringError: the delegate does not take a storage form, or leaves a product to the
            runtime.
    """
    delegate = options.delegate
    load_toolkit()
    whole = plan(traced, all_logits=options.all_logits)
    form = HostForm(traced.config, traced.max_context, options)
    dialect: Dialect = Vulkan() if delegate == VULKAN else CoreML()
    module = SingleDelegateModule(form, whole, weights, dialect).eval()
    metadata = dict(runner_metadata(form, stop_token_ids)) | _own_metadata(delegate)
    with _quiet():
        edge = _lowered_or_refused(_exported(module, form, delegate), delegate, metadata)
        names = product_names(whole, module)
        left = products_outside(edge.exported_program(), names)
        if left:
            message = f"{delegate} leaves {len(left)} of {len(names)} products: {', '.join(left)}"
            raise LoweringError(message, _HINT)
        _write(edge, folder / MODEL_FILE)
    report = report_of(Pte.open(folder / MODEL_FILE), delegate, len(names))
    # Core ML's own format hides the cache, which it keeps in float16.
    item_bytes = 2 if delegate == COREML else 4
    cache = traced.config.num_key_value_heads * traced.config.head_dim * item_bytes
    per_token = 2 * traced.config.num_hidden_layers * cache
    described = {**report.to_json(), "kv_bytes_per_token": per_token}
    return replace(_spec(form, delegate), delegate=described)


def _own_metadata(delegate: str) -> dict[str, Any]:
    """Return what the runners must know beside XNNPACK's: Core ML takes one token a call."""
    if delegate == VULKAN:
        return {}
    return {"enable_dynamic_shape": False, "use_sdpa_with_kv_cache": False}


def _spec(form: HostForm, delegate: str) -> GraphSpec:
    spec = graph_spec(form)
    if delegate == VULKAN:
        return spec
    inputs, outputs = (
        tuple(
            replace(tensor, shape=tuple(1 if isinstance(n, str) else n for n in tensor.shape))
            for tensor in tensors
        )
        for tensors in (spec.inputs, spec.outputs)
    )
    return replace(spec, inputs=inputs, outputs=outputs)


def _exported(module: SingleDelegateModule, form: HostForm, delegate: str) -> ExportedProgram:
    count = 1 if delegate == COREML else min(_EXAMPLE_TOKENS, form.max_context)
    length = Dim("tokens", min=1, max=form.max_context) if count > 1 else None
    with torch.no_grad():
        return export(
            module,
            (torch.zeros(1, count, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)),
            dynamic_shapes=({1: length} if length else None, None),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _lowered_or_refused(
    program: ExportedProgram, delegate: str, metadata: Mapping[str, Any]
) -> EdgeProgramManager:
    try:
        return _lowered(program, delegate, metadata)
    except Exception as error:  # what a partitioner raises is of any kind
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
        message = f"ExecuTorch's exporter cannot make a delegate of {delegate}: {said}"
        raise LoweringError(message, _HINT) from error


def _lowered(
    program: ExportedProgram, delegate: str, metadata: Mapping[str, Any]
) -> EdgeProgramManager:
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    return to_edge_transform_and_lower(
        program,
        partitioner=[_vulkan() if delegate == VULKAN else _coreml()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
        constant_methods=dict(metadata),
    )


def _vulkan() -> Partitioner:
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return VulkanPartitioner()


def _coreml() -> Partitioner:
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=coremltools.precision.FLOAT16,
        # Not the Neural Engine: it does not run int4 with a scale a group.
        compute_unit=coremltools.ComputeUnit.CPU_AND_GPU,
        # The first with int4 weights and with a state.
        minimum_deployment_target=coremltools.target.iOS18,
    )
    return CoreMLPartitioner(compile_specs=specs, take_over_mutable_buffer=True)


def _write(edge: EdgeProgramManager, path: Path) -> None:
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass

    emitted = edge.to_executorch(
        ExecutorchBackendConfig(
            extract_delegate_segments=True,
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
        )
    )
    with path.open("wb") as file:
        emitted.write_to_file(file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters warn and log from the screen, and undo what they set for logging."""
    root = logging.getLogger()
    kept = root.level, root.handlers[:], root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(kept[0])
        root.handlers[:] = kept[1]
        logging.disable(kept[2])
