"""Lower a traced Llama to ExecuTorch: one `.pte` that the phone runners load as it is.

The story: cut the graph at its attentions, lower each kind of segment once, fill in each layer's
keys, export the forward pass around the calls, and put the weights' bytes into the emitted file.
It knows that order; each step is a module of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from llama_export.bundle.graph_spec import IO, GraphSpec, TensorSpec
from llama_export.errors import LoweringError
from llama_export.llama.names import is_adaptor
from llama_export.llama.trace import TracedLlama
from llama_export.targets.executorch.options import XNNPACK, ExecutorchOptions
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.xnnpack_blob import read_blob
from llama_export.targets.executorch.running.runtime import load_toolkit
from llama_export.targets.executorch.xnnpack.delegate import (
    BIAS,
    CODES,
    DelegateTemplate,
    Filling,
    lower_kind,
)
from llama_export.targets.executorch.xnnpack.host_program import (
    DelegateCall,
    HostForm,
    cache_names,
    export_host,
)
from llama_export.targets.executorch.xnnpack.partition import report_of
from llama_export.targets.executorch.xnnpack.plan import Segment, plan
from llama_export.targets.executorch.xnnpack.product_form import (
    FLOAT_BITS,
    ProductForm,
    float_form,
    product_form,
)
from llama_export.targets.executorch.xnnpack.segment_module import (
    WHOLE,
    ProductPart,
    SegmentKind,
    kind_of,
)
from llama_export.targets.executorch.xnnpack.weight_bytes import (
    WeightBytes,
    codes_bytes,
    float_bytes,
    kept_bytes,
    lookup_scales_bytes,
    scales_bytes,
)
from llama_export.targets.executorch.xnnpack.write import LookupTable, write_pte
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.tensor import QuantizedTensor

MODEL_FILE = "model.pte"


def lower(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: ExecutorchOptions,
    *,
    stop_token_ids: tuple[int, ...],
) -> GraphSpec:
    """Write model.pte.

    Args:
        traced: graph of the model; its `max_context` is the cache's capacity.
        weights: the quantised checkpoint, mapped.
        folder: existing folder that gets the file.
        options: the user's choices.
        stop_token_ids: tokens at which a runner stops.

    Raises:
        BackendUnavailableError: executorch is not there, or is another version.
        LoweringError: a node or a scheme has no form in XNNPACK.
    """
    load_toolkit()
    whole = plan(traced, all_logits=options.all_logits)
    form = HostForm(traced.config, traced.max_context, options)
    filler = _Filler(traced, weights)
    calls = [filler.call(segment) for segment in whole.segments]
    table = _table(weights, whole.table)
    with TemporaryDirectory(dir=folder, prefix=".emitted-") as scratch:
        emitted = Path(scratch) / MODEL_FILE
        _emit(export_host(form, table.form, calls), form, stop_token_ids, emitted)
        write_pte(
            emitted,
            folder / MODEL_FILE,
            filler.weight_bytes,
            table,
            share_table=options.share_table,
        )
    products = sum(part.form.bits != FLOAT_BITS for call in calls for part in call.kind.products())
    report = report_of(Pte.open(folder / MODEL_FILE), XNNPACK, products)
    delegate = {**report.to_json(), "kv_dtype": options.kv_dtype}
    return replace(graph_spec(form), delegate=delegate)


class _Filler:
    """Turns segments into calls; lowers each kind of segment once."""

    def __init__(self, traced: TracedLlama, weights: QuantizedWeights) -> None:
        self.weight_bytes: dict[str, WeightBytes] = {}
        self._traced = traced
        self._weights = weights
        self._templates: dict[SegmentKind, DelegateTemplate] = {}

    def call(self, segment: Segment) -> DelegateCall:
        """Lower a segment, and give its delegate the keys of its own weights."""
        config = self._traced.config
        tensors = [self._weights.get(name) for name in segment.weights]
        forms = [_form(name, tensor) for name, tensor in zip(segment.weights, tensors, strict=True)]
        kind = kind_of(segment, forms, config.hidden_size, config.head_dim)
        if kind not in self._templates:
            self._templates[kind] = lower_kind(kind, self._traced.max_context)
        template = self._templates[kind]
        data, keys = self._fill(kind, template, tensors)
        floats = [tensors[slot] for slot in kind.norms()]
        norms = tuple(norm.float() for norm in floats if isinstance(norm, Tensor))
        epsilon = next(step.epsilon for step in segment.steps if step.kind == "norm")
        scale = config.adaptor_scale
        return DelegateCall(kind, template, data, keys, norms, epsilon, scale)

    def _fill(
        self,
        kind: SegmentKind,
        template: DelegateTemplate,
        tensors: list[QuantizedTensor | Tensor],
    ) -> tuple[bytes, tuple[str, ...]]:
        """Overwrite the placeholders' keys in a copy of the delegate."""
        data, keys = bytearray(template.data), list(template.kept)
        parts, constants = kind.products(), read_blob(template.data).constants
        for index, filling in template.fillings.items():
            run = _bytes_for(filling, parts[filling.product - 1], tensors, kind.head_dim)
            old, new = constants[index], run.key.encode()
            if len(new) != len(old.key) or run.size_bytes != old.size_bytes:
                message = (
                    f"a weight of {run.size_bytes} bytes does not fit where the delegate has "
                    f"{old.size_bytes}"
                )
                raise LoweringError(message, "report it with the model's config.json")
            data[old.key_at : old.key_at + len(new)] = new
            self.weight_bytes[run.key] = run
            keys.append(run.key)
        self.weight_bytes |= {key: kept_bytes(key, value) for key, value in template.kept.items()}
        return bytes(data), tuple(keys)


def _bytes_for(
    filling: Filling,
    part: ProductPart,
    tensors: Sequence[QuantizedTensor | Tensor],
    head_dim: int,
) -> WeightBytes:
    slot = part.bias if filling.part == BIAS and part.bias is not None else part.slot
    tensor = tensors[slot]
    if isinstance(tensor, Tensor):
        return float_bytes(tensor, part.rows, head_dim)
    make = codes_bytes if filling.part == CODES else scales_bytes
    return make(tensor, part.rows, head_dim)


def _form(name: str, tensor: QuantizedTensor | Tensor) -> ProductForm | None:
    if not isinstance(tensor, QuantizedTensor):
        if tensor.ndim == 1:
            return None
        if is_adaptor(name):
            return float_form(tuple(tensor.shape))
        message = f"{name} is stored as {tensor.dtype}; ExecuTorch's products are int4 or int8"
        raise LoweringError(message, "export with --quantize int4")
    return product_form(name, tensor.scheme, tensor.shape)


def _table(weights: QuantizedWeights, name: str) -> LookupTable:
    tensor = weights.get(name)
    if not isinstance(tensor, QuantizedTensor):
        label = weights.scheme(name).label
        message = f"the token table is stored as {label}; ExecuTorch looks int8 or int4 codes up"
        raise LoweringError(message, "export with --quantize int4")
    form = product_form(name, tensor.scheme, tensor.shape)
    codes, scales = codes_bytes(tensor, WHOLE, 2), lookup_scales_bytes(tensor)
    return LookupTable(codes, scales, form)


def _emit(
    program: ExportedProgram, form: HostForm, stop_token_ids: tuple[int, ...], path: Path
) -> None:
    """Let ExecuTorch write the forward pass around the calls."""
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edge = to_edge(
            program,
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods=runner_metadata(form, stop_token_ids),
        )
        emitted = edge.to_executorch(
            ExecutorchBackendConfig(
                extract_delegate_segments=True,
                memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
                sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
                # The session reads and restores the caches by these names.
                emit_mutable_buffer_names=True,
            )
        )
        with path.open("wb") as file:
            emitted.write_to_file(file)


def runner_metadata(form: HostForm, stop_token_ids: tuple[int, ...]) -> Mapping[str, Any]:
    """Return the methods that ExecuTorch's runners ask before they run a model."""
    config = form.config
    bos = config.bos_token_id
    return {
        **({} if bos is None else {"get_bos_id": bos}),
        "get_eos_ids": list(stop_token_ids),
        # Both equal: the runner takes a smaller one for a sliding window, and writes past the end.
        "get_max_seq_len": form.max_context,
        "get_max_context_len": form.max_context,
        "get_vocab_size": config.vocab_size,
        "get_n_layers": config.num_hidden_layers,
        "get_n_bos": 0 if bos is None else 1,
        "get_n_eos": 1,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
        **({"get_head_tokens": list(config.head_tokens)} if config.head_tokens else {}),
    }


def graph_spec(form: HostForm) -> GraphSpec:
    """Return the artifact's signature: what ExecuTorch's runners call."""
    config = form.config
    shape = (1, form.max_context, config.num_key_value_heads, config.head_dim)
    caches = tuple(
        TensorSpec(name, form.options.kv_dtype, shape)
        for name in (cache_names(config) if form.options.kv_cache == IO else ())
    )
    rows = ("sequence_length",) if form.options.all_logits else ()
    return GraphSpec(
        inputs=(
            TensorSpec("tokens", "int64", (1, "sequence_length")),
            TensorSpec("input_pos", "int64", (1,)),
            *caches,
        ),
        # Caches that are inputs are changed in place: they come out where they went in.
        outputs=(TensorSpec("logits", "float32", (1, *rows, config.num_logits)),),
        kv_cache=form.options.kv_cache,
        max_context=form.max_context,
        all_logits=form.options.all_logits,
    )
