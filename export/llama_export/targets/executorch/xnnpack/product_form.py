"""The forms of quantised products that XNNPACK has kernels for.

It imports neither torch nor the toolkit, so that sizes can be predicted without them.

Shapes: N rows, K columns, G groups in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_export.errors import LoweringError
from llama_quantize.scheme import GroupedInt, Scheme

# A group of this many weights is what the int4 kernels of XNNPACK advance by.
GROUP_STEP = 32
FLOAT_BITS = 32


@dataclass(frozen=True)
class ProductForm:
    """What decides how a product is lowered.

    Args:
        bits: width of a code, 4 or 8; 32: floats, which have no scales.
        rows: number of rows N.
        columns: number of columns K.
        group_size: number of columns that share a scale; K for one scale a row.
        has_bias: whether a bias is added.
    """

    bits: int
    rows: int
    columns: int
    group_size: int
    has_bias: bool = False

    @property
    def groups(self) -> int:
        """Number of scales in a row."""
        return self.columns // self.group_size


def product_form(name: str, scheme: Scheme, shape: tuple[int, ...]) -> ProductForm:
    """Return the form of a weight.

    Args:
        name: the weight's name, for the error.
        scheme: storage form.
        shape: rows and columns.

    Raises:
        LoweringError: XNNPACK has no kernel for it; the hint names the forms that work.
    """
    hint = (
        "its kernels have --quantize int4, in groups of 32, 64, 128 or 256, and in a recipe's file "
        "'int8 row'"
    )
    if not isinstance(scheme, GroupedInt):
        message = f"{name} is stored as {scheme.label}; ExecuTorch's products here are int4 or int8"
        raise LoweringError(message, hint)
    rows, columns = shape
    group = scheme.group_size or columns
    if scheme.bits not in (4, 8):
        message = f"{name} has {scheme.bits}-bit codes; XNNPACK multiplies 4-bit and 8-bit ones"
        raise LoweringError(message, hint)
    if scheme.bits == 8 and group != columns:
        message = f"{name} has int8 codes in groups of {group}; XNNPACK wants one scale a row"
        raise LoweringError(message, hint)
    if scheme.bits == 4 and (group % GROUP_STEP or columns % group):
        message = (
            f"{name} has groups of {group} in rows of {columns}; XNNPACK wants groups that are a "
            f"multiple of {GROUP_STEP} and divide the row"
        )
        raise LoweringError(message, hint)
    return ProductForm(scheme.bits, rows, columns, group)


def float_form(shape: tuple[int, ...]) -> ProductForm:
    """Return the form of a float matrix `[N, K]`, which side branches have."""
    rows, columns = shape
    return ProductForm(FLOAT_BITS, rows, columns, columns)
