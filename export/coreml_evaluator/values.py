"""Values and texts that the ops compute with, and arrays as clients see them.

A value is a torch tensor with the dtype that the program gives it. A float16 value is held in
float32: rounded to float16 in mode "fp16", unrounded in mode "fp32". This module knows how a dtype
is held; it knows neither ops nor files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coreml_evaluator.types import FLOATS, HELD, NUMPY
from llama_export.errors import EvaluationError

Array = NDArray[Any]
MODES = ("fp16", "fp32")


@dataclass(frozen=True)
class Value:
    """A tensor at run time.

    Args:
        data: tensor of the torch dtype that `types.HELD` has for the dtype.
        dtype: MIL name of the dtype.
    """

    data: torch.Tensor
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its dimensions."""
        return tuple(self.data.shape)

    def like(self, data: torch.Tensor) -> Value:
        """Return other data with this dtype."""
        return Value(data, self.dtype)


@dataclass(frozen=True)
class Text:
    """A string; only constants are strings."""

    text: str


def is_float(dtype: str) -> bool:
    """Return whether a dtype is a float, which may be NaN."""
    return dtype in FLOATS


def round_to(data: torch.Tensor, dtype: str) -> torch.Tensor:
    """Round to float16 or bfloat16 as a backend would; other dtypes are returned as they are."""
    if dtype == "fp16":
        return data.half().to(torch.float32)
    if dtype == "bf16":
        return data.bfloat16().to(torch.float32)
    return data


def wrap(data: torch.Tensor, dtype: str) -> torch.Tensor:
    """Wrap an integer result that is held in a wider type into its own range."""
    if dtype == "uint16":
        return data & 0xFFFF
    if dtype == "uint32":
        return data & 0xFFFFFFFF
    return data


def has_nan(data: torch.Tensor) -> bool:
    """Return whether a tensor has a NaN."""
    return data.is_floating_point() and bool(torch.isnan(data).any())


def from_array(array: Array, dtype: str) -> torch.Tensor:
    """Return a copy of an array as a tensor that holds the dtype."""
    return torch.from_numpy(np.array(array, order="C")).to(HELD[dtype])


def to_array(data: torch.Tensor, dtype: str, mode: str) -> Array:
    """Return a copy for a client; float16 stays float32 in mode "fp32".

    Raises:
        EvaluationError: numpy has no such dtype.
    """
    if dtype not in NUMPY:
        message = f"results of {dtype} cannot be given as arrays"
        raise EvaluationError(message)
    if dtype == "fp16" and mode == "fp32":
        dtype = "fp32"
    if dtype == "fp16":
        data = data.half()
    array: Array = np.array(data.numpy(), dtype=NUMPY[dtype], order="C")
    return array
