"""The forward pass around the delegates: token lookup, KV cache, attention, and the calls.

What is exported here is small: every segment is already a delegate, and stands in the graph as one
call. It knows ExecuTorch's operators for Llama models; it does not know what a segment computes.

Shapes: S tokens, C cache capacity, E hidden_size, H query heads, K key/value heads, D head_dim,
V vocab_size.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from llama_export.bundle.graph_spec import IO, STATE
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.xnnpack.delegate import DelegateTemplate
from llama_export.targets.executorch.xnnpack.plan import HIDDEN, KEY, LOGITS, MIXED, QUERY, VALUE
from llama_export.targets.executorch.xnnpack.product_form import ProductForm
from llama_export.targets.executorch.xnnpack.segment_module import SegmentKind

if TYPE_CHECKING:
    from executorch.exir.lowered_backend_module import LoweredBackendModule

KV_DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
_EXAMPLE_TOKENS = 5


@dataclass(frozen=True)
class DelegateCall:
    """One segment of one layer, lowered and filled.

    Args:
        kind: kind of the segment.
        template: lowered form of the segment.
        data: bytes of the delegate with this layer's keys.
        keys: keys of the constants that the delegate asks for.
        norms: weights of the norms, float32 `[E]` each, in the order of `SegmentKind.norms`.
        epsilon: epsilon of the norms.
        adaptor_scale: factor of the side branches, where it has any.
    """

    kind: SegmentKind
    template: DelegateTemplate
    data: bytes
    keys: tuple[str, ...]
    norms: tuple[Tensor, ...]
    epsilon: float
    adaptor_scale: float


@dataclass(frozen=True)
class HostForm:
    """The signature of the forward pass.

    Args:
        config: shape of the model.
        max_context: C, slots of the cache.
        options: the user's choices, among them place and type of the cache.
    """

    config: LlamaConfig
    max_context: int
    options: ExecutorchOptions


class HostModule(nn.Module):
    """`forward(tokens, input_pos)`, with the caches behind them if they are inputs.

    Args:
        form: signature of the program.
        table: form of the token table, `[V, E]`.
        calls: calls of the segments, one more than there are layers.
    """

    def __init__(self, form: HostForm, table: ProductForm, calls: Sequence[DelegateCall]) -> None:
        super().__init__()
        self._form = form
        self._table_form = table
        self._calls = calls
        config = form.config
        self.table: Tensor
        self.table_scales: Tensor
        self.cos: Tensor
        self.sin: Tensor
        # One row stands for the table, whose bytes and rows are put in when the file is written.
        is_int4 = table.bits == 4
        columns, dtype = (
            (table.columns // 2, torch.uint8) if is_int4 else (table.columns, torch.int8)
        )
        self.register_buffer("table", torch.zeros(1, columns, dtype=dtype))
        # Negative, so that it is not taken for the same constant as an epsilon.
        scales = -torch.ones(1, table.groups)
        self.register_buffer("table_scales", scales.half() if is_int4 else scales)
        positions = torch.arange(form.max_context)
        tables = rope_tables(inverse_frequencies(config), positions, config.attention_factor)
        for name, rows in zip(("cos", "sin"), tables, strict=True):
            self.register_buffer(name, rows[:, None].contiguous())
        if is_int4:
            self.neighbours: Tensor
            self.register_buffer("neighbours", torch.arange(config.hidden_size) ^ 1)
        for number, call in enumerate(calls):
            self.add_module(f"segment_{number}", _lowered(call, form.max_context))
            self.register_buffer(f"epsilon_{number}", torch.tensor([call.epsilon]))
            if call.kind.adapts:
                self.register_buffer(f"scale_{number}", torch.tensor([call.adaptor_scale]))
            for place, norm in enumerate(call.norms):
                self.register_buffer(f"norm_{number}_{place}", norm)
        if form.options.kv_cache == STATE:
            for name, cache in zip(cache_names(config), empty_caches(form), strict=True):
                self.register_buffer(name, cache)

    def forward(self, tokens: Tensor, input_pos: Tensor, *caches: Tensor) -> Tensor:
        """Map int64 `[1, S]` and `[1]` to the logits, `[1, V]` or `[1, S, V]`."""
        llama = torch.ops.llama
        form, length = self._form, tokens.shape[1]
        start = cast("int", input_pos[0].item())
        torch._check(start >= 0)
        torch._check(start + length <= form.max_context)
        hidden = self._lookup(tokens)
        tables = (self.cos.narrow(0, start, length), self.sin.narrow(0, start, length))
        kept = caches or tuple(getattr(self, name) for name in cache_names(form.config))
        values = {HIDDEN: hidden} | self._call(0, {HIDDEN: hidden}, tables)
        dtype = KV_DTYPES[form.options.kv_dtype]
        for layer in range(form.config.num_hidden_layers):
            key_cache, value_cache = kept[2 * layer], kept[2 * layer + 1]
            llama.update_cache(values[KEY].to(dtype), key_cache, start)
            llama.update_cache(values[VALUE].to(dtype), value_cache, start)
            query, hidden, first = values[QUERY].to(dtype), values[HIDDEN], start
            if self._calls[layer + 1].kind.segment.last_row:
                query, hidden, first = query[:, -1:], hidden[:, -1:], start + length - 1
            mixed = llama.custom_sdpa(query, key_cache, value_cache, first, None, 0.0, True, None)
            mixed = mixed.to(torch.float32)
            values = {HIDDEN: hidden} | self._call(
                layer + 1, {HIDDEN: hidden, MIXED: mixed}, tables
            )
        logits: Tensor = values[LOGITS]
        return logits if form.options.all_logits else logits[:, 0]

    def _lookup(self, tokens: Tensor) -> Tensor:
        """Return the rows of the table, `[1, S, E]`."""
        known = torch.ops.quantized_decomposed
        if self._table_form.bits == 8:
            rows: Tensor = known.embedding_byte.dtype(
                self.table, self.table_scales, None, -128, 127, tokens, dtype=torch.float32
            )
            return rows
        # It takes the high nibble for the even element, and XNNPACK the low one. The bytes are
        # XNNPACK's, so that a tied table is stored once: each two neighbours change places.
        swapped = known.embedding_4bit.dtype(
            self.table, self.table_scales, None, -8, 7, tokens, dtype=torch.float32
        )
        return torch.index_select(swapped, 2, self.neighbours)

    def _call(
        self, number: int, values: Mapping[str, Tensor], tables: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """Call a segment and return its results by what they are."""
        call = self._calls[number]
        given = [values[name] for name in call.kind.segment.inputs]
        given += [getattr(self, f"norm_{number}_{place}") for place in range(len(call.norms))]
        given.append(getattr(self, f"epsilon_{number}"))
        given += [getattr(self, f"scale_{number}")] if call.kind.adapts else []
        given += tables if call.kind.rotates else ()
        lowered = getattr(self, f"segment_{number}")
        results = lowered(*(given[index] for index in call.template.arguments))
        names = result_names(call.kind)
        return {
            names[index]: result
            for index, result in zip(call.template.outputs, results, strict=True)
        }


def result_names(kind: SegmentKind) -> tuple[str, ...]:
    """Return what a segment's outputs are, in their order."""
    count = len(kind.segment.outputs)
    return (LOGITS,) if count == 1 else (HIDDEN, QUERY, KEY, VALUE)[4 - count :]


def cache_names(config: LlamaConfig) -> tuple[str, ...]:
    """Name the caches in the order of the layers, the keys before the values."""
    layers = range(config.num_hidden_layers)
    return tuple(f"{part}_cache_{layer}" for layer in layers for part in ("key", "value"))


def empty_caches(form: HostForm) -> tuple[Tensor, ...]:
    """Make the caches, `[1, C, K, D]` each."""
    config = form.config
    shape = (1, form.max_context, config.num_key_value_heads, config.head_dim)
    return tuple(
        torch.zeros(shape, dtype=KV_DTYPES[form.options.kv_dtype]) for _ in cache_names(config)
    )


def export_host(
    form: HostForm, table: ProductForm, calls: Sequence[DelegateCall]
) -> ExportedProgram:
    """Export the forward pass; the number of tokens stays dynamic."""
    tokens = torch.zeros(1, min(_EXAMPLE_TOKENS, form.max_context), dtype=torch.int64)
    caches = empty_caches(form) if form.options.kv_cache == IO else ()
    length = Dim("tokens", min=1, max=form.max_context) if tokens.shape[1] > 1 else None
    shapes: tuple[Any, ...] = ({1: length} if length else None, None)
    shapes += ((None,) * len(caches),) if caches else ()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(
            HostModule(form, table, calls).eval(),
            (tokens, torch.zeros(1, dtype=torch.int64), *caches),
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


class _Shapes(nn.Module):
    """A segment's signature without its computation: what the exporter traces in its place."""

    def __init__(self, call: DelegateCall) -> None:
        super().__init__()
        self._call = call

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        kind = self._call.kind
        inputs = dict(zip(self._call.template.arguments, arguments, strict=True))
        hidden = inputs[0]
        length = hidden.shape[1]
        rows = {
            step.output: form.rows
            for step in kind.segment.steps
            if step.output in (QUERY, KEY, VALUE)
            and step.weight is not None
            and (form := kind.forms[step.weight]) is not None
        }
        results = {
            HIDDEN: (1, length, kind.hidden_size),
            **{name: (1, length, n // kind.head_dim, kind.head_dim) for name, n in rows.items()},
        }
        last = kind.segment.steps[-1]
        if last.weight is not None and (form := kind.forms[last.weight]) is not None:
            results[LOGITS] = (1, length, form.rows)
        names = result_names(kind)
        return tuple(hidden.new_zeros(results[names[i]]) for i in self._call.template.outputs)


def _lowered(call: DelegateCall, max_context: int) -> LoweredBackendModule:
    """Wrap a filled delegate, so that it can be called where a graph is exported.

    Its constants are stand-ins, each different: their bytes are put in when the file is written.
    """
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    store = NamedDataStore()
    for key in call.keys:
        store.add_named_data(key, key.encode(), alignment=16)
    from llama_export.targets.executorch.xnnpack.delegate import example_inputs

    inputs, dynamic = example_inputs(call.kind, max_context)
    order = call.template.arguments
    with torch.no_grad():
        shapes = export(
            _Shapes(call).eval(),
            tuple(inputs[index] for index in order),
            dynamic_shapes=(tuple(dynamic[index] for index in order),),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    return LoweredBackendModule(
        shapes, call.template.backend, call.data, [], store.get_named_data_store_output()
    )
