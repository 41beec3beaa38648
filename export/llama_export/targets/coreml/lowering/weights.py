"""Weights as MIL constants: int4 and int8 codes with their scales as they are, float16 as it is.

A weight that two operators or two functions use is one constant in the file. It knows quantised
tensors and how MIL dequantises; it does not know where in a Llama a weight stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llama_export.errors import LoweringError
from llama_export.llama.hadamard import sylvester
from llama_export.targets.coreml.lowering.code_store import CodeStore
from llama_export.targets.coreml.names import HADAMARD, ZEROS, const_name
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.tensor import QuantizedTensor

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var


class WeightSet:
    """The arrays behind the constants, made once for all functions of a package.

    Args:
        weights: the quantised checkpoint, mapped.
        store: temporary file for unpacked int4 codes.
    """

    def __init__(self, weights: QuantizedWeights, store: CodeStore) -> None:
        self._weights = weights
        self._store = store
        self._arrays: dict[str, tuple[NDArray[Any], ...]] = {}

    def storage_name(self, name: str) -> str:
        """Return the name that a tied weight is stored under."""
        return self._weights.storage_name(name)

    def vector(self, name: str) -> NDArray[np.float32]:
        """Return a norm's weight, a bias or an adaptor's matrix, float32.

        Raises:
            LoweringError: it is quantised.
        """
        tensor = self._weights.get(name)
        if isinstance(tensor, QuantizedTensor):
            message = f"{name}: it must not be quantised, found {tensor.scheme.label}"
            raise LoweringError(message, "correct the recipe")
        values: NDArray[np.float32] = tensor.float().numpy()
        return values

    def matrix(self, name: str) -> tuple[NDArray[Any], ...]:
        """Return a matrix: codes `[N, K]` and scales float16 `[N, G]`, or floats `[N, K]`.

        Raises:
            LoweringError: floats that are not float16, or scales that float16 cannot hold.
        """
        if name not in self._arrays:
            tensor = self._weights.get(name)
            if isinstance(tensor, QuantizedTensor):
                scales = _exact_scales(name, tensor.scales)
                self._arrays[name] = (self._codes(tensor), scales)
            else:
                self._arrays[name] = (_float16(name, tensor),)
        return self._arrays[name]

    def _codes(self, tensor: QuantizedTensor) -> NDArray[Any]:
        if tensor.scheme.bits == 4:
            return self._store.unpacked(tensor.codes).view(_int4())
        codes: NDArray[Any] = tensor.codes.numpy()
        return codes


class WeightEmitter:
    """The constants of one function; a weight that is used twice is one constant.

    Args:
        arrays: arrays that the constants hold.
    """

    def __init__(self, arrays: WeightSet) -> None:
        self._arrays = arrays
        self._vars: dict[str, Var] = {}

    def matrix(self, name: str) -> Var:
        """Return a matrix `[N, K]` as a float16 value, dequantised by the runtime."""
        stored = self._arrays.storage_name(name)
        if stored not in self._vars:
            self._vars[stored] = self._emit(stored)
        return self._vars[stored]

    def zeros(self, size: int, dtype: type[np.floating[Any]] = np.float16) -> Var:
        """Return a bias that changes nothing: the operator has none without, and one for all."""
        key = f"{ZEROS}{size}" if dtype is np.float16 else f"{ZEROS}{dtype.__name__}_{size}"
        if key not in self._vars:
            self._vars[key] = shared_const(key, np.zeros(size, dtype))
        return self._vars[key]

    def vector(self, name: str) -> Var:
        """Return a norm's weight or a bias `[N]` as a float32 constant."""
        return shared_const(const_name(name), self._arrays.vector(name))

    def float32_product(self, name: str, x: Var) -> Var:
        """Multiply float32 `[..., K]` by the transpose of a float matrix `[N, K]`."""
        from coremltools.converters.mil.mil import Builder

        matrix = shared_const(const_name(name), self._arrays.vector(name))
        bias = self.zeros(matrix.shape[0], np.float32)
        return Builder.linear(x=x, weight=matrix, bias=bias)

    def hadamard(self, side: str, order: int, scale: float) -> Var:
        """Return Sylvester's matrix times a scale, as the one float32 constant of a side."""
        key = f"{HADAMARD}{side}"
        if key not in self._vars:
            values = (sylvester(order) * scale).numpy()
            self._vars[key] = shared_const(key, values)
        return self._vars[key]

    def _emit(self, name: str) -> Var:
        from coremltools.converters.mil.mil import Builder

        arrays = self._arrays.matrix(name)
        stem = const_name(name)
        if len(arrays) == 1:
            return shared_const(stem, arrays[0])
        codes, scales = arrays
        return Builder.constexpr_blockwise_shift_scale(
            data=shared_const(f"{stem}__codes", codes),
            scale=shared_const(f"{stem}__scales", scales),
            name=stem,
        )


def shared_const(name: str, values: NDArray[Any]) -> Var:
    """Make a constant; constants of one name in several functions are stored once."""
    from coremltools.converters.mil.mil import Builder

    constant = Builder.const(val=values, name=name)
    constant.op.weight_id = name
    return constant


def _int4() -> np.dtype[Any]:
    """Return coremltools' numpy type of int4: one a byte, marked as such."""
    from coremltools.converters.mil.mil.types.type_mapping import (
        nptype_from_builtin,
        string_to_builtin,
    )

    marked: np.dtype[Any] = nptype_from_builtin(string_to_builtin("int4"))
    return marked


def _exact_scales(name: str, scales: Tensor) -> NDArray[np.float16]:
    """Return scales in float16, `[N, G]`.

    Raises:
        LoweringError: one is beyond float16, which would change the weights.
    """
    halves = scales.half()
    if not torch.equal(halves.to(scales.dtype), scales):
        largest, least = float(scales.max()), float(scales.min())
        message = f"{name}: scales from {least:g} to {largest:g} do not all fit into float16"
        raise LoweringError(message, "quantise the checkpoint again; its weights are out of range")
    values: NDArray[np.float16] = halves.numpy()
    return values


def _float16(name: str, tensor: Tensor) -> NDArray[np.float16]:
    """Return a float matrix, which Core ML takes in float16 alone.

    Raises:
        LoweringError: it is of another type.
    """
    if tensor.dtype != torch.float16:
        message = f"{name}: {str(tensor.dtype).removeprefix('torch.')} has no form in Core ML"
        raise LoweringError(message, "use --quantize fp16, or int4")
    values: NDArray[np.float16] = tensor.numpy()
    return values
