"""What the lowering, the forecast of sizes and the readers of an ONNX artifact must agree on.

It knows schemes and widths; it imports no toolkit, so that sizes can be estimated without one.
"""

from __future__ import annotations

from llama_export.errors import LoweringError
from llama_quantize.scheme import GroupedInt

# On a node's metadata: `name:rows:scales a row` of each weight stacked in it.
WEIGHTS_KEY = "llama_export.weights"
# On a sum that adds a bias or a side branch to a product, and is no residual.
BESIDE_KEY = "llama_export.beside"
# What `MatMulNBits` runs on the CPU. The larger, the fewer bytes per token.
BLOCK_SIZES = (256, 128, 64, 32, 16)


# `GroupQueryAttention` rotates heads of multiples of this.
_HEAD_STEP = 16


def padded_head(head_dim: int) -> int:
    """Return the columns of a head in the graph and in its caches: zeros fill it up."""
    return -(-head_dim // _HEAD_STEP) * _HEAD_STEP


def block_size(scheme: GroupedInt, columns: int, name: str) -> int:
    """Choose the block of `MatMulNBits`: the group itself, or the largest that divides a whole row.

    Raises:
        LoweringError: no block that the CPU operator runs divides the row.
    """
    if scheme.group_size is not None:
        return scheme.group_size
    for size in BLOCK_SIZES:
        if columns % size == 0:
            return size
    message = f"{name}: rows of {columns} columns cannot be cut into blocks of 16 or more"
    hint = "export to onnx with --quantize bf16; executorch and coreml take this width as int8"
    raise LoweringError(message, hint)
