"""Lower one kind of segment to XNNPACK, and map its constants to the weights they belong to.

It goes the whole way of ExecuTorch's own exporter: torch.export, then `to_edge_transform_and_lower`
with XNNPACK's partitioner, which here puts everything that it takes into one partition. What is
left over is an error with names. It knows placeholders; the weights' bytes come later.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, export
from torch.fx import Node

from llama_export.errors import LoweringError
from llama_export.targets.executorch.reading.xnnpack_blob import XnnpackBlob, read_blob
from llama_export.targets.executorch.xnnpack.placeholders import (
    number_in_codes,
    number_in_floats,
    number_in_scales,
)
from llama_export.targets.executorch.xnnpack.plan import HIDDEN, MIXED
from llama_export.targets.executorch.xnnpack.product_form import FLOAT_BITS, float_form
from llama_export.targets.executorch.xnnpack.segment_module import (
    ProductPart,
    SegmentKind,
    SegmentModule,
)

if TYPE_CHECKING:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

CODES, SCALES, BIAS = "codes", "scales", "bias"
# Any length that is neither 1 nor another dimension: torch.export takes equal numbers for the same.
_EXAMPLE_TOKENS = 5
_HINT = "report it with the model's config.json"


@dataclass(frozen=True)
class Filling:
    """What a placeholder among the delegate's constants stands in for.

    Args:
        product: number of the product in the segment, from 1.
        part: which it stands in for: `CODES`, a float matrix's numbers too, `SCALES` or `BIAS`.
    """

    product: int
    part: str


@dataclass(frozen=True)
class DelegateTemplate:
    """A lowered segment, ready to be filled with a layer's weights.

    Args:
        backend: name of the delegate in the file.
        data: bytes of the delegate.
        fillings: what replaces each constant, by its index; a constant that is not here stays.
        kept: bytes of the constants that stay, by key.
        arguments: index among the segment's inputs of each argument of the call.
        outputs: index among the segment's outputs of each result of the call.
        nodes: number of operators that it runs.
    """

    backend: str
    data: bytes
    fillings: Mapping[int, Filling]
    kept: Mapping[str, bytes]
    arguments: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: int


def lower_kind(kind: SegmentKind, max_context: int) -> DelegateTemplate:
    """Lower a segment with placeholders.

    Args:
        kind: kind of the segment.
        max_context: largest number of tokens of a call.

    Raises:
        LoweringError: a step does not end up in the delegate.
    """
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of one library in another
        program = _exported(kind, max_context)
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[_one_partition()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    return _template(kind, edge.exported_program())


def _exported(kind: SegmentKind, max_context: int) -> ExportedProgram:
    inputs, dynamic = example_inputs(kind, max_context)
    with torch.no_grad():
        return export(
            SegmentModule(kind).eval(),
            inputs,
            dynamic_shapes=(dynamic,),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def example_inputs(
    kind: SegmentKind, max_context: int
) -> tuple[tuple[Tensor, ...], tuple[Mapping[int, Any] | None, ...]]:
    """Return tensors of the right shapes, and which of their dimensions vary."""
    tokens = 1 if kind.segment.last_row else min(_EXAMPLE_TOKENS, max_context)
    length = Dim("tokens", min=1, max=max_context) if tokens > 1 else None
    by_column: Mapping[int, Any] | None = {1: length} if length else None
    by_row: Mapping[int, Any] | None = {0: length} if length else None
    heads = (1, tokens, kind.mixed_columns // kind.head_dim, kind.head_dim)
    shapes = {HIDDEN: (1, tokens, kind.hidden_size), MIXED: heads}
    inputs = [torch.zeros(shapes[name]) for name in kind.segment.inputs]
    dynamic = [by_column for _ in inputs]
    inputs += [torch.ones(kind.hidden_size) for _ in kind.norms()]
    inputs += [torch.ones(1) for _ in range(2 if kind.adapts else 1)]
    dynamic += [None] * (len(inputs) - len(dynamic))
    if kind.rotates:
        inputs += [torch.ones(tokens, 1, kind.head_dim // 2) for _ in range(2)]
        dynamic += [by_row, by_row]
    return tuple(inputs), tuple(dynamic)


def _one_partition() -> XnnpackPartitioner:
    """Return XNNPACK's partitioner with everything that it takes in one partition.

    A segment has no operator of another runtime inside, so nothing can come between.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from torch.fx.passes.infra.partitioner import Partition

    class OnePartition(XnnpackPartitioner):
        def generate_partitions(self, ep: ExportedProgram) -> list[Partition]:
            groups = self.get_matched_nodes_from_configs(ep)
            return [Partition(id=0, nodes=[node for group in groups for node in group])]

    return OnePartition()


def _template(kind: SegmentKind, program: ExportedProgram) -> DelegateTemplate:
    module = program.graph_module
    calls = [node for node in module.graph.nodes if "executorch_call_delegate" in str(node.target)]
    left = [node for node in module.graph.nodes if _computes(node) and node not in calls]
    if len(calls) != 1 or left:
        names = ", ".join(sorted({str(node.target) for node in left})) or "nothing"
        message = f"a segment became {len(calls)} delegate calls; outside of them: {names}"
        raise LoweringError(message, "use the executorch version that pyproject.toml names")
    lowered = getattr(module, str(calls[0].args[0]))
    blob = read_blob(lowered.processed_bytes)
    _require_all_products(kind, blob)
    store = lowered.named_data_store_output
    stored = {key: store.buffers[entry.buffer_index] for key, entry in store.pte_data.items()}
    fillings = dict(_fillings(kind, blob, stored))
    kept = {
        constant.key: stored[constant.key]
        for index, constant in enumerate(blob.constants)
        if constant.key and index not in fillings
    }
    inputs = [str(name) for name in program.graph_signature.user_inputs]
    outside = [str(node) for node in calls[0].args[1:] if str(node) not in inputs]
    if outside:
        message = f"the delegate takes {', '.join(outside)} from outside the segment"
        raise LoweringError(message, _HINT)
    return DelegateTemplate(
        backend=lowered.backend_id,
        data=lowered.processed_bytes,
        fillings=fillings,
        kept=kept,
        arguments=tuple(inputs.index(str(node)) for node in calls[0].args[1:]),
        outputs=_output_order(module.graph.output_node(), len(kind.segment.outputs)),
        nodes=blob.nodes,
    )


def _computes(node: Node) -> bool:
    """Return whether a node makes a tensor; sizes and checks of them do not."""
    is_part = "getitem" in str(node.target)
    return node.op == "call_function" and not is_part and isinstance(node.meta.get("val"), Tensor)


def _require_all_products(kind: SegmentKind, blob: XnnpackBlob) -> None:
    parts = kind.products()
    expected = [part for part in parts if part.form.bits != FLOAT_BITS]
    found = [product for product in blob.products if product.bits in (4, 8)]
    others = len(kind.norms()) + (2 if kind.hadamard_width else 0)
    if len(found) != len(expected) or len(blob.products) != len(parts) + others:
        message = (
            f"{len(expected)} quantised products went into a segment, {len(found)} of them came "
            f"out in the delegate, beside {len(blob.products) - len(found)} float ones"
        )
        raise LoweringError(message, "use the executorch version that pyproject.toml names")


def _fillings(
    kind: SegmentKind, blob: XnnpackBlob, stored: Mapping[str, bytes]
) -> list[tuple[int, Filling]]:
    """Recognise the placeholders by the numbers that they begin with."""
    parts, found = kind.products(), []
    for product in blob.products:
        if product.scales is None:
            number = number_in_floats(stored[blob.constants[product.codes].key])
            part = parts[number - 1] if 1 <= number <= len(parts) else None
            if part and part.form == float_form((product.rows, product.columns)):
                found.append((product.codes, Filling(number, CODES)))
            continue
        numbers = (
            number_in_codes(stored[blob.constants[product.codes].key], product.bits),
            number_in_scales(stored[blob.constants[product.scales].key], product.bits),
        )
        number = numbers[0]
        fits = 1 <= number <= len(parts) and numbers[1] == number
        form = parts[number - 1].form if fits else None
        shape = (product.bits, product.rows, product.columns, product.group_size)
        if form is None or shape != (form.bits, form.rows, form.columns, form.group_size):
            message = f"a product {shape} of the delegate cannot be told: it says {numbers}"
            raise LoweringError(message, "use the executorch version that pyproject.toml names")
        found.append((product.codes, Filling(number, CODES)))
        found.append((product.scales, Filling(number, SCALES)))
        if product.bias is not None:
            number = number_in_floats(stored[blob.constants[product.bias].key])
            found.append((product.bias, Filling(number, BIAS)))
    if {filling for _, filling in found} != set(_wanted(parts)):
        message = f"{len(parts)} products went into the delegate, not all of them came out"
        raise LoweringError(message, _HINT)
    return found


def _wanted(parts: Sequence[ProductPart]) -> Iterator[Filling]:
    for number, part in enumerate(parts, start=1):
        yield Filling(number, CODES)
        if part.form.bits != FLOAT_BITS:
            yield Filling(number, SCALES)
        if part.bias is not None:
            yield Filling(number, BIAS)


def _output_order(output: Node, count: int) -> tuple[int, ...]:
    """Return which output of the segment each result of the delegate's call is."""
    # The output's inputs, in the order in which it gives them; none is given twice.
    nodes = output.all_input_nodes
    order = {int(str(node.args[1])): place for place, node in enumerate(nodes)}
    if sorted(order) != list(range(count)):
        message = f"the delegate gives {sorted(order)} where {count} results were expected"
        raise LoweringError(message, _HINT)
    return tuple(order[index] for index in range(count))
