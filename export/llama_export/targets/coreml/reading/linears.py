"""Follow a block's products: the weight, what is added to it, and the rotation before down_proj.

It shares no code with the lowering but the names of constants. It knows MIL's operators.
"""

from __future__ import annotations

import numpy as np

from llama_export.llama.config import LlamaConfig
from llama_export.targets.coreml.names import const_name
from llama_export.targets.coreml.reading.operations import Operations
from llama_export.targets.wiring import OtherGraphError

_PLAIN = {"transpose_x": 0.0, "transpose_y": 0.0}


class Linears:
    """The way back through products.

    Args:
        operations: a function's operations.
        config: shape of the model.
    """

    def __init__(self, operations: Operations, config: LlamaConfig) -> None:
        self._ops = operations
        self._config = config

    def product(self, value: str, weight: str, place: str) -> str:
        """Follow a product with a named weight to what it multiplies.

        Raises:
            OtherGraphError: it is none; so do the others.
        """
        ops = self._ops
        made = ops.take(value, "linear", place, {}, ("x", "weight", "bias"))
        ops.require_weight(made, "weight", const_name(weight), place)
        ops.require_nothing(made, "bias", place)
        return ops.ref(made, "x", place)

    def module(self, value: str, module: str, place: str, *, is_wide: bool = False) -> str:
        """Follow a module of a block: its product, bias and side branch.

        Args:
            value: name of the module's result.
            module: path of the module.
            place: where a Llama has it.
            is_wide: whether the result is float32, to be added to the residual stream.
        """
        config, ops = self._config, self._ops
        has_bias = config.mlp_bias if ".mlp." in module else config.attention_bias
        if not has_bias and not config.adaptor_rank:
            value = self._cast(value, "fp32", place) if is_wide else value
            return self.product(value, f"{module}.weight", place)
        total, branch = value if is_wide else self._cast(value, "fp16", place), None
        if config.adaptor_rank:
            summed = ops.take(total, "add", place, {}, ("x", "y"))
            total, branch = ops.ref(summed, "x", place), ops.ref(summed, "y", place)
        if has_bias:
            summed = ops.take(total, "add", place, {}, ("x", "y"))
            ops.require_weight(summed, "y", const_name(f"{module}.bias"), place)
            total = ops.ref(summed, "x", place)
        x = self.product(self._cast(total, "fp32", place), f"{module}.weight", place)
        if branch is not None and (taken := self._side(branch, f"{module}.adaptor")) != x:
            raise OtherGraphError(place, f"its side branch takes {taken}, not {x}")
        return x

    def _side(self, value: str, place: str) -> str:
        ops, scale = self._ops, self._config.adaptor_scale
        value = ops.ref(ops.take(value, "mul", place, {"y": scale}, ("x",)), "x", place)
        for part in "BA":
            value = self.product(value, f"{place}.{part}.weight", f"{place}.{part}")
        return self._cast(value, "fp32", place)

    def rotation(self, value: str, place: str) -> str:
        """Follow Hadamard's rotation: two products with constant matrices, in float32."""
        ops, width = self._ops, self._config.intermediate_size
        bits = width.bit_length() - 1
        left, right = 2 ** (bits // 2), 2 ** (bits - bits // 2)
        value = self._reshaped(self._cast(value, "fp16", place), (1, -1, width), place)
        outer = ops.take(value, "matmul", place, _PLAIN, ("x", "y"))
        self._require_hadamard(ops.numbers(outer, "x", place), left, width**-0.5, place)
        inner = ops.take(ops.ref(outer, "y", place), "matmul", place, _PLAIN, ("x", "y"))
        self._require_hadamard(ops.numbers(inner, "y", place), right, 1.0, place)
        value = self._reshaped(ops.ref(inner, "x", place), (1, -1, left, right), place)
        return self._cast(value, "fp32", place)

    def _require_hadamard(self, found: np.ndarray, order: int, scale: float, place: str) -> None:
        """Refuse another matrix: -1 where the two indices share an odd number of bits."""
        signs = [1 - 2 * ((i & j).bit_count() % 2) for i in range(order) for j in range(order)]
        expected = np.array(signs, np.float32).reshape(order, order) * np.float32(scale)
        if not np.array_equal(found, expected):
            raise OtherGraphError(place, f"it multiplies with another matrix of {found.shape}")

    def _cast(self, value: str, dtype: str, place: str) -> str:
        made = self._ops.take(value, "cast", place, {"dtype": dtype}, ("x",))
        return self._ops.ref(made, "x", place)

    def _reshaped(self, value: str, shape: tuple[int, ...], place: str) -> str:
        settings = {"shape": tuple(float(size) for size in shape)}
        made = self._ops.take(value, "reshape", place, settings, ("x",))
        return self._ops.ref(made, "x", place)
