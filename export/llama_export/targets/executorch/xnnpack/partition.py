"""Report what of a forward pass a delegate computes, and what the runtime's own operators do.

The calls are counted in the written file; the products are followed in the partitioned program,
each from the operator that multiplies back to the codes that it takes. It knows ExecuTorch's
programs; it does not know what a Llama is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Node

from llama_export.errors import LoweringError
from llama_export.targets.executorch.options import COREML, VULKAN, XNNPACK
from llama_export.targets.executorch.reading.pte import Pte

# The names under which the runtime looks for them.
BACKENDS: Mapping[str, str] = {
    XNNPACK: "XnnpackBackend",
    VULKAN: "VulkanBackend",
    COREML: "CoreMLBackend",
}
_PRODUCTS = ("aten.mm.", "aten.linear.", "aten.addmm.", "aten.bmm.")
# What may stand between a product and the codes of its weight.
_OF_A_WEIGHT = ("dequantize", "permute_copy", "t_copy")


@dataclass(frozen=True)
class PartitionReport:
    """What the delegate computes, and what it does not.

    Args:
        delegate: one of the keys of `BACKENDS`.
        calls: number of calls of the delegate in one forward pass.
        outside: number of calls of the runtime's own operators in one forward pass, by name.
        products_inside: number of products with a weight that the delegate computes.
        products: number of products with a weight in all.
    """

    delegate: str
    calls: int
    outside: Mapping[str, int]
    products_inside: int
    products: int

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "name": self.delegate,
            "delegate_calls": self.calls,
            "outside": dict(self.outside),
            "products_inside": self.products_inside,
            "products": self.products,
        }


def report_of(pte: Pte, delegate: str, products: int) -> PartitionReport:
    """Count the calls in a written file, of whose products none are outside.

    Raises:
        LoweringError: it calls no delegate, or another one.
    """
    called = [pte.delegates[call.delegate][0] for call in pte.calls if call.delegate >= 0]
    if set(called) != {BACKENDS[delegate]}:
        message = f"expected calls of {BACKENDS[delegate]} alone, found {sorted(set(called))}"
        raise LoweringError(message, "use the executorch version that pyproject.toml names")
    outside = Counter(call.operator for call in pte.calls if call.delegate < 0)
    return PartitionReport(delegate, len(called), dict(sorted(outside.items())), products, products)


def products_outside(program: ExportedProgram, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the products that no delegate computes, by the checkpoint's names.

    Args:
        program: forward pass after partitioning.
        names: names of the products, by the buffer that holds their codes.
    """
    inside: set[str] = set()
    for _, child in program.graph_module.named_children():
        if hasattr(child, "backend_id"):
            inside |= set(_multiplied(child.original_module))
    return tuple(name for buffer, name in names.items() if buffer not in inside)


def _multiplied(program: ExportedProgram) -> Iterator[str]:
    """Yield the buffers of a delegate's program that become the weight of a product in it."""
    buffers = program.graph_signature.inputs_to_buffers
    for node in program.graph_module.graph.nodes:
        if any(name in str(node.target) for name in _PRODUCTS):
            yield from (buffers.get(source, "") for source in _constants(node))


def _constants(node: Node) -> Iterator[str]:
    for source in node.all_input_nodes:
        if source.op == "placeholder":
            yield source.name
        elif any(name in str(source.target) for name in _OF_A_WEIGHT):
            yield from _constants(source)
