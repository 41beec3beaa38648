"""What the float products of a delegate multiply with, told by their bytes.

The mean of a norm is a product with a row of 1/E, the rotation before down_proj one with each of
two matrices; what is neither belongs to a side branch. It knows no names and no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_export.llama.intermediates import FloatArray
from llama_export.targets.executorch.reading.xnnpack_blob import BlobProduct

MEAN, HADAMARD, SIDE = "a row of 1/E", "hadamard", "side"


@dataclass(frozen=True)
class FloatMatrix:
    """What a float product multiplies with.

    Args:
        role: one of `MEAN`, `HADAMARD` and `SIDE`.
        order: order of a matrix of the rotation; 0 of another.
        scale: what its ones are; 0 of another.
    """

    role: str
    order: int = 0
    scale: float = 0.0


def recognised(product: BlobProduct, content: bytes) -> FloatMatrix:
    """Recognise a matrix by its numbers.

    Args:
        product: product that it belongs to.
        content: bytes of the constant.

    Raises:
        ValueError: it has another size than the product's.
    """
    matrix = np.frombuffer(content, "<f4").reshape(product.rows, product.columns)
    if product.rows == 1 and bool((matrix == np.float32(1 / product.columns)).all()):
        return FloatMatrix(MEAN)
    if product.rows == product.columns:
        scale = matrix[0, 0]
        if scale > 0 and np.array_equal(matrix, sylvester(product.rows) * scale):
            return FloatMatrix(HADAMARD, product.rows, float(scale))
    return FloatMatrix(SIDE)


def sylvester(order: int) -> FloatArray:
    """Return the matrix: -1 where the two indices share an odd number of bits."""
    index = np.arange(order, dtype=np.uint32)
    shared = np.bitwise_count(index[:, None] & index[None])
    return np.where(shared % 2, np.float32(-1), np.float32(1))
