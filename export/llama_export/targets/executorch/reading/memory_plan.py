"""Check where a `.pte` plans to keep its values, which the runtime takes as it stands.

It knows blocks of memory and places in them; it does not know what a value is for.
"""

from __future__ import annotations

from llama_export.targets.executorch.reading.pte import Pte

# Fields of ExecutionPlan.
_NAME, _BUFFER_SIZES = 0, 8
# Of one block: the float32 caches of an 8B model at its longest context are half of that.
_MOST_PLANNED_BYTES = 2**36


def require_bearable(pte: Pte) -> None:
    """Refuse a program that the runtime would end the process over instead of refusing it.

    Raises:
        ValueError: a method has no name, plans no memory or more than any model needs, or a value
            lies outside of what is planned.
    """
    for method in pte.methods:
        name = method.text(_NAME)
        if not name:
            message = "a method has no name"
            raise ValueError(message)
        planned = method.numbers(_BUFFER_SIZES, "q")
        if not planned or any(not 0 <= size <= _MOST_PLANNED_BYTES for size in planned):
            message = f"the method {name!r} plans {planned} bytes of memory"
            raise ValueError(message)
    blocks = pte.method("forward").numbers(_BUFFER_SIZES, "q")
    for value, tensor in pte.tensors.items():
        if tensor.planned is None:
            continue
        block, offset = tensor.planned
        if not 0 < block < len(blocks) or offset + tensor.size_bytes > blocks[block]:
            message = f"value {value} lies at {offset} of block {block}, of the blocks {blocks}"
            raise ValueError(message)
